// SPDX-License-Identifier: Apache-2.0

// Package stackproof proves the stack programs against the kernel's own counters: real packets, real
// faults, and what is attributed must equal /proc/net/xfrm_stat to the packet. Its loader is as bare
// as can be, so that nothing stands between the programs and the proof.
package stackproof

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/kernel"
)

// Setup says which hooks to use.
type Setup struct {
	NoKfree   bool   // only the audit hooks
	NoAudit   bool   // only kfree_skb
	Kprobes   bool   // the twins instead of fentry
	NoSymbols bool   // as if /proc/kallsyms were not readable
	Unknown   uint32 // room for unknown SPIs, 0: as compiled
}

// Watch is the stack programs at work on one network namespace.
type Watch struct {
	Tables  *kernel.Tables
	Symbols *kernel.Symbols
	coll    *ebpf.Collection
	links   []link.Link
	causes  []string
	lost    []string
}

// Reading them takes seconds in an emulated guest, and they do not change: modules are loaded before the tests run.
var (
	types   = btf.NewCache()
	tables  = sync.OnceValues(func() (*kernel.Tables, error) { return kernel.LoadTables(types) })
	symbols = sync.OnceValues(kernel.LoadSymbols)
)

// Inside runs a function in the namespace to observe.
type Inside func(func() error) error

// Open loads, attaches and primes.
func Open(inside Inside, s Setup) (w *Watch, err error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, err
	}
	w = &Watch{}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
			w = nil
		}
	}()
	spec, err := bpfobj.LoadStack()
	if err != nil {
		return w, err
	}
	if w.causes, err = bpfobj.EnumNames(spec, "cause"); err != nil {
		return w, err
	}
	if w.lost, err = bpfobj.EnumNames(spec, "lost"); err != nil {
		return w, err
	}
	if err := w.configure(spec, s); err != nil {
		return w, err
	}
	choose(spec, s)
	if s.Unknown > 0 {
		spec.Maps["unknown_spis"].MaxEntries = s.Unknown
	}
	if w.coll, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Cache: types}); err != nil {
		return w, fmt.Errorf("load stack programs: %+w", err)
	}
	err = inside(func() error {
		found, err := w.coll.Programs["pick_netns"].Run(&ebpf.RunOptions{})
		if err == nil && found != 1 {
			err = errors.New("pick_netns found none")
		}
		return err
	})
	if err != nil {
		return w, err
	}
	if err := w.attach(); err != nil {
		return w, err
	}
	return w, w.Sync()
}

func (w *Watch) configure(spec *ebpf.CollectionSpec, s Setup) (err error) {
	if w.Tables, err = tables(); err != nil {
		return err
	}
	if w.Symbols, err = symbols(); err != nil {
		return err
	}
	config := bpfobj.StackConfig{
		HasReason:    w.Tables.Reasons != nil,
		HaveKfree:    !s.NoKfree,
		HaveAudit:    !s.NoAudit,
		CounterSlots: w.Tables.Slots,
		Counters:     map[uint32]string{},
		EventsPerSec: 1 << 20,
	}
	config.XfrmPolicy, _ = w.Tables.ReasonNumber("XFRM_POLICY")
	for _, c := range w.Tables.Counters {
		config.Counters[c.Number] = c.Name
	}
	if !s.NoSymbols {
		for _, site := range kernel.Sites(w.Symbols) {
			config.Sites = append(config.Sites, bpfobj.Site{Start: site.Start, End: site.End, Kind: uint32(site.Kind)})
		}
	}
	return bpfobj.ConfigureStack(spec, config)
}

func choose(spec *ebpf.CollectionSpec, s Setup) {
	if s.NoKfree {
		delete(spec.Programs, "kfree_skb")
	}
	for _, name := range bpfobj.AuditHooks {
		if s.NoAudit || s.Kprobes {
			delete(spec.Programs, name)
		}
		if s.NoAudit || !s.Kprobes {
			delete(spec.Programs, name+bpfobj.KprobeSuffix)
		}
	}
}

