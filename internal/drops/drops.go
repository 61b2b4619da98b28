// SPDX-License-Identifier: Apache-2.0

package drops

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/kernel"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/netns"
	"xfrmscope/internal/probe"
	"xfrmscope/internal/reader"
)

// Options say which drops are wanted. Empty filters let everything pass; in each, one of the values must fit.
type Options struct {
	Netns      string // name or path; empty: the caller's own
	AllNetns   bool   // those of every network namespace of this machine
	Interfaces []string
	Reasons    []string // names of the kernel's drop reasons, in whatever case
	SPIs       []ledger.SPI
	Peers      []netip.Prefix // source, destination or the SA's destination
	Stacks     bool           // tell drops apart by kernel stack, and show it
	Follow     uint32         // live records per second and CPU; 0: none
	NATTPorts  []uint16
}

// noKind is no kind of event: nobody reads the stack programs' own here.
const noKind = 31

// MaxFilters is how many values each filter has room for.
const MaxFilters = bpfobj.DropsFilters

// ReasonError says that this kernel has no such drop reason.
type ReasonError struct {
	Reason  string
	Similar []string
	None    bool // it gives no reasons at all
}

func (e *ReasonError) Error() string {
	switch {
	case e.None:
		return fmt.Sprintf("filter by reason %q: this kernel gives no reasons for drops; Linux 5.17 and later do", e.Reason)
	case len(e.Similar) > 0:
		return fmt.Sprintf("filter by reason %q: this kernel has no such reason; it has %s", e.Reason, strings.Join(e.Similar, ", "))
	}
	return fmt.Sprintf("filter by reason %q: this kernel has no such reason; examples: NO_SOCKET, XFRM_POLICY, NETFILTER_DROP", e.Reason)
}

// Session is the observation of drops.
type Session struct {
	set     *probe.Set
	ns      *netns.Handle
	maps    map[string]*ebpf.Map
	names   names
	notes   []string
	options Options
	began   time.Time
	ended   time.Time
	wall    time.Time // wall clock at 0 of the monotonic one
}

// Open attaches. k may be nil: then the kernel is asked first.
func Open(k *probe.Kernel, o Options) (*Session, error) {
	if k == nil {
		var err error
		if k, err = probe.AskKernel(); err != nil {
			return nil, err
		}
	}
	s := &Session{options: o}
	if err := s.open(k); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Session) open(k *probe.Kernel) (err error) {
	if s.ns, err = netns.Open(s.options.Netns); err != nil {
		return err
	}
	if s.names, err = newNames(k, s.ns, s.options.AllNetns); err != nil {
		return err
	}
	config, err := s.config()
	if err != nil {
		return err
	}
	s.set, err = probe.Open(k, probe.Options{
		Netns: s.options.Netns, StackOnly: true, Drops: &config, NATTPorts: s.options.NATTPorts,
		RingBytes: 64 << 10, Events: &probe.EventFilter{Kinds: []uint8{noKind}},
	})
	if err != nil {
		return err
	}
	if s.maps = s.set.Drops(); s.maps == nil {
		for _, h := range s.set.Hooks() {
			if h.Name == probe.AnyDropHook {
				return fmt.Errorf("attach to the kernel's drops: %s", h.Why)
			}
		}
		return errors.New("attach to the kernel's drops: no such hook was planned")
	}
	for _, h := range s.set.Hooks() {
		if h.Name == "kfree_skb" && !h.Attached {
			s.notes = append(s.notes, "which xfrm counter moved is not known: "+h.Why)
		}
	}
	if k.SymbolsErr != nil {
		s.notes = append(s.notes, "functions are shown as bare addresses: "+k.SymbolsErr.Error())
	}
	if s.names.reasons == nil {
		s.notes = append(s.notes, "this kernel gives no reasons for drops (Linux 5.17 and later do): the function has to tell")
	}
	var mono unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono); err != nil {
		return fmt.Errorf("read monotonic clock: %w", err)
	}
	s.began = time.Now()
	s.wall = s.began.Add(-time.Duration(mono.Nano()))
	return nil
}

