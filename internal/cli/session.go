// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/host"
	"xfrmscope/internal/ike"
	"xfrmscope/internal/kernel"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/netns"
	"xfrmscope/internal/probe"
	"xfrmscope/internal/reader"
	"xfrmscope/internal/vici"
)

// session is one observation of a live kernel: what is attached, what reads it, and the ledger that
// its snapshots go to.
type session struct {
	source  ledger.Source
	period  time.Duration // of rolling
	kernel  *probe.Kernel
	rules   ruleset
	ns      *netns.Handle
	sadb    *saDatabase
	set     *probe.Set
	host    *host.Source
	reader  *reader.Reader
	ledger  *ledger.Ledger              // nil: a run without end keeps no ledger of all of it
	rolling *ledger.Rolling             // nil: the run has an end
	sad     []ledger.SADEntry           // as of the last snapshot
	ike     *listener                   // nil: the ring is not read
	keep    func(ledger.Snapshot) error // gets each snapshot before the ledger does; nil: nobody wants it
	names   *vici.Names                 // nil: nobody is asked
	hooks   []ledger.Hook               // beside those of the set
	closing []func() error
	devices map[uint32]string // names of devices that are not observed; of the goroutine that reads events
}

// openSession attaches everything that the kernel allows. Observation begins with the first observe.
func openSession(ctx context.Context, o *liveOptions) (*session, error) {
	opts, err := o.probeOptions()
	if err != nil {
		return nil, err
	}
	s := &session{}
	if err := s.open(ctx, o, opts); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.askNames(ctx, o)
	return s, nil
}

// open leaves what it has opened to Close, whether it succeeds or not.
func (s *session) open(ctx context.Context, o *liveOptions, opts probe.Options) (err error) {
	name := o.netns
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
	if o.events != nil {
		if opts.Events, err = o.events(s.ns); err != nil {
			return err
		}
	}
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
	if s.sadb.tracker != nil {
		s.sadb.tracker.Hear(func(sa ledger.SADEntry) { s.reader.Expect(sa.Key) })
	}
	s.source = ledger.Source{Kind: ledger.KindLive, Name: hostname(), Kernel: kernelRelease(), Netns: name}
	s.ledger = ledger.New(s.source)
	return s.followDevices()
}

// followDevices keeps the hooks where they belong while devices come and go. Where that cannot be, what there
// is now is observed, and the hooks say so.
func (s *session) followDevices() error {
	if len(s.set.Plan().Wire) == 0 {
		return nil
	}
	follower, err := s.set.Follow()
	if err != nil {
		s.hooks = append(s.hooks, ledger.Hook{Name: probe.FollowHook, Why: err.Error(), Costs: probe.FollowCosts})
		return nil
	}
	s.closing = append(s.closing, follower.Close)
	return nil
}

// restart lets the account begin anew: the next observe is its baseline.
func (s *session) restart() {
	if s.ledger != nil {
		s.ledger = ledger.New(s.source)
	}
	if s.rolling != nil {
		s.rolling = ledger.NewRolling(s.source, s.period)
	}
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
	if s.keep != nil {
		if err := s.keep(snap); err != nil {
			return err
		}
	}
	if s.ledger != nil {
		s.ledger.SetHooks(s.allHooks())
		s.ledger.Observe(snap)
	}
	if s.rolling != nil {
		s.rolling.SetHooks(s.allHooks())
		if s.rolling.Observe(snap) {
			return s.reader.Prune(s.period)
		}
	}
	return nil
}

// roll makes the session fit for a run without end: what is wrong is judged by the last one or two periods
// alone, what is over is let go of, and what seldom changes is read less often. It comes before the first
// observe, and takes the place of the ledger of the whole run.
func (s *session) roll(period time.Duration) {
	s.period, s.rolling = period, ledger.NewRolling(s.source, period)
	s.sadb.pace, s.rules.pace = seldom, seldom
	s.ledger = nil
}

// seldom is how often policies and firewall rules are read in a run without end.
const seldom = 30 * time.Second