func (w *Watch) attach() error {
	for _, name := range slices.Sorted(maps.Keys(w.coll.Programs)) {
		prog := w.coll.Programs[name]
		var l link.Link
		var err error
		switch {
		case name == "pick_netns" || name == "shadow_sync":
			continue
		case name == "kfree_skb":
			l, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: "kfree_skb", Program: prog})
		case strings.HasSuffix(name, bpfobj.KprobeSuffix):
			l, err = link.Kprobe("xfrm_audit_state_"+strings.TrimSuffix(strings.TrimPrefix(name, "audit_"), bpfobj.KprobeSuffix), prog, nil)
		default:
			l, err = link.AttachTracing(link.TracingOptions{Program: prog})
		}
		if err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
		w.links = append(w.links, l)
	}
	return nil
}

// Sync runs shadow_sync on every online CPU.
func (w *Watch) Sync() error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	for cpu := range cpus {
		if err := w.syncOn(cpu); err != nil && !errors.Is(err, unix.ENXIO) {
			return err
		}
	}
	return nil
}

func (w *Watch) syncOn(cpu int) error {
	for range 100 {
		result, err := kernel.RunOn(w.coll.Programs["shadow_sync"], cpu)
		if err != nil {
			return err
		}
		switch result {
		case bpfobj.SyncDone:
			return nil
		case bpfobj.SyncBusy:
			time.Sleep(time.Millisecond)
		default:
			return fmt.Errorf("shadow_sync on CPU %d returned %d", cpu, result)
		}
	}
	return fmt.Errorf("shadow_sync on CPU %d: never idle", cpu)
}

// Close detaches and unloads.
func (w *Watch) Close() error {
	var errs []error
	for _, l := range w.links {
		errs = append(errs, l.Close())
	}
	w.links = nil
	if w.coll != nil {
		w.coll.Close()
	}
	return errors.Join(errs...)
}

// SA is what was counted for one SA, or for all packets of no SA (SPI 0).
type SA struct {
	Dst     netip.Addr
	SPI     uint32
	Proto   uint8
	Dir     uint8
	Causes  map[string]uint64
	LateMax uint64
	Late    uint64 // packets in the histogram
	ReqID   uint32
	Window  uint32
}

// Reading is everything counted so far.
type Reading struct {
	SAs     []SA
	Unknown map[string]uint64 // "dst spi" → packets
	Residue map[string]uint64 // by kernel counter
	Lost    map[string]uint64
}

// Read folds what no packet claimed into the residue, then reads all.
func (w *Watch) Read() (Reading, error) {
	r := Reading{Unknown: map[string]uint64{}, Residue: map[string]uint64{}, Lost: map[string]uint64{}}
	for range 2 {
		if err := w.Sync(); err != nil {
			return r, err
		}
		time.Sleep(20 * time.Millisecond)
	}
	var key bpfobj.StackKey
	var counts []bpfobj.StackCount
	it := w.coll.Maps["stack_counts"].Iterate()
	for it.Next(&key, &counts) {
		r.SAs = append(r.SAs, w.sa(key, counts))
	}
	if err := it.Err(); err != nil {
		return r, fmt.Errorf("read stack_counts: %w", err)
	}
	var packets []uint64
	it = w.coll.Maps["unknown_spis"].Iterate()
	for it.Next(&key, &packets) {
		r.Unknown[fmt.Sprintf("%s %#x", netip.AddrFrom16(key.Dst).Unmap(), key.Spi)] += sum(packets)
	}
	if err := it.Err(); err != nil {
		return r, fmt.Errorf("read unknown_spis: %w", err)
	}
	for _, c := range w.Tables.Counters {
		if err := w.coll.Maps["residue_counts"].Lookup(c.Number, &packets); err != nil {
			return r, fmt.Errorf("read residue_counts: %w", err)
		}
		if n := sum(packets); n > 0 {
			r.Residue[c.Name] = n
		}
	}
	for i, name := range w.lost {
		if err := w.coll.Maps["lost_counts"].Lookup(uint32(i), &packets); err != nil {
			return r, fmt.Errorf("read lost_counts: %w", err)
		}
		if n := sum(packets); n > 0 {
			r.Lost[name] = n
		}
	}
	return r, nil
}

