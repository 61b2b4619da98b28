// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"xfrmscope/internal/host"
	"xfrmscope/internal/ike"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/netfilter"
	"xfrmscope/internal/netns"
	"xfrmscope/internal/probe"
	"xfrmscope/internal/reader"
	"xfrmscope/internal/vici"
	"xfrmscope/internal/xfrm"
)

// session is one observation of a live kernel: what is attached, what reads it, and the ledger that
// its snapshots go to.
type session struct {
	kernel  *probe.Kernel
	ns      *netns.Handle
	sadb    *saDatabase
	set     *probe.Set
	host    *host.Source
	reader  *reader.Reader
	ledger  *ledger.Ledger
	sad     []ledger.SADEntry // as of the last snapshot
	ike     *listener         // nil: IKE is not followed
	names   *vici.Names       // nil: nobody is asked
	hooks   []ledger.Hook
	closing []func() error
}

// openSession attaches everything that the kernel allows. Observation begins with the first observe.
func openSession(ctx context.Context, o *liveOptions) (*session, error) {
	opts, err := o.probeOptions()
	if err != nil {
		return nil, err
	}
	s := &session{}
	if err := s.open(ctx, o.netns, opts); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.askNames(ctx, o)
	return s, nil
}

// open leaves what it has opened to Close, whether it succeeds or not.
func (s *session) open(ctx context.Context, name string, opts probe.Options) (err error) {
	if s.kernel, err = probe.AskKernel(); err != nil {
		return err
	}
	if s.ns, err = netns.Open(name); err != nil {
		return err
	}
	s.closing = append(s.closing, s.ns.Close)
	if s.sadb, err = openSADatabase(ctx, s.ns); err != nil {
		return err
	}
	s.closing = append(s.closing, s.sadb.Close)
	opts.SAs = s.sadb.sas
	if s.set, err = probe.Open(s.kernel, opts); err != nil {
		return err
	}
	s.closing = append(s.closing, s.set.Close)
	source, err := s.set.Source()
	if err != nil {
		return err
	}
	source.Parts = append(source.Parts, s.sadb.policies, s.sadb.mappings, s.firewall)
	s.host = host.Open(s.ns)
	s.closing = append(s.closing, s.host.Close)
	if s.reader, err = reader.New(source, reader.Options{}); err != nil {
		return err
	}
	s.ledger = ledger.New(ledger.Source{
		Kind: ledger.KindLive, Name: hostname(), Kernel: kernelRelease(), Netns: name,
	})
	s.hooks = s.set.Hooks()
	return nil
}

// askNames begins to ask strongSwan for the names of its SAs. A host without it is no worse observed; only
// who named a socket is told that it does not answer.
func (s *session) askNames(ctx context.Context, o *liveOptions) {
	if o.vici == "" {
		return
	}
	s.names = vici.New(o.vici)
	s.closing = append(s.closing, s.names.Close)
	switch _, err := s.names.Read(ctx); {
	case err == nil:
		s.hooks = append(s.hooks, ledger.Hook{Name: "names by vici", Attached: true, Why: o.vici})
	case o.viciAsked != nil && o.viciAsked():
		s.hooks = append(s.hooks, ledger.Hook{Name: "names by vici", Why: err.Error(),
			Costs: "SAs go by SPI and reqid; which connection and child they are is not told"})
	}
}

// firewall reads what nftables drops and clamps. It only helps to name a rule, so a ruleset that cannot be
// read fails nothing: the report then says that it is not known.
func (s *session) firewall(_ context.Context, snap *ledger.Snapshot) error {
	if rules, err := netfilter.Read(s.ns.FD()); err == nil {
		snap.Firewall, snap.Clamps = rules.Drops, rules.Clamps
	}
	return nil
}

// Close detaches and gives everything back, in the opposite order of opening.
func (s *session) Close() error {
	var errs []error
	for _, f := range slices.Backward(s.closing) {
		errs = append(errs, f())
	}
	s.closing = nil
	return errors.Join(errs...)
}

// observe takes a full snapshot into the ledger.
func (s *session) observe(ctx context.Context) error {
	// Read first: asking drivers takes time, and what arrives between the two readings of the wire
	// cannot be told from what is under way.
	machine, err := s.host.Read()
	if err != nil {
		return err
	}
	snap, err := s.reader.Snapshot(ctx, s.sadb.dump)
	if err != nil {
		return err
	}
	snap.Host = &machine
	if snap.PMTU == nil {
		snap.PMTU = &ledger.PMTUInput{}
	}
	snap.PMTU.Routes = s.host.Routes(snap.SAD, machine.Links)
	if s.ike != nil {
		if err := s.ike.report(ctx, &snap); err != nil {
			return err
		}
	}
	if s.names != nil {
		if names, err := s.names.Read(ctx); err == nil {
			snap.Names = names
		}
	}
	s.sad = snap.SAD
	s.ledger.SetHooks(slices.Concat(s.hooks, s.sadb.hooks()))
	s.ledger.Observe(snap)
	return nil
}

// watch keeps the reader's view of pending numbers fresh until d has passed (0: without end) or the
// context ends.
func (s *session) watch(ctx context.Context, d time.Duration) error {
	if d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	return s.reader.Run(ctx)
}

