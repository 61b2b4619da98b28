// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/reader"
)

func newTrace() *cobra.Command {
	var o struct {
		live     liveOptions
		duration time.Duration
		json     bool
		spis     []string
		peer     string
		kinds    []string
	}
	cmd := &cobra.Command{
		Use:   "trace",
		Short: "The events of the tunnels as they happen, a line each",
		Long: `Prints gaps, duplicates, late packets, restarts, IKE headers and xfrm drops as they happen. Events are samples,
limited per kind, second and CPU; how many were withheld or lost is printed at the end. Totals are
what 'xfrmscope diagnose' gives.`,
		Example: `  xfrmscope trace
  xfrmscope trace --spi 0xc0ffee01 --kind xfrm_drop
  xfrmscope trace --json --for 10s | jq -r '.kind' | sort | uniq -c`,
		Args: cobra.NoArgs,
		RunE: work(func(cmd *cobra.Command, _ []string) error {
			f, err := newEventFilter(o.spis, o.peer, o.kinds)
			if err != nil {
				return &usageError{err}
			}
			print := lineWriter(cmd.OutOrStdout())
			if o.json {
				print = jsonWriter(cmd.OutOrStdout())
			}
			return trace(cmd.Context(), &o.live, o.duration, cmd.ErrOrStderr(), func(e reader.Event) error {
				if !f.match(e) {
					return nil
				}
				return print(e)
			})
		}),
	}
	o.live.addFlags(cmd.Flags())
	addDuration(cmd, &o.duration, 0)
	cmd.Flags().BoolVar(&o.json, "json", false, "one JSON object a line")
	cmd.Flags().StringSliceVar(&o.spis, "spi", nil, "only SAs with this `SPI` (0x… or decimal), repeatable")
	cmd.Flags().StringVar(&o.peer, "peer", "", "only packets from or to this `prefix` (outer address)")
	cmd.Flags().StringSliceVar(&o.kinds, "kind", nil,
		"only events of this `kind`, repeatable: sa_new, gap, duplicate, late, stale, restart, jump, rebind, ike, xfrm_drop")
	cmd.Flags().Uint32Var(&o.live.eventsPerSec, "rate", 1000, "at most this many `events` per kind, second and CPU")
	return cmd
}

// trace hands every event to fn until d has passed or the context ends, and then says what was lost.
func trace(ctx context.Context, o *liveOptions, d time.Duration, progress io.Writer, fn func(reader.Event) error) (err error) {
	s, err := openSession(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	events, err := s.events()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, events.Close()) }()
	if err := s.observe(ctx); err != nil {
		return err
	}
	fmt.Fprintln(progress, s.announce(d))
	if err := o.ready(); err != nil {
		return err
	}
	ctx, end := limited(ctx, d)
	defer end()
	n := 0
	if err := events.Run(ctx, s.set.Detach, func(e reader.Event) error { n++; return fn(e) }); err != nil {
		return err
	}
	last, cancel := lastWord(ctx)
	defer cancel()
	if err := s.observe(last); err != nil {
		return err
	}
	self := s.ledger.Report().Self
	fmt.Fprintf(progress, "xfrmscope: %d events; %d withheld by the rate limit, %d lost because the ring was full\n",
		n, self.EventsSuppressed, self.EventsLost)
	return nil
}

func lineWriter(w io.Writer) func(reader.Event) error {
	return func(e reader.Event) error {
		_, err := fmt.Fprintln(w, e.Line())
		return err
	}
}

func jsonWriter(w io.Writer) func(reader.Event) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return func(e reader.Event) error { return enc.Encode(e) }
}

// eventFilter says which events to show; an empty part lets everything pass.
type eventFilter struct {
	spis  []ledger.SPI
	peer  netip.Prefix
	kinds []string
}

var eventKinds = []string{
	reader.KindSANew, reader.KindGap, reader.KindDuplicate, reader.KindLate,
	reader.KindStale, reader.KindRestart, reader.KindJump, reader.KindRebind, reader.KindIKE, reader.KindXfrmDrop,
}

func newEventFilter(spis []string, peer string, kinds []string) (f eventFilter, err error) {
	for _, s := range spis {
		var spi ledger.SPI
		if err := spi.UnmarshalText([]byte(s)); err != nil {
			return f, fmt.Errorf("--spi: %w", err)
		}
		f.spis = append(f.spis, spi)
	}
	if peer != "" {
		if a, err := netip.ParseAddr(peer); err == nil {
			f.peer = netip.PrefixFrom(a, a.BitLen())
		} else if f.peer, err = netip.ParsePrefix(peer); err != nil {
			return f, fmt.Errorf("--peer %q: want an address or a prefix such as 192.0.2.0/24", peer)
		}
	}
	for _, k := range kinds {
		if !slices.Contains(eventKinds, k) {
			return f, fmt.Errorf("--kind %q: want one of %v", k, eventKinds)
		}
	}
	f.kinds = kinds
	return f, nil
}

func (f eventFilter) match(e reader.Event) bool {
	return (len(f.spis) == 0 || slices.Contains(f.spis, e.SPI)) &&
		(len(f.kinds) == 0 || slices.Contains(f.kinds, e.Kind)) &&
		(!f.peer.IsValid() || f.peer.Contains(e.Src) || f.peer.Contains(e.Dst))
}