// allHooks tells where the session looks and where it cannot.
func (s *session) allHooks() []ledger.Hook {
	return slices.Concat(s.set.Hooks(), s.hooks, s.sadb.hooks())
}

// watch keeps the reader's view of pending numbers fresh until d has passed (0: without end) or the
// context ends.
func (s *session) watch(ctx context.Context, d time.Duration) error {
	ctx, cancel := limited(ctx, d)
	defer cancel()
	return s.reader.Run(ctx)
}

// steps watches like watch, and calls fn after each snapshot: now, after every interval and at the end, which
// comes even where the context has ended.
func (s *session) steps(ctx context.Context, d, interval time.Duration, fn func() error) error {
	if err := s.observe(ctx); err != nil {
		return err
	}
	if err := fn(); err != nil {
		return err
	}
	run, cancel := limited(ctx, d)
	defer cancel()
	g, run := errgroup.WithContext(run)
	g.Go(func() error { return s.reader.Run(run) })
	g.Go(func() error {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-run.Done():
				return nil
			case <-tick.C:
			}
			switch err := s.observe(run); {
			case run.Err() != nil:
				return nil
			case err != nil:
				return err
			}
			if err := fn(); err != nil {
				return err
			}
		}
	})
	if err := g.Wait(); err != nil {
		return err
	}
	last, stop := lastWord(ctx)
	defer stop()
	if err := s.observe(last); err != nil {
		return err
	}
	return fn()
}

// limited ends a context after d; 0 does not.
func limited(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d > 0 {
		return context.WithTimeout(ctx, d)
	}
	return context.WithCancel(ctx)
}

// lastWord is a context for what is still owed once the given one has ended.
func lastWord(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
}

// listen begins to read the ring until Close. IKE headers go to the tracker of exchanges, and every event
// to hear, in order and from one goroutine; nil: nobody wants them. Where no program sends events there
// are none, which the hooks tell.
func (s *session) listen(hear func(reader.Event)) error {
	source, err := s.set.Source()
	if err != nil || source.Events == nil {
		return err
	}
	events, err := s.events()
	if err != nil {
		return err
	}
	s.ike = &listener{events: events, hear: hear}
	if source.Wire != nil {
		s.ike.tracker = ike.NewTracker()
	}
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
		tr.Location = kernel.NewLateSymbols(s.kernel.Symbols).Name
	}
	if table := s.set.Stacks(); table != nil {
		tr.Stack = func(id uint32, location uint64) []string {
			return kernel.Stack(table, id, location, s.kernel.Symbols.Name)
		}
	}
	if s.kernel.Tables != nil {
		tr.Reason, tr.Counter = s.kernel.Tables.ReasonName, s.kernel.Tables.CounterName
	}
	return reader.OpenEvents(source.Events, tr)
}

// deviceName names a device of the observed namespace, the observed ones and others. One that has come
// since the last look is looked for once.
func (s *session) deviceName(index uint32) string {
	for _, h := range s.set.Plan().Wire {
		if h.Device.Index == int(index) {
			return h.Device.Name
		}
	}
	if name, asked := s.devices[index]; asked {
		return name
	}
	if s.devices == nil {
		s.devices = map[uint32]string{}
	}
	s.devices[index] = ""
	// A device without a name is shown by its number; that is all that an error here costs.
	_ = s.ns.Do(func() error {
		devices, err := net.Interfaces()
		for _, d := range devices {
			s.devices[uint32(d.Index)] = d.Name
		}
		return err
	})
	return s.devices[index]
}

// announce says in one line what is being watched and for how long.
func (s *session) announce(d time.Duration) string {
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
		what, strings.Join(observedDevices(s.set.Plan()), ", "), attached, len(hooks), until)
	for _, n := range s.set.Notes() {
		line += "\nxfrmscope: " + n
	}
	return line
}

// observedDevices names the devices of a plan, each once however many hooks it has.
func observedDevices(p probe.Plan) (devices []string) {
	for _, h := range p.Wire {
		if !slices.Contains(devices, h.Device.Name) {
			devices = append(devices, h.Device.Name)
		}
	}
	return devices
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
