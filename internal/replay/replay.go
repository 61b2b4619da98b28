// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/pcap"
	"xfrmscope/internal/reader"
)

// Options of Run. The zero value is usable.
type Options struct {
	// SATableSize is how many SAs are accounted; packets of further ones are counted as lost to a
	// full table. 0 means DefaultSATableSize. An SA takes about 3 KB.
	SATableSize uint32
	// NATTPorts are further UDP ports that carry ESP, besides 4500; seven at most.
	NATTPorts []uint16
	// Progress is called several times a second while reading, and at the end of each file.
	Progress func(Progress)
	// IKE is given every IKE header, in the order of the capture, with the capture's time, on another goroutine than
	// Progress. An error of it ends reading the file. nil: headers are counted in their class only.
	IKE func(reader.Event) error
	// Loaded is called once all is loaded and no file is open yet, with a map that is read to the end. nil: nobody wants to
	// know.
	Loaded func(*ebpf.Map)
	// Mark is given every ESP packet that opens or belongs to an SA (reader.KindMark), in the same way.
	Mark func(reader.Event) error
}

// DefaultSATableSize is the size of the SA table.
const DefaultSATableSize = 4096

// Progress tells how far reading has come.
type Progress struct {
	File    string
	Bytes   int64 // of the file, read so far
	Size    int64 // of the file; 0: unknown
	Packets uint64
}

// Result is what captures held.
type Result struct {
	// Begin and End are the snapshots before the first and after the last packet. Directions are
	// unknown, and nothing but the wire was observed.
	Begin, End ledger.Snapshot
	Files      []File
	Packets    uint64
	// Batched says that packets went through the driver; it is slower without.
	Batched bool
}

// File is what is known of one capture.
type File struct {
	Name        string
	Packets     uint64
	Skipped     uint64    // of link types that are not understood
	Inside      uint64    // of xfrmscope's own captures: copied in the stack, so that they would be counted twice
	First, Last time.Time // earliest and latest packet; zero: the file tells no times
	Interfaces  []pcap.Interface
}

// Run reads captures as one stream of packets, in the order given. When a file is damaged or cannot be
// read, or ctx ends, it returns what was read until then and the error; further files are still read.
func Run(ctx context.Context, files []string, opts Options) (*Result, error) {
	w, err := open(opts, ways)
	if err != nil {
		return nil, fmt.Errorf("replay captures: %w", err)
	}
	if opts.Loaded != nil {
		opts.Loaded(w.coll.Maps["lost_counts"])
	}
	res, err := w.run(ctx, files, opts)
	if closing := w.close(); closing != nil {
		err = errors.Join(err, fmt.Errorf("replay captures: %w", closing))
	}
	return res, err
}

// runsInKernel says what a privilege that was refused is for.
const runsInKernel = "reading a capture runs the compiled wire program in the kernel: be root, or have CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"

// wire is a loaded wire program, for captures.
type wire struct {
	coll   *ebpf.Collection
	feed   *feeder
	events *reader.Events // nil: nobody wants them
	tiny   uint64         // frames without an Ethernet header
	ifs    int            // interfaces of the files read before
}

func open(opts Options, ways []way) (*wire, error) {
	// Without it, kernels before 5.11 charge maps to RLIMIT_MEMLOCK.
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("raise the limit of locked memory: %w; %s", err, runsInKernel)
	}
	coll, err := load(func(spec *ebpf.CollectionSpec) error { return configure(spec, opts) }, ways)
	if err != nil {
		if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			err = fmt.Errorf("%w; %s", err, runsInKernel)
		}
		return nil, fmt.Errorf("load the wire program: %w", err)
	}
	if err := bpfobj.FillSlots(coll); err != nil {
		coll.Close()
		return nil, err
	}
	w := &wire{coll: coll, feed: newFeeder(coll)}
	if opts.IKE == nil && opts.Mark == nil {
		return w, nil
	}
	if w.events, err = reader.OpenCaptureEvents(coll.Maps["events"]); err != nil {
		return nil, errors.Join(err, w.close())
	}
	w.feed.after = func() error { return w.events.Drain(opts.hear) }
	return w, nil
}

// hear sorts the events.
func (o *Options) hear(e reader.Event) error {
	switch {
	case e.Kind == reader.KindIKE && o.IKE != nil:
		return o.IKE(e)
	case e.Kind == reader.KindMark && o.Mark != nil:
		return o.Mark(e)
	}
	return nil
}

