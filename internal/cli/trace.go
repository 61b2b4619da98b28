// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"xfrmscope/internal/reader"
)

// traceOptions are the flags of `trace`.
type traceOptions struct {
	live     liveOptions
	filter   traceFilter
	duration time.Duration
	json     bool
	time     timeMode
}

func newTrace() *cobra.Command {
	var o traceOptions
	cmd := &cobra.Command{
		Use:   "trace",
		Short: "The events of the tunnels as they happen, a line each",
		Long: `Prints gaps, duplicates, late packets, restarts, IKE headers, xfrm drops, drops of IPsec packets elsewhere
on this host, and packets that do not fit, as they happen. Events are samples, limited per kind,
second and CPU; how many were withheld or lost is printed at the end. Totals are what
'xfrmscope diagnose' gives.

Filters are applied in the kernel: what they turn away takes no part of the rate limit. An event must
pass every filter that is given, and of each one of its values. With --reqid, packets on the wire
are told by the SPIs and destinations that the SA database has for it, followed as SAs come; IKE
headers have no SPI of an SA and no reqid. With --interface, encrypted packets at other devices are
turned away; packets that are decrypted, or not encrypted yet, pass.

Exit status: 0 observed, 2 wrong usage, 3 cannot observe. Events are no findings.`,
		Example: `  xfrmscope trace
  xfrmscope trace --spi 0xc0ffee01 --kind xfrm_drop --stack
  xfrmscope trace --peer 192.0.2.0/24 --direction in --time delta
  xfrmscope trace --reqid 7 --kind gap,late,duplicate --for 5m
  xfrmscope trace --json --for 10s | jq -r '.kind' | sort | uniq -c`,
		Args: cobra.NoArgs,
		RunE: work(func(cmd *cobra.Command, _ []string) error {
			if err := o.filter.check(); err != nil {
				return &usageError{err}
			}
			if o.live.eventsPerSec == 0 {
				return &usageError{errors.New("--rate 0: at least one event per second must be allowed")}
			}
			if err := checkDuration(o.duration); err != nil {
				return err
			}
			return trace(cmd.Context(), &o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		}),
	}
	o.live.addFlags(cmd.Flags())
	addDuration(cmd, &o.duration, 0)
	o.filter.addFlags(cmd.Flags())
	cmd.Flags().BoolVar(&o.json, "json", false, "one JSON object a line (docs/trace.schema.json)")
	addTime(cmd.Flags(), &o.time)
	cmd.Flags().Uint32Var(&o.live.eventsPerSec, "rate", 1000, "at most this many `events` per kind, second and CPU")
	return cmd
}

// trace prints every event until the time is up or the context ends, and then says what was lost.
func trace(ctx context.Context, o *traceOptions, stdout, stderr io.Writer) (err error) {
	o.live.events = o.filter.kernel(o.live.interfaces)
	s, err := openSession(ctx, &o.live)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	events, err := s.events()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, events.Close()) }()
	s.giveUp(&o.live, stderr)
	known := newReqIDs(s.set.FollowSAs)
	if s.sadb.tracker != nil {
		// New ones first, so that none is missed between the two.
		s.sadb.tracker.Hear(known.add)
		defer s.sadb.tracker.Hear(nil)
	}
	if err := s.observe(ctx); err != nil {
		return err
	}
	for i := range s.sad {
		known.add(s.sad[i])
	}
	fmt.Fprintln(stderr, s.announce(o.duration))
	for _, n := range o.filter.notes(s) {
		fmt.Fprintln(stderr, "xfrmscope: "+n)
	}
	if err := o.live.ready(); err != nil {
		return err
	}
	ctx, end := limited(ctx, o.duration)
	defer end()
	print := lineWriter(stdout, o.time)
	if o.json {
		print = jsonWriter(stdout)
	}
	n := 0
	err = events.Run(ctx, s.set.Detach, func(e reader.Event) error {
		// The transport layer frees what it has dealt with as the kernel frees drops. Without symbols
		// that cannot be told apart, and nothing is left out.
		if e.Lost != nil && !*e.Lost && s.kernel.Symbols != nil {
			return nil
		}
		if e.ReqID == 0 {
			e.ReqID = known.of(e)
		}
		n++
		return print(e)
	})
	if err = errors.Join(err, known.err()); err != nil {
		return err
	}
	last, cancel := lastWord(ctx)
	defer cancel()
	if err := s.observe(last); err != nil {
		return err
	}
	self := s.ledger.Report().Self
	fmt.Fprintf(stderr, "xfrmscope: %d events; %d withheld by the rate limit, %d lost because the ring was full\n",
		n, self.EventsSuppressed, self.EventsLost)
	return nil
}

func lineWriter(w io.Writer, mode timeMode) func(reader.Event) error {
	when := stamper{mode: mode}
	return func(e reader.Event) error {
		_, err := fmt.Fprintln(w, e.Line(when.stamp(e.Time)))
		return err
	}
}

func jsonWriter(w io.Writer) func(reader.Event) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return func(e reader.Event) error { return enc.Encode(e) }
}
