// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/ledger"
)

// byDirection sums a per-CPU array of struct by_direction. Names without a packet are left out.
func (t *Table) byDirection(m *ebpf.Map, names []string) (map[ledger.Direction]map[string]uint64, error) {
	out := make(map[ledger.Direction]map[string]uint64)
	for i := range m.MaxEntries() {
		var perCPU []bpfobj.ByDirection
		if err := m.Lookup(i, &perCPU); err != nil {
			return nil, err
		}
		sum := Sum(perCPU, func(dst *bpfobj.ByDirection, v bpfobj.ByDirection) {
			for d, n := range v.Packets {
				dst.Packets[d] += n
			}
		})
		for d, n := range sum.Packets {
			if n == 0 {
				continue
			}
			dir := direction(uint8(d))
			if out[dir] == nil {
				out[dir] = make(map[string]uint64)
			}
			out[dir][name(names, int(i))] = n
		}
	}
	return out, nil
}

// ReadLost sums lost_counts, by name; what never happened is left out.
func ReadLost(m *ebpf.Map) (map[string]uint64, error) {
	names, err := LoadNames()
	if err != nil {
		return nil, err
	}
	out := make(map[string]uint64)
	for i := range m.MaxEntries() {
		var perCPU []uint64
		if err := m.Lookup(i, &perCPU); err != nil {
			return nil, fmt.Errorf("read lost_counts: %w", err)
		}
		if n := Sum(perCPU, add); n > 0 {
			out[name(names.Lost, int(i))] = n
		}
	}
	return out, nil
}

// readSelf fills in what the programs and the reader could not do, and what they cost.
func (r *Reader) readSelf(snap *ledger.Snapshot) error {
	self := &snap.Self
	self.Evicted = r.reap.evicted
	var errs []error
	if r.src.Lost != nil {
		lost, err := ReadLost(r.src.Lost)
		errs = append(errs, err)
		self.Lost = lost
		self.Suppressed, self.EventsLost = lost["suppressed"], lost["ring_full"]
	}
	for name, p := range r.src.Programs {
		stats, err := p.Stats()
		if errors.Is(err, ebpf.ErrNotSupported) {
			continue // before 5.12 the kernel does not tell
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("read statistics of %s: %w", name, err))
			continue
		}
		self.RecursionMisses += stats.RecursionMisses
		// Counted only while kernel.bpf_stats_enabled, or ebpf.EnableStats, asks for it.
		if stats.RunCount > 0 {
			if self.NsPerRun == nil {
				self.NsPerRun, self.Runs = make(map[string]float64), make(map[string]uint64)
			}
			self.Runs[name] = stats.RunCount
			self.NsPerRun[name] = float64(stats.Runtime.Nanoseconds()) / float64(stats.RunCount)
		}
	}
	sizes, err := MapBytes(r.src.Maps)
	errs = append(errs, err)
	if sizes != nil {
		var sum uint64
		for _, n := range sizes {
			sum += n
		}
		self.MapBytes = &sum
	}
	used, err := cpuTime()
	errs = append(errs, err)
	if wall := snap.At.Sub(r.started); wall > 0 {
		self.CPUPercent = 100 * float64(used-r.usedBefore) / float64(wall)
	}
	return errors.Join(errs...)
}

// MapBytes is what the kernel says that the maps hold, by their names: exact from 6.4 on (map_mem_usage of struct
// bpf_map_ops), before that entries times their size (bpf_map_memory_footprint), which is nothing for a ring: of
// those the size of the data is taken. An empty trie holds nothing. It is nil where the kernel tells of no
// map at all.
func MapBytes(maps []*ebpf.Map) (map[string]uint64, error) {
	out := make(map[string]uint64, len(maps))
	tells := false
	for _, m := range maps {
		info, err := m.Info()
		if err != nil {
			return nil, fmt.Errorf("read size of a map: %w", err)
		}
		n, told := info.Memlock()
		if tells = tells || told; !told && info.Type == ebpf.RingBuf {
			n = uint64(info.MaxEntries)
		}
		out[info.Name] += n
	}
	if !tells {
		return nil, nil
	}
	return out, nil
}

// cpuTime is what this process has used of all CPUs.
func cpuTime() (time.Duration, error) {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano()), nil
}
