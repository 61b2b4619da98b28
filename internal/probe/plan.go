// SPDX-License-Identifier: Apache-2.0

// Package probe plans where in the kernel to look, loads the programs and attaches them. A plan is
// pure: it follows from what the kernel offers, which devices there are and what was asked for.
package probe

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/reader"
)

// Mode is how the wire is observed on ingress.
type Mode string

// The modes a user can ask for.
const (
	ModeAuto       Mode = "auto"        // native XDP where it can be had, else TC; on veth tcx where that can be had
	ModeXDP        Mode = "xdp"         // native XDP or nothing
	ModeXDPGeneric Mode = "xdp-generic" // XDP on packets that are already skbs
	ModeTC         Mode = "tc"
)

// Set makes Mode a command-line flag.
func (m *Mode) Set(s string) error {
	switch Mode(s) {
	case ModeAuto, ModeXDP, ModeXDPGeneric, ModeTC:
		*m = Mode(s)
		return nil
	}
	return fmt.Errorf("mode %q: want auto, xdp, xdp-generic or tc", s)
}

// String makes Mode a command-line flag.
func (m *Mode) String() string { return string(*m) }

// Type names the flag's type in its help.
func (m *Mode) Type() string { return "mode" }

// Options say what to observe. The zero value observes the caller's own namespace by default rules.
type Options struct {
	Interfaces   []string          // names; none: chosen by the SAs' addresses
	SAs          []ledger.SADEntry // the SAs there are, to choose interfaces by
	Mode         Mode              // empty: ModeAuto
	Netns        string            // name or path; empty: the caller's own
	SATableSize  uint32            // SAs counted at once; 0: DefaultSATableSize
	RingBytes    uint32            // ring for events; 0: DefaultRingBytes; rounded up to a power of two
	NATTPorts    []uint16          // UDP encapsulation ports; none: 4500
	EventsPerSec uint32            // per event kind and CPU; 0: DefaultEventsPerSec
	WireOnly     bool              // leave out the programs in the stack
	StackOnly    bool              // leave out the programs on the wire
	Marks        uint32            // mark packets whose number is a multiple of this power of two; 0: none
	Latency      bool              // measure how long packets spend in xfrm
	NoInner      bool              // leave out the programs that follow TCP inside the tunnels
	Packets      *PacketOptions    // copy packets; nil: none
	RunTimeStats bool              // have the kernel measure the programs' run time, which slows all of this machine's a little

	// Drops attributes drops of every kind, and nothing else beside the stack's own hooks.
	Drops *bpfobj.DropsConfig
	// Events says which events are wanted; nil: those that every reader of the ring gets.
	Events *EventFilter
}

// Defaults of Options.
const (
	DefaultSATableSize  = 4096
	DefaultRingBytes    = 1 << 20
	DefaultEventsPerSec = 1000
)

// Capabilities are the kernel's answers that the plan depends on. Each is nil for yes,
// ebpf.ErrNotSupported for no; any other error means that it could not be found out, and then the
// plan tries and has something to fall back to.
type Capabilities struct {
	Atomics  error // BPF_CMPXCHG and BPF_FETCH (5.12)
	XDPLink  error // XDP attached by a link that ends with its owner (5.9)
	TCX      error // 6.6
	XDPFrags error // 5.18
	BTF      error // the kernel's types, without which no program in the stack loads
	Memory   error // programs may read the kernel's, without which no program in the stack loads either
	Cast     error // programs may give addresses a type and read by loads (6.2); else they read by calls
	Fentry   error // BTF and trampolines, on a kernel function
	Kprobe   error
	// Functions that hooks attach to; nil means: not known, try.
	Missing map[string]string // function -> why it cannot be hooked
	// GROHidesESP: esp4_offload or esp6_offload is loaded, so GRO decapsulates before TC ingress.
	GROHidesESP bool
}

// Way is how a program is attached.
type Way string

// The ways, in the words of the kernel.
const (
	WayXDP        Way = "xdp"
	WayXDPGeneric Way = "xdp-generic"
	WayTCX        Way = "tcx"
	WayClsact     Way = "clsact"
	WayFentry     Way = "fentry"
	WayKprobe     Way = "kprobe"
	WayRawTP      Way = "raw_tp"
)

// Candidate is one program that can serve a hook.
type Candidate struct {
	Program string
	Way     Way
	LoadAs  ebpf.AttachType // TC: what the program is loaded for; none where the kernel knows no tcx
}

