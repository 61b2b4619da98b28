// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"xfrmscope/internal/drops"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/privilege"
)

// dropsOptions are the flags of `drops`.
type dropsOptions struct {
	drops.Options
	nattPorts []uint
	spis      []string
	peers     []string
	duration  time.Duration
	top       int
	follow    bool
	rate      uint32
	json      bool
	readyFile string
	time      timeMode
}

func newDrops() *cobra.Command {
	var o dropsOptions
	cmd := &cobra.Command{
		Use:   "drops",
		Short: "Every packet that the kernel drops, IPsec or not, and where",
		Long: `Counts every packet that the kernel frees as dropped, of whatever protocol, by drop reason, function,
device and SA, and prints the most frequent at the end; --follow prints each as it happens. It attaches
one hook, and leaves nothing behind.

Not every drop is a fault: the kernel also frees this way what it has dealt with, such as ARP
requests for others, and some drivers what they have sent. Packets that XDP or a network card
drops never become packets of the kernel's and are not seen.

Exit status: 0 observed, 2 wrong usage, 3 cannot observe. Drops are no findings.`,
		Example: `  xfrmscope drops --for 10s
  xfrmscope drops --follow --interface eth0 --stack
  xfrmscope drops --spi 0xc0ffee01 --for 1m --top 0
  xfrmscope drops --all-netns --reason NETFILTER_DROP,NO_SOCKET --follow
  xfrmscope drops --json --for 10s | jq -r 'select(.type == "row") | [.packets, .reason, .function] | @tsv'`,
		Args: cobra.NoArgs,
		RunE: work(func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return &usageError{err}
			}
			if err := checkDuration(o.duration); err != nil {
				return err
			}
			return watchDrops(cmd.Context(), &o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		}),
	}
	f := cmd.Flags()
	f.StringVar(&o.Netns, "netns", "", "network namespace to observe, by `name` or path (default: this one)")
	f.BoolVar(&o.AllNetns, "all-netns", false, "drops of every network namespace of this machine")
	f.StringSliceVarP(&o.Interfaces, "interface", "i", nil, "only packets at this `device`, repeatable")
	f.StringSliceVar(&o.Reasons, "reason", nil, "only drops for this `reason`, as the kernel names it, e.g. NO_SOCKET; repeatable")
	f.StringSliceVar(&o.spis, "spi", nil, "only packets of SAs with this `SPI` (0x… or decimal), repeatable")
	f.StringSliceVar(&o.peers, "peer", nil, "only packets from or to this `prefix`, or of an SA to it; repeatable")
	addNATTPorts(f, &o.nattPorts)
	addDuration(cmd, &o.duration, 0)
	f.IntVar(&o.top, "top", 10, "how many `rows` to print at the end, most packets first; 0: all")
	f.BoolVar(&o.follow, "follow", false, "print each drop as it happens, and the rows at the end")
	f.Uint32Var(&o.rate, "rate", 1000, "with --follow, at most this many `lines` per second and CPU; the rest is counted as withheld")
	f.BoolVar(&o.Stacks, "stack", false, "tell drops apart by kernel stack, and show it")
	f.BoolVar(&o.json, "json", false, "one JSON object a line (docs/drops.schema.json)")
	addTime(f, &o.time)
	f.StringVar(&o.readyFile, "ready-file", "", "create this `file` once everything is attached")
	return cmd
}

// check judges what no flag parser can.
func (o *dropsOptions) check() error {
	if o.AllNetns && o.Netns != "" {
		return errors.New("--all-netns and --netns exclude each other")
	}
	if o.top < 0 {
		return fmt.Errorf("--top %d: want 0 or more rows", o.top)
	}
	if o.follow {
		if o.Follow = o.rate; o.rate == 0 {
			return errors.New("--rate 0: at least one line per second must be allowed")
		}
	}
	for _, s := range o.spis {
		var spi ledger.SPI
		if err := spi.UnmarshalText([]byte(s)); err != nil {
			return fmt.Errorf("--spi: %w", err)
		}
		o.SPIs = append(o.SPIs, spi)
	}
	for _, s := range o.peers {
		p, err := parsePrefix(s)
		if err != nil {
			return fmt.Errorf("--peer %w", err)
		}
		o.Peers = append(o.Peers, p)
	}
	var err error
	if o.NATTPorts, err = espPorts(o.nattPorts); err != nil {
		return err
	}
	for flag, n := range map[string]int{
		"interface": len(o.Interfaces), "reason": len(o.Reasons), "spi": len(o.SPIs), "peer": len(o.Peers),
	} {
		if n > drops.MaxFilters {
			return fmt.Errorf("--%s: %d values, at most %d", flag, n, drops.MaxFilters)
		}
	}
	return nil
}

// parsePrefix takes a prefix, or an address for itself alone.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q: want an address or a prefix such as 192.0.2.0/24", s)
	}
	return p, nil
}

// watchDrops observes until the time is up or the context ends, and prints what there was.
func watchDrops(ctx context.Context, o *dropsOptions, stdout, stderr io.Writer) (err error) {
	s, err := drops.Open(nil, o.Options)
	if reason := (*drops.ReasonError)(nil); errors.As(err, &reason) && !reason.None {
		return &usageError{err}
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	drop(stderr, toReadMaps(s.Map()), privilege.ToWrite(o.readyFile))
	fmt.Fprintln(stderr, o.announce())
	for _, n := range s.Notes() {
		fmt.Fprintln(stderr, "xfrmscope: "+n)
	}
	if err := (&liveOptions{readyFile: o.readyFile}).ready(); err != nil {
		return err
	}
	ctx, end := limited(ctx, o.duration)
	defer end()
	enc := json.NewEncoder(stdout)
	enc.SetEscapeHTML(false)
	if o.follow {
		when := stamper{mode: o.time}
		err = s.Follow(ctx, func(d drops.Drop) error {
			if o.json {
				return enc.Encode(d)
			}
			_, err := fmt.Fprintln(stdout, d.Line(when.stamp(d.Time)))
			return err
		})
		if err != nil {
			return err
		}
	} else {
		<-ctx.Done()
	}
	if err := s.Detach(); err != nil {
		return err
	}
	rows, total, err := s.Report()
	if err != nil {
		return err
	}
	rows = drops.Top(rows, &total, o.top)
	if !o.json {
		return drops.Write(stdout, rows, total)
	}
	for _, r := range rows {
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
	return enc.Encode(total)
}

// announce says in one line what is being watched and for how long.
func (o *dropsOptions) announce() string {
	where := "this network namespace"
	switch {
	case o.AllNetns:
		where = "all network namespaces"
	case o.Netns != "":
		where = "network namespace " + o.Netns
	}
	var only []string
	for _, f := range []struct {
		flag   string
		values []string
	}{{"interface", o.Interfaces}, {"reason", o.Reasons}, {"SPI", o.spis}, {"peer", o.peers}} {
		if len(f.values) > 0 {
			only = append(only, f.flag+" "+strings.Join(f.values, " or "))
		}
	}
	if len(only) > 0 {
		where += ", " + strings.Join(only, ", ")
	}
	until := "until Ctrl-C"
	if o.duration > 0 {
		until = fmt.Sprintf("for %s, Ctrl-C ends early", o.duration)
	}
	return fmt.Sprintf("xfrmscope: watching every packet that the kernel drops in %s %s", where, until)
}
