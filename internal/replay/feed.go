// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const (
	etherHeader = 14
	// bufferSize has to fit into a page beside XDP_PACKET_HEADROOM and struct skb_shared_info, which
	// grows with CONFIG_MAX_SKB_FRAGS.
	bufferSize = 3008
	// keepBytes is how much of a frame the wire program may look at: it follows headers, of which it
	// allows more than 200 bytes, and the first bytes behind them.
	keepBytes = 256
	// plainBytes is how much that is for IPv4 without options: Ethernet, IPv4, UDP, non-ESP marker and
	// IKE header are 74 bytes.
	plainBytes = 80
)

// testRun is the part of union bpf_attr that BPF_PROG_TEST_RUN uses.
type testRun struct {
	progFD      uint32
	retval      uint32
	dataSizeIn  uint32
	dataSizeOut uint32
	dataIn      uint64
	dataOut     uint64
	repeat      uint32
	duration    uint32
	ctxSizeIn   uint32
	ctxSizeOut  uint32
	ctxIn       uint64
	ctxOut      uint64
}

const bpfProgTestRun = 10

// feeder hands packets to the wire program. It is for one goroutine.
type feeder struct {
	batch  bool
	attr   testRun
	md     [6]uint32 // struct xdp_md, without the driver
	buf    [bufferSize]byte
	low    int // where the lowest frame's prefix begins
	start  int // where the lowest frame begins
	end    int // where it ends
	queued uint32
	fed    uint64
	pin    runtime.Pinner
	after  func() error // called after each run; may be nil
}

// newFeeder uses the driver if it could be loaded.
func newFeeder(coll *ebpf.Collection) *feeder {
	f := &feeder{low: bufferSize}
	prog, ok := coll.Programs[driverProgram]
	f.batch = ok
	if !ok {
		prog = coll.Programs[wireProgram]
	}
	f.attr = testRun{progFD: uint32(prog.FD()), repeat: 1}
	// The kernel is given addresses within f as numbers, which the garbage collector cannot see.
	f.pin.Pin(f)
	return f
}

func (f *feeder) close() { f.pin.Unpin() }

// meta is struct offline_meta.
type meta struct {
	timeNS  uint64
	wireLen uint32
	ifindex uint32
}

// add queues a frame, of which at most keepBytes count, and runs the queue when it is full. The frame
// has to have an Ethernet header: the kernel takes nothing shorter.
func (f *feeder) add(frame []byte, m meta) error {
	n := min(len(frame), headBytes(frame))
	need := prefixSize + n
	if f.queued == driverMax || f.queued > 0 && (!f.batch || f.low-need < 4) {
		if err := f.flush(); err != nil {
			return err
		}
	}
	end := f.low
	start := end - n
	copy(f.buf[start:end], frame[:n])
	low := start - prefixSize
	binary.NativeEndian.PutUint64(f.buf[low:], m.timeNS)
	binary.NativeEndian.PutUint32(f.buf[low+8:], m.wireLen)
	binary.NativeEndian.PutUint32(f.buf[low+12:], m.ifindex)
	clear(f.buf[low+offHead : start]) // the last one so far
	if f.queued > 0 {
		before := f.buf[f.low:]
		binary.NativeEndian.PutUint32(before[offHead:], uint32(start-f.start))
		binary.NativeEndian.PutUint32(before[offTail:], uint32(end-f.end))
	} else {
		f.md = [6]uint32{prefixSize, uint32(prefixSize + n)}
	}
	f.low, f.start, f.end = low, start, end
	f.queued++
	return nil
}

// flush runs what is queued.
func (f *feeder) flush() error {
	if f.queued == 0 {
		return nil
	}
	begin := f.low
	if f.batch {
		// The first packet, at the end of the buffer, was queued when the buffer was empty.
		begin -= 4
		binary.NativeEndian.PutUint32(f.buf[begin:], uint32(f.first()-begin))
	} else {
		f.attr.ctxIn = uint64(uintptr(unsafe.Pointer(&f.md)))
		f.attr.ctxSizeIn = uint32(unsafe.Sizeof(f.md))
	}
	f.attr.dataIn = uint64(uintptr(unsafe.Pointer(&f.buf[begin])))
	f.attr.dataSizeIn = uint32(bufferSize - begin)
	f.attr.retval, f.attr.dataSizeOut = 0, 0
	_, _, errno := unix.Syscall(unix.SYS_BPF, bpfProgTestRun, uintptr(unsafe.Pointer(&f.attr)), unsafe.Sizeof(f.attr))
	queued := f.queued
	f.queued, f.low = 0, bufferSize
	switch {
	case errno == unix.EINTR:
		// The packets have been counted, see the package comment. The verdict was not written.
	case errno == unix.EINVAL && !f.batch:
		return errors.New("run the wire program: this kernel cannot pass a packet's time to it, that needs Linux 5.15")
	case errno != 0:
		return fmt.Errorf("run the wire program: %w", errno)
	case f.batch && f.attr.retval != driverBase+queued:
		return fmt.Errorf("run the wire program: the driver returned %d for %d packets", f.attr.retval, queued)
	}
	f.fed += uint64(queued)
	if f.after != nil {
		return f.after()
	}
	return nil
}

// first is where the first queued frame begins: its length is known from its own place.
func (f *feeder) first() int { return bufferSize - int(f.md[1]) + prefixSize }

// headBytes is how much of a frame the wire program can need. Most frames are plain IPv4 and so small
// that thirty of them go into one call.
func headBytes(frame []byte) int {
	const protocolAH = 51
	if len(frame) >= etherHeader+20 && frame[12] == 0x08 && frame[13] == 0x00 && frame[14] == 0x45 && frame[23] != protocolAH {
		return plainBytes
	}
	return keepBytes
}