// config turns names into this kernel's numbers.
func (s *Session) config() (bpfobj.DropsConfig, error) {
	o := s.options
	c := bpfobj.DropsConfig{
		HasReason: s.names.reasons != nil, AllNetns: o.AllNetns, Stacks: o.Stacks, Follow: o.Follow,
		Prefixes: o.Peers, NATTPorts: o.NATTPorts,
	}
	for _, name := range o.Reasons {
		number, ok := s.names.reasons.Number(name)
		if !ok {
			return c, s.names.noReason(name)
		}
		c.Reasons = append(c.Reasons, number)
	}
	for _, spi := range o.SPIs {
		c.SPIs = append(c.SPIs, uint32(spi))
	}
	for _, name := range o.Interfaces {
		d := bpfobj.DropsInterface{Index: s.names.index(name)}
		if len(name) >= len(d.Name) {
			return c, fmt.Errorf("filter by interface %q: names of devices have at most %d characters", name, len(d.Name)-1)
		}
		copy(d.Name[:], name)
		c.Interfaces = append(c.Interfaces, d)
	}
	return c, nil
}

// Notes are remarks for the user: what is not known on this machine.
func (s *Session) Notes() []string { return slices.Clone(s.notes) }

// Map is one of those that are read to the end.
func (s *Session) Map() *ebpf.Map { return s.maps["drops"] }

// Detach ends counting; what was counted can still be read. It may be called again.
func (s *Session) Detach() error {
	err := s.set.Detach()
	if s.ended.IsZero() {
		s.ended = time.Now()
	}
	return err
}

// Close detaches and gives everything back.
func (s *Session) Close() error {
	var errs []error
	if s.set != nil {
		errs = append(errs, s.set.Close())
	}
	if s.ns != nil {
		errs = append(errs, s.ns.Close())
	}
	s.set, s.ns = nil, nil
	return errors.Join(errs...)
}

// names gives names to the numbers of this kernel and this machine.
type names struct {
	reasons  kernel.Reasons // nil: this kernel has none
	symbols  *kernel.LateSymbols
	counter  func(uint32) string // nil: not known
	causes   []string
	devices  map[uint32]string // of the observed namespace, when it was opened
	spaces   map[uint32]string // network namespaces by inode
	allNetns bool
}

func newNames(k *probe.Kernel, ns *netns.Handle, allNetns bool) (n names, err error) {
	if n.reasons, err = kernel.LoadReasons(k.Types()); err != nil {
		return n, err
	}
	n.symbols = kernel.NewLateSymbols(k.Symbols)
	if k.Tables != nil {
		n.counter = k.Tables.CounterName
	}
	known, err := reader.LoadNames()
	if err != nil {
		return n, err
	}
	n.causes, n.allNetns = known.Cause, allNetns
	n.devices = map[uint32]string{}
	err = ns.Do(func() error {
		devices, err := net.Interfaces()
		if err != nil {
			return fmt.Errorf("list devices: %w", err)
		}
		for _, d := range devices {
			n.devices[uint32(d.Index)] = d.Name
		}
		return nil
	})
	if err != nil || !allNetns {
		return n, err
	}
	n.spaces = map[uint32]string{}
	all, err := netns.Names()
	if err != nil {
		return n, err
	}
	for _, name := range all {
		// One that goes away meanwhile stays without a name.
		if h, err := netns.Open(name); err == nil {
			if inode, err := h.Inode(); err == nil {
				n.spaces[uint32(inode)] = name
			}
			_ = h.Close()
		}
	}
	return n, nil
}

func (n names) index(device string) uint32 {
	for index, name := range n.devices {
		if name == device {
			return index
		}
	}
	return 0
}

// device names a device by its number, where the packet did not carry the name.
func (n names) device(index uint32) string {
	if name, ok := n.devices[index]; ok && !n.allNetns {
		return name
	}
	if index == 0 {
		return ""
	}
	return fmt.Sprintf("if%d", index)
}

func (n names) noReason(name string) error {
	e := &ReasonError{Reason: name, None: n.reasons == nil}
	for _, have := range n.reasons {
		if len(name) > 2 && strings.Contains(have, strings.ToUpper(name)) {
			e.Similar = append(e.Similar, have)
		}
	}
	slices.Sort(e.Similar)
	return e
}