// Direction is where a hook sits on a device.
type Direction string

// Hooks have ingress and egress; SAs have in and out.
const (
	Ingress Direction = "ingress"
	Egress  Direction = "egress"
)

// Hook is one place to observe and the candidates for it, best first. Without candidates it is
// skipped, and Why says so.
type Hook struct {
	Name      string
	Device    Device    // of wire hooks
	Direction Direction // of wire hooks
	Try       []Candidate
	Why       []string // why better candidates were left out
	Required  bool     // observing is pointless without it, or the user asked for just this
	Costs     string   // what is not observed without it
	Limits    string   // what is not observed even with it
}

// Plan is what will be loaded and attached.
type Plan struct {
	LockFree bool // wire object with atomic window updates, else with a spin lock
	XDPFrags bool // XDP programs take packets in several buffers, so any MTU will do
	Wire     []Hook
	Stack    []Hook
	Notes    []string
	Objects  []Hook  // of all other objects, in their order
	Options  Options // with its defaults filled in

	Everything bool // devices were chosen because there is nothing to choose by

	caps Capabilities
}

// Make plans. It asks the system nothing.
func Make(caps Capabilities, devices []Device, opts Options) (Plan, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Options: opts, LockFree: !refused(caps.Atomics), XDPFrags: caps.XDPFrags == nil, caps: caps}
	if !p.LockFree {
		p.Notes = append(p.Notes, "this kernel has no atomic exchange for BPF (5.12): SAs are counted under a lock, which costs more when several CPUs share one SA")
	}
	if !opts.StackOnly {
		chosen, notes, err := choose(devices, opts.Interfaces, opts.SAs)
		if err != nil {
			return Plan{}, err
		}
		p.Notes = append(p.Notes, notes...)
		if _, complete := owners(devices, opts.SAs); len(opts.Interfaces) == 0 {
			p.Everything = !complete
		}
		for _, d := range chosen {
			p.Wire = append(p.Wire, wireHooks(caps, d, opts.Mode)...)
		}
	}
	if !opts.WireOnly {
		p.Stack = stackHooks(caps)
		for _, o := range wanted(opts) {
			p.Objects = append(p.Objects, o.hooks(caps)...)
		}
	}
	return p, nil
}

func (o Options) withDefaults() (Options, error) {
	if o.WireOnly && o.StackOnly {
		return o, errors.New("plan: neither wire nor stack is left to observe")
	}
	if o.Mode == "" {
		o.Mode = ModeAuto
	}
	if err := new(Mode).Set(string(o.Mode)); err != nil {
		return o, err
	}
	if o.SATableSize == 0 {
		o.SATableSize = DefaultSATableSize
	}
	if o.SATableSize > 1<<20 {
		return o, fmt.Errorf("plan: an SA table of %d entries needs more than %d MiB of kernel memory; at most %d entries",
			o.SATableSize, uint64(o.SATableSize)*uint64(reader.StateSize)>>20, 1<<20)
	}
	if o.Marks&(o.Marks-1) != 0 {
		return o, fmt.Errorf("plan: marks on every %d packets: that has to be a power of two", o.Marks)
	}
	if o.RingBytes == 0 {
		o.RingBytes = DefaultRingBytes
	}
	if o.RingBytes > 1<<30 {
		return o, fmt.Errorf("plan: a ring of %d bytes is too large: at most %d", o.RingBytes, 1<<30)
	}
	// The kernel wants a power of two of whole pages; 64 KiB are whole pages everywhere.
	size := uint32(64 << 10)
	for size < o.RingBytes {
		size <<= 1
	}
	o.RingBytes = size
	if o.EventsPerSec == 0 {
		o.EventsPerSec = DefaultEventsPerSec
	}
	if len(o.NATTPorts) == 0 {
		o.NATTPorts = []uint16{4500}
	}
	if len(o.NATTPorts) > maxNATTPorts {
		return o, fmt.Errorf("plan: %d UDP encapsulation ports: at most %d", len(o.NATTPorts), maxNATTPorts)
	}
	return o, nil
}

// maxNATTPorts is the length of cfg_natt_ports.
const maxNATTPorts = 8

// refused is a plain no; "could not find out" is not.
func refused(err error) bool { return errors.Is(err, ebpf.ErrNotSupported) }
