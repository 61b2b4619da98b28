// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
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
	// espBytes is how much that is if ESP follows at once: SPI and sequence number end at byte 42.
	espBytes = 44
	// trays is how many may be on their way from the reader of the file to the kernel, each of so many calls that
	// waking the other goroutine for it does not count.
	trays        = 4
	callsPerTray = 16
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

// batch is packets that one call hands to the wire program.
type batch struct {
	attr   testRun
	md     [6]uint32 // struct xdp_md, without the driver
	buf    [bufferSize]byte
	low    int // where the lowest frame's prefix begins
	start  int // where the lowest frame begins
	end    int // where it ends
	queued uint32
}

// tray is what one goroutine hands to the other at a time.
type tray struct {
	calls [callsPerTray]batch
	n     int // that is being filled
}

// feeder hands packets to the wire program, which runs on one goroutine while the file is read on another. All
// methods are for the latter.
type feeder struct {
	driver  bool         // packets go through it, many a call
	after   func() error // called after each run, on the goroutine that runs; may be nil
	now     *tray        // that is being filled; nil: none yet
	free    chan *tray
	full    chan *tray
	ended   chan struct{} // closed when all that was handed over has run
	fed     atomic.Uint64
	failure atomic.Pointer[error] // the first one since the last flush
	pin     runtime.Pinner
	all     []tray
}

// newFeeder uses the driver if it could be loaded.
func newFeeder(coll *ebpf.Collection) *feeder {
	f := &feeder{free: make(chan *tray, trays), all: make([]tray, trays)}
	prog, ok := coll.Programs[driverProgram]
	f.driver = ok
	if !ok {
		prog = coll.Programs[wireProgram]
	}
	// The kernel is given addresses within the trays as numbers, which the garbage collector cannot see.
	f.pin.Pin(&f.all[0])
	for i := range f.all {
		for n := range f.all[i].calls {
			b := &f.all[i].calls[n]
			b.attr, b.low = testRun{progFD: uint32(prog.FD()), repeat: 1}, bufferSize
		}
		f.free <- &f.all[i]
	}
	return f
}

func (f *feeder) close() { f.pin.Unpin() }

// meta is struct offline_meta.
type meta struct {
	timeNS  uint64
	wireLen uint32
	ifindex uint32
}

// add queues a frame, of which at most keepBytes count, and hands over what is queued when a tray is full. The frame
// has to have an Ethernet header: the kernel takes nothing shorter. False: a run before has failed, as flush tells.
func (f *feeder) add(frame []byte, m meta) bool {
	n := min(len(frame), headBytes(frame))
	if f.now == nil {
		f.now = <-f.free
	}
	b := &f.now.calls[f.now.n]
	if b.queued == driverMax || b.queued > 0 && (!f.driver || b.low-prefixSize-n < 4) {
		if f.now.n++; f.now.n == callsPerTray {
			f.handOver()
			f.now = <-f.free
		}
		b = &f.now.calls[f.now.n]
	}
	b.add(frame[:n], m)
	return f.failure.Load() == nil
}

// handOver gives what is queued to the goroutine that runs it.
func (f *feeder) handOver() {
	if f.full == nil {
		f.full, f.ended = make(chan *tray, trays), make(chan struct{})
		go f.run(f.full, f.ended)
	}
	f.full <- f.now
	f.now = nil
}

// flush runs what is queued, and waits until all has run. Its error is the first one since the last flush, behind which
// nothing ran.
func (f *feeder) flush() error {
	if f.now != nil {
		f.handOver()
	}
	if f.full != nil {
		close(f.full)
		<-f.ended
		f.full = nil
	}
	if err := f.failure.Swap(nil); err != nil {
		return *err
	}
	return nil
}

// run runs trays until there are no more.
func (f *feeder) run(full <-chan *tray, ended chan<- struct{}) {
	defer close(ended)
	for t := range full {
		for i := range t.calls {
			b := &t.calls[i]
			if b.queued > 0 && f.failure.Load() == nil {
				if err := f.call(b); err != nil {
					f.failure.Store(&err)
				}
			}
			b.queued, b.low = 0, bufferSize
		}
		t.n = 0
		f.free <- t
	}
}

// call runs what one call takes.
func (f *feeder) call(b *batch) error {
	if err := b.run(f.driver); err != nil {
		return err
	}
	f.fed.Add(uint64(b.queued))
	if f.after == nil {
		return nil
	}
	return f.after()
}

// add queues the bytes of a frame, for which there has to be room.
func (b *batch) add(frame []byte, m meta) {
	end := b.low
	start := end - len(frame)
	copy(b.buf[start:end], frame)
	low := start - prefixSize
	binary.NativeEndian.PutUint64(b.buf[low:], m.timeNS)
	binary.NativeEndian.PutUint32(b.buf[low+8:], m.wireLen)
	binary.NativeEndian.PutUint32(b.buf[low+12:], m.ifindex)
	clear(b.buf[low+offHead : start]) // the last one so far
	if b.queued > 0 {
		before := b.buf[b.low:]
		binary.NativeEndian.PutUint32(before[offHead:], uint32(start-b.start))
		binary.NativeEndian.PutUint32(before[offTail:], uint32(end-b.end))
	} else {
		b.md = [6]uint32{prefixSize, uint32(prefixSize + len(frame))}
	}
	b.low, b.start, b.end = low, start, end
	b.queued++
}

// run has the kernel run the wire program over what is queued, through the driver or as the one packet that it is.
func (b *batch) run(driver bool) error {
	begin := b.low
	if driver {
		// The first packet, at the end of the buffer, was queued when the buffer was empty.
		begin -= 4
		binary.NativeEndian.PutUint32(b.buf[begin:], uint32(b.first()-begin))
	} else {
		b.attr.ctxIn = uint64(uintptr(unsafe.Pointer(&b.md)))
		b.attr.ctxSizeIn = uint32(unsafe.Sizeof(b.md))
	}
	b.attr.dataIn = uint64(uintptr(unsafe.Pointer(&b.buf[begin])))
	b.attr.dataSizeIn = uint32(bufferSize - begin)
	b.attr.retval, b.attr.dataSizeOut = 0, 0
	_, _, errno := unix.Syscall(unix.SYS_BPF, bpfProgTestRun, uintptr(unsafe.Pointer(&b.attr)), unsafe.Sizeof(b.attr))
	switch {
	case errno == unix.EINTR:
		// The packets have been counted, see the package comment. The verdict was not written.
	case errno == unix.EINVAL && !driver:
		return errors.New("run the wire program: this kernel cannot pass a packet's time to it, that needs Linux 5.15")
	case errno != 0:
		return fmt.Errorf("run the wire program: %w", errno)
	case driver && b.attr.retval != driverBase+b.queued:
		return fmt.Errorf("run the wire program: the driver returned %d for %d packets", b.attr.retval, b.queued)
	}
	return nil
}

// first is where the first queued frame begins: its length is known from its own place.
func (b *batch) first() int { return bufferSize - int(b.md[1]) + prefixSize }

// headBytes is how much of a frame the wire program can need. Most frames are plain IPv4 and so small
// that thirty of them go into one call, or forty of ESP.
func headBytes(frame []byte) int {
	const protocolESP, protocolAH = 50, 51
	if len(frame) < etherHeader+20 || frame[12] != 0x08 || frame[13] != 0x00 || frame[14] != 0x45 {
		return keepBytes
	}
	switch frame[23] {
	case protocolESP:
		return espBytes
	case protocolAH:
		return keepBytes
	}
	return plainBytes
}