// followIKE begins to listen to the ring for IKE headers. Without wire programs there are none.
func (s *session) followIKE() error {
	source, err := s.set.Source()
	if err != nil || source.Wire == nil || source.Events == nil {
		return err
	}
	events, err := s.events()
	if err != nil {
		return err
	}
	s.ike = &listener{events: events, tracker: ike.NewTracker()}
	s.closing = append(s.closing, s.ike.Close)
	s.ike.start()
	return nil
}

// events opens the ring, with names for what only this kernel and this namespace know.
func (s *session) events() (*reader.Events, error) {
	source, err := s.set.Source()
	if err != nil {
		return nil, err
	}
	if source.Events == nil {
		return nil, errors.New("read events: no program that sends any is loaded")
	}
	tr := reader.Translate{Interface: s.deviceName}
	if s.kernel.Symbols != nil {
		tr.Location = s.kernel.Symbols.Name
	}
	if s.kernel.Tables != nil {
		tr.Reason, tr.Counter = s.kernel.Tables.ReasonName, s.kernel.Tables.CounterName
	}
	return reader.OpenEvents(source.Events, tr)
}

// deviceName names the devices that are observed; others are shown by their number.
func (s *session) deviceName(index uint32) string {
	for _, h := range s.set.Plan().Wire {
		if h.Device.Index == int(index) {
			return h.Device.Name
		}
	}
	return ""
}

// announce says in one line what is being watched and for how long.
func (s *session) announce(d time.Duration) string {
	var devices []string
	for _, h := range s.set.Plan().Wire {
		if !slices.Contains(devices, h.Device.Name) {
			devices = append(devices, h.Device.Name)
		}
	}
	until := "until Ctrl-C"
	if d > 0 {
		until = fmt.Sprintf("for %s, Ctrl-C ends early", d)
	}
	attached := 0
	hooks := s.set.Hooks()
	for _, h := range hooks {
		if h.Attached {
			attached++
		}
	}
	what := "SAs unknown"
	if s.sad != nil {
		what = fmt.Sprintf("%d SAs", len(s.sad))
	}
	line := fmt.Sprintf("xfrmscope: watching %s on %s with %d of %d hooks %s",
		what, strings.Join(devices, ", "), attached, len(hooks), until)
	for _, n := range s.set.Notes() {
		line += "\nxfrmscope: " + n
	}
	return line
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

func hostname() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Nodename[:])
}

// saDatabase reads the kernel's own account of the SAs. A kernel without it can still be watched on
// the wire; then it says so.
type saDatabase struct {
	client  *xfrm.Client
	tracker *xfrm.Tracker
	sas     []ledger.SADEntry // when it was opened
	missing error
	unread  error // why the policies could not be read last time
}

func openSADatabase(ctx context.Context, ns *netns.Handle) (*saDatabase, error) {
	d := &saDatabase{}
	client, err := xfrm.Open(ns.FD())
	switch {
	case errors.Is(err, xfrm.ErrDebugged):
		return nil, err
	case err != nil:
		d.missing = err
		return d, nil
	}
	d.client = client
	if d.tracker, err = xfrm.OpenTracker(ctx, client); err != nil {
		d.missing = err
		return d, nil
	}
	if d.sas, _, err = d.tracker.Snapshot(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// dump reads the SAs and the counters for one snapshot.
func (d *saDatabase) dump(ctx context.Context) (out reader.Dump, err error) {
	if d.missing == nil {
		if out.SAD, out.Ended, err = d.tracker.Snapshot(ctx); err != nil {
			return out, err
		}
		if out.SAD == nil {
			out.SAD = []ledger.SADEntry{}
		}
	}
	if d.client != nil {
		// A kernel without CONFIG_XFRM_STATISTICS has no such file; the ledger then says that
		// there was nothing to reconcile with.
		if stat, err := d.client.XfrmStat(); err == nil {
			out.XfrmStat = stat
		}
	}
	return out, nil
}

// policies reads the SPD into a snapshot. One that cannot be read costs the names of policies, not the
// report: hooks says so.
func (d *saDatabase) policies(ctx context.Context, snap *ledger.Snapshot) error {
	if d.missing != nil {
		return nil
	}
	if snap.Policies, d.unread = d.client.DumpPolicies(ctx); d.unread == nil {
		snap.PolicyDefault, d.unread = d.client.DefaultPolicy(ctx)
	}
	return nil
}

// mappings fills in which peers behind NAT the kernel said to have moved.
func (d *saDatabase) mappings(_ context.Context, snap *ledger.Snapshot) error {
	if d.missing != nil {
		return nil
	}
	if snap.NAT == nil {
		snap.NAT = &ledger.NATReading{}
	}
	snap.NAT.Mappings = d.tracker.Mappings()
	return nil
}

func (d *saDatabase) hooks() []ledger.Hook {
	h := ledger.Hook{Name: "SA database over netlink", Attached: d.missing == nil, Why: "netlink"}
	if d.missing != nil {
		h.Why = d.missing.Error()
		h.Costs = "SAs are known from the wire only: nothing is said of what xfrm decapsulated"
	}
	if d.unread == nil {
		return []ledger.Hook{h}
	}
	return []ledger.Hook{h, {Name: "policies over netlink", Why: d.unread.Error(),
		Costs: "which policy refused a packet is not told, and policies are not reviewed"}}
}

// Close ends the subscription and the sockets.
func (d *saDatabase) Close() error {
	var errs []error
	if d.tracker != nil {
		errs = append(errs, d.tracker.Close())
	}
	if d.client != nil {
		errs = append(errs, d.client.Close())
	}
	return errors.Join(errs...)
}
