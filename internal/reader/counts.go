// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// counts reads sa_counts. Arrays with a value for each CPU cannot be mapped, so each read is a system call; one
// reads a slot or, where the kernel can (5.13), a row of slots. The library does both by reflection, which takes
// several times as long as the call, and it is done for each SA of a snapshot.
type counts struct {
	m      *ebpf.Map
	cpus   int
	single bool    // rows cannot be read
	alone  []Count // of one slot, by CPU
	row    []Count // by slot of the row, and by CPU
	slots  []uint32
	one    lookup
	many   lookupBatch
	next   [2]uint32 // where a row begins, and where the next one would
}

// countRow is how many slots a call reads at most, and countBytes how many bytes: what it brings stays in the cache
// until it is asked for.
const (
	countRow   = 512
	countBytes = 256 << 10
)

// lookup is the part of union bpf_attr that BPF_MAP_LOOKUP_ELEM uses.
type lookup struct {
	mapFD, _   uint32
	key, value uint64
	flags      uint64
}

// lookupBatch is the part of it that BPF_MAP_LOOKUP_BATCH uses.
type lookupBatch struct {
	in, out      uint64
	keys, values uint64
	count, mapFD uint32
	elem, flags  uint64
}

func newCounts(m *ebpf.Map, cpus int) counts {
	n := max(1, min(countRow, int(m.MaxEntries()), countBytes/(cpus*int(unsafe.Sizeof(Count{})))))
	return counts{m: m, cpus: cpus, alone: make([]Count, cpus), row: make([]Count, n*cpus), slots: make([]uint32, n)}
}

// read reads the counts of one slot.
func (c *counts) read(slot uint32) error {
	c.slots[0] = slot
	c.one = lookup{mapFD: uint32(c.m.FD()), key: address(&c.slots[0]), value: address(&c.alone[0])}
	errno := bpf(unix.BPF_MAP_LOOKUP_ELEM, unsafe.Pointer(&c.one), unsafe.Sizeof(c.one))
	runtime.KeepAlive(c) // which holds all that the kernel was given as a number
	if errno != 0 {
		return fmt.Errorf("read sa_counts slot %d: %w", slot, errno)
	}
	return nil
}

// readRow reads the counts of n slots, as many as the row has at most, from the first one on. False: the kernel cannot, and each
// is to be read by itself.
func (c *counts) readRow(first uint32, n int) bool {
	if c.single {
		return false
	}
	c.many = lookupBatch{out: address(&c.next[1]), keys: address(&c.slots[0]), values: address(&c.row[0]),
		count: uint32(n), mapFD: uint32(c.m.FD())}
	if first > 0 {
		c.next[0] = first - 1 // the one to go on after
		c.many.in = address(&c.next[0])
	}
	errno := bpf(unix.BPF_MAP_LOOKUP_BATCH, unsafe.Pointer(&c.many), unsafe.Sizeof(c.many))
	runtime.KeepAlive(c)
	// The end of the table is an error to the kernel, with what there was before it.
	if errno != 0 && errno != unix.ENOENT || int(c.many.count) != n || c.slots[0] != first || c.slots[n-1] != first+uint32(n)-1 {
		c.single = true
		return false
	}
	return true
}

// ofRow is what the CPUs counted for one slot of the row.
func (c *counts) ofRow(i int) []Count { return c.row[i*c.cpus : (i+1)*c.cpus] }

// total adds up what the CPUs counted, and says how many packets each counted.
func total(perCPU []Count) (Count, map[int]uint64) {
	cpus := map[int]uint64{}
	for cpu := range perCPU {
		if n := perCPU[cpu].Packets; n > 0 {
			cpus[cpu] = n
		}
	}
	return Sum(perCPU, addCount), cpus
}

func address[T any](p *T) uint64 { return uint64(uintptr(unsafe.Pointer(p))) }

func bpf(cmd int, attr unsafe.Pointer, size uintptr) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
	return errno
}

// Count sums one slot's per-CPU counts, and says how many packets each CPU counted.
func (t *Table) Count(slot uint32) (Count, map[int]uint64, error) {
	if err := t.counts.read(slot); err != nil {
		return Count{}, nil, err
	}
	sum, cpus := total(t.counts.alone)
	return sum, cpus, nil
}

func addCount(dst *Count, c Count) {
	dst.Packets += c.Packets
	dst.Bytes += c.Bytes
	dst.Dscps |= c.Dscps
	dst.Largest = max(dst.Largest, c.Largest)
}

// Sum folds the values that the possible CPUs hold into one.
func Sum[T any](perCPU []T, add func(dst *T, v T)) (total T) {
	for _, v := range perCPU {
		add(&total, v)
	}
	return total
}