// configure sets what the loader may set.
func configure(spec *ebpf.CollectionSpec, opts Options) error {
	size := opts.SATableSize
	if size == 0 {
		size = DefaultSATableSize
	}
	if err := bpfobj.SetSAMax(spec, size); err != nil {
		return err
	}
	if len(opts.NATTPorts) > 7 {
		return fmt.Errorf("%d further UDP encapsulation ports, at most 7 are possible", len(opts.NATTPorts))
	}
	ports := [8]uint16{4500}
	copy(ports[1:], opts.NATTPorts)
	// Of events only IKE headers and marks are sent, and those of one run of the program have to fit: the
	// ring is emptied after each.
	if ring, ok := spec.Maps["events"]; ok {
		ring.MaxEntries = 64 << 10
	}
	for name, value := range map[string]any{
		"cfg_offline": uint8(1), "cfg_hints": uint8(1), "cfg_events_per_sec": uint32(0), "cfg_natt_ports": ports,
		"cfg_ike_per_sec": ikePerSec(opts), "cfg_marks": everyPacket(opts),
	} {
		v, ok := spec.Variables[name]
		if !ok {
			return fmt.Errorf("the object has no constant %s", name)
		}
		if err := v.Set(value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	return nil
}

// ikePerSec sets no limit where somebody listens, and otherwise withholds all.
func ikePerSec(opts Options) uint32 {
	if opts.IKE == nil {
		return 0
	}
	return math.MaxUint32
}

// everyPacket marks all numbers where somebody wants them.
func everyPacket(opts Options) uint32 {
	if opts.Mark == nil {
		return 0
	}
	return 1
}

func (w *wire) close() error {
	var err error
	if w.events != nil {
		err = w.events.Close()
	}
	w.feed.close()
	w.coll.Close()
	return err
}

func (w *wire) run(ctx context.Context, files []string, opts Options) (*Result, error) {
	res := &Result{Batched: w.feed.driver}
	var errs []error
	for _, path := range files {
		file, err := w.file(ctx, path, opts.Progress)
		errs = append(errs, err)
		res.Files = append(res.Files, file)
		res.Packets += file.Packets
		if ctx.Err() != nil {
			break
		}
	}
	begin, end := span(res.Files)
	res.Begin = ledger.Snapshot{At: begin, Wire: []ledger.WireSA{}, Packets: &ledger.WireTotals{}}
	var err error
	if res.End, err = w.snapshot(ctx, end); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return res, fmt.Errorf("replay captures: %w", err)
	}
	return res, nil
}

// wireLen is what the wire program is told of each packet's original length: more than an IP packet can
// have. Programs that cut or anonymise captures overwrite the length that the file records for a packet;
// believing it would make every cut packet one with an impossible IP length, and uncount its SA.
const wireLen = 1<<16 + 64

// file feeds one capture.
func (w *wire) file(ctx context.Context, path string, progress func(Progress)) (f File, err error) {
	f.Name = filepath.Base(path)
	r, err := pcap.Open(path, pcap.Options{KeepBytes: keepBytes})
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	before := w.feed.fed.Load() + w.tiny
	defer func() {
		f.Interfaces = r.Interfaces()
		w.ifs += len(f.Interfaces)
		if fault := w.feed.flush(); fault != nil {
			// What was laid out behind the packets that failed did not run.
			f.Packets = w.feed.fed.Load() + w.tiny - before
			err = errors.Join(err, fault)
		}
		if progress != nil {
			progress(Progress{f.Name, r.Consumed(), r.Size(), f.Packets})
		}
	}()
	const checkEvery = 4096 // packets between two looks at context and clock
	told := time.Now()
	odd := map[int]bool{} // interfaces of unknown link type, each reported once
	var first, last int64
	p := new(pcap.Packet) // one for all: a variable of the loop would be a new one for each
	for {
		if (f.Packets+f.Skipped+f.Inside)%checkEvery == 0 {
			if ctx.Err() != nil {
				return f, errors.Join(err, fmt.Errorf("read %s: stopped after %d packets: %w", f.Name, f.Packets, ctx.Err()))
			}
			if now := time.Now(); progress != nil && now.Sub(told) > 200*time.Millisecond {
				told = now
				progress(Progress{f.Name, r.Consumed(), r.Size(), f.Packets})
			}
		}
		if got := r.Next(p); got != nil {
			var link *pcap.LinkTypeError
			if errors.As(got, &link) {
				if f.Skipped++; !odd[p.Interface] {
					odd[p.Interface] = true
					err = errors.Join(err, got)
				}
				continue
			}
			f.First, f.Last = instant(first), instant(last)
			if got == io.EOF {
				got = nil
			}
			return f, errors.Join(err, got)
		}
		if r.Interfaces()[p.Interface].Inside() {
			// Another form of a packet that is in the file, or may be, as it was on the wire.
			f.Inside++
			continue
		}
		f.Packets++
		if p.TimeNS != 0 {
			if first == 0 || p.TimeNS < first {
				first = p.TimeNS
			}
			last = max(last, p.TimeNS)
		}
		if len(p.Data) < etherHeader {
			w.tiny++
			continue
		}
		m := meta{uint64(p.TimeNS), wireLen, uint32(w.ifs + p.Interface + 1)}
		if !w.feed.add(p.Data, m) {
			return f, err
		}
	}
}

func instant(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// span is from the earliest to the latest packet.
func span(files []File) (begin, end time.Time) {
	for _, f := range files {
		if !f.First.IsZero() && (begin.IsZero() || f.First.Before(begin)) {
			begin = f.First
		}
		if f.Last.After(end) {
			end = f.Last
		}
	}
	return begin, end
}