func (w *Watch) sa(key bpfobj.StackKey, counts []bpfobj.StackCount) SA {
	sa := SA{Dst: netip.AddrFrom16(key.Dst).Unmap(), SPI: key.Spi, Proto: key.Proto, Dir: key.Dir, Causes: map[string]uint64{}}
	for _, c := range counts {
		for i, n := range c.Causes {
			if n > 0 {
				sa.Causes[w.causes[i]] += n
			}
		}
		for _, n := range c.LateHist {
			sa.Late += n
		}
		sa.LateMax = max(sa.LateMax, c.LateMax)
		sa.ReqID = max(sa.ReqID, c.Reqid)
		sa.Window = max(sa.Window, c.ReplayWindow)
	}
	return sa
}

func sum(values []uint64) (total uint64) {
	for _, v := range values {
		total += v
	}
	return total
}

// ByCounter adds up what was attributed, by the kernel counter behind each cause, residue included.
func (r Reading) ByCounter() map[string]uint64 {
	total := maps.Clone(r.Residue)
	for _, sa := range r.SAs {
		for cause, n := range sa.Causes {
			total[counterOf(cause)] += n
		}
	}
	for _, n := range r.Unknown {
		total["XfrmInNoStates"] += n
	}
	return total
}

// counterOf is written out against the kernel's documentation of its counters
// (Documentation/networking/xfrm_proc.rst), not against the table that the programs are given.
func counterOf(cause string) string {
	switch cause {
	case "replay_duplicate", "replay_late", "replay_unspecified":
		return "XfrmInStateSeqError"
	case "esn_mis_epoch", "integrity_failed", "proto_error":
		return "XfrmInStateProtoError"
	case "state_invalid":
		return "XfrmInStateInvalid"
	case "state_expired":
		return "XfrmInStateExpired"
	case "state_mismatch", "encap_mismatch":
		return "XfrmInStateMismatch"
	case "state_mode_error":
		return "XfrmInStateModeError"
	case "state_dir_error":
		return "XfrmInStateDirError"
	case "in_hdr_error":
		return "XfrmInHdrError"
	case "tmpl_mismatch":
		return "XfrmInTmplMismatch"
	case "no_pols":
		return "XfrmInNoPols"
	case "pol_block":
		return "XfrmInPolBlock"
	case "out_pol_block":
		return "XfrmOutPolBlock"
	case "out_no_states":
		return "XfrmOutNoStates"
	case "out_seq_error":
		return "XfrmOutStateSeqError"
	case "out_invalid":
		return "XfrmOutStateInvalid"
	case "out_expired":
		return "XfrmOutStateExpired"
	case "acquire_error":
		return "XfrmAcquireError"
	case "out_mode_error":
		return "XfrmOutStateModeError"
	default:
		return "no counter known for " + cause
	}
}

// Event is the part of an event that the proof looks at.
type Event struct {
	Seq, Top uint64
	Distance int64
	Location uint64
	SPI      uint32
	Window   uint32
	Counter  uint32
	Reason   uint32
	Cause    string
}

// Events empties the ring.
func (w *Watch) Events() ([]Event, error) {
	reader, err := ringbuf.NewReader(w.coll.Maps["events"])
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	reader.SetDeadline(time.Now().Add(50 * time.Millisecond))
	var out []Event
	for {
		record, err := reader.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, w.event(record.RawSample))
	}
}

// event reads struct event of bpf/lib/abi.h, with offsets counted by hand.
func (w *Watch) event(b []byte) Event {
	le := binary.LittleEndian
	return Event{
		Seq: le.Uint64(b[8:]), Top: le.Uint64(b[16:]), Distance: int64(le.Uint64(b[24:])), Location: le.Uint64(b[32:]),
		SPI: le.Uint32(b[72:]), Window: le.Uint32(b[92:]), Counter: le.Uint32(b[96:]), Reason: le.Uint32(b[100:]),
		Cause: w.causes[b[109]],
	}
}
