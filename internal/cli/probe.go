// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"xfrmscope/internal/mtu"
	"xfrmscope/internal/netns"
	"xfrmscope/internal/xfrm"
)

func newProbe() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "probe",
		Short: "Measure a path by sending packets into it",
		Long:  `Measurements that send packets of their own, a few dozen at most. All other commands only watch.`,
		Example: `  xfrmscope probe mtu 198.51.100.2
  xfrmscope probe mtu 10.2.0.1
  xfrmscope probe mtu 2001:db8:2::2 --inside fd00:2::1`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &usageError{fmt.Errorf("unknown command %q for probe: want mtu", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newProbeMTU())
	return cmd
}

// probeMTUOptions are the command's flags.
type probeMTUOptions struct {
	netns, inside, source string
	set                   mtu.Settings
	udp                   uint16
	json                  bool
}

func newProbeMTU() *cobra.Command {
	var o probeMTUOptions
	cmd := &cobra.Command{
		Use:   "mtu PEER",
		Short: "Which packets fit through the path to a peer, outside and inside the tunnel, and what to set",
		Long: `Finds the path MTU, the largest packet that the path carries whole: outside, to the gateway at the
other end, and inside, through its security association (SA). PEER is the outer address of that
gateway or an address behind it; which tunnel it belongs to is read from the kernel's SAs and
policies.

Packets of chosen sizes are sent that no router may cut (DF set). A router that refuses one and says
what fits is believed only after it was tried; where larger packets disappear and nobody says so, the
limit is found by bisection, each silent size being tried at least three times. The result says what
passes, what does not and why, what this host goes by, and the MTU and the TCP maximum segment size
(MSS) to set. Nothing is changed on the host.

Needs CAP_NET_RAW to send, CAP_NET_ADMIN to read SAs and policies.

Exit status: 0 the path carries what is set, 1 something needs to be changed, 2 wrong usage, 3 cannot
probe.`,
		Example: `  xfrmscope probe mtu 198.51.100.2
  xfrmscope probe mtu 198.51.100.2 --inside 10.2.0.1
  xfrmscope probe mtu 10.2.0.1 --source 10.1.0.1 --json | jq .set
  xfrmscope probe mtu 198.51.100.2 --udp 33434 --count 30`,
		Args: takes(1, 1, "one PEER: the address of a gateway, or of a host behind it"),
		RunE: work(func(cmd *cobra.Command, args []string) error {
			request, err := o.request(args[0])
			if err != nil {
				return err
			}
			doc, failed := probeMTU(cmd.Context(), &o, request)
			if doc.Schema == "" {
				return failed
			}
			write := doc.WriteText
			if o.json {
				write = doc.WriteJSON
			}
			if err := write(cmd.OutOrStdout()); err != nil {
				return errors.Join(failed, fmt.Errorf("write report: %w", err))
			}
			switch {
			case cmd.Context().Err() != nil:
				return fmt.Errorf("probe %s: interrupted before it was done", doc.Peer)
			case failed != nil:
				return failed
			case doc.Fits == nil:
				return unanswered(&doc)
			case !*doc.Fits:
				return errFindings
			}
			return nil
		}),
	}
	f := cmd.Flags()
	f.StringVar(&o.netns, "netns", "", "network namespace to probe from, by `name` or path (default: this one)")
	f.StringVar(&o.inside, "inside", "", "`address` behind the peer that answers, to probe through the SA (default: PEER if it is one)")
	f.StringVar(&o.source, "source", "", "`address` of this host to send from (default: the one that a policy or the route is for)")
	f.IntVar(&o.set.Max, "max", 0, "largest packet to try, in `octets` with its IP header (default: the device's MTU)")
	f.IntVar(&o.set.Packets, "count", mtu.DefaultPackets, "`packets` to send at most, outside and inside each")
	f.DurationVar(&o.set.Timeout, "timeout", mtu.DefaultTimeout, "how long an answer may take, e.g. 500ms, 3s")
	f.Uint16Var(&o.udp, "udp", 0, "send UDP to this closed `port` in place of ICMP echo: it measures the way there only, one packet a second")
	f.BoolVar(&o.json, "json", false, "report as JSON (schema "+mtu.Schema+")")
	return cmd
}

// request checks what no flag parser can.
func (o *probeMTUOptions) request(peer string) (r mtu.Request, err error) {
	r.UDP = o.udp
	for _, a := range []struct {
		what, text string
		to         *netip.Addr
	}{{"PEER", peer, &r.Peer}, {"--inside", o.inside, &r.Inside}, {"--source", o.source, &r.Source}} {
		if a.text == "" && a.what != "PEER" {
			continue
		}
		addr, err := netip.ParseAddr(a.text)
		if err != nil {
			return r, &usageError{fmt.Errorf("%s %q: want an IP address, like 198.51.100.2", a.what, a.text)}
		}
		addr = addr.Unmap()
		if addr.Zone() != "" || addr.IsLinkLocalUnicast() || addr.IsMulticast() || addr.IsUnspecified() {
			return r, &usageError{fmt.Errorf("%s %s: want the address of one host that is more than link-local", a.what, a.text)}
		}
		*a.to = addr
	}
	switch {
	case o.set.Max != 0 && (o.set.Max < mtu.LeastMax || o.set.Max > mtu.MostMax):
		return r, &usageError{fmt.Errorf("--max %d: a packet to try has %d to %d octets", o.set.Max, mtu.LeastMax, mtu.MostMax)}
	case o.set.Packets < 1:
		return r, &usageError{fmt.Errorf("--count %d: at least one packet has to be sent", o.set.Packets)}
	case o.set.Timeout < 10*time.Millisecond:
		return r, &usageError{fmt.Errorf("--timeout %s: an answer takes longer than that; want at least 10ms", o.set.Timeout)}
	}
	return r, nil
}

// probeMTU measures. The document is of use also where it fails, unless its schema is empty.
func probeMTU(ctx context.Context, o *probeMTUOptions, r mtu.Request) (doc mtu.Document, err error) {
	ns, err := netns.Open(o.netns)
	if err != nil {
		return doc, err
	}
	defer func() { err = errors.Join(err, ns.Close()) }()
	routes, err := mtu.OpenRoutes(ns)
	if err != nil {
		return doc, err
	}
	defer routes.Close()
	world, err := probeWorld(ctx, ns, routes)
	if err != nil {
		return doc, err
	}
	plan, err := mtu.Make(r, world)
	if err != nil {
		return doc, err
	}
	start := time.Now()
	var outside, inside *mtu.Side
	var failed []error
	measure := func(t *mtu.Target) *mtu.Side {
		if t == nil || ctx.Err() != nil {
			return nil
		}
		side, err := mtu.Measure(ctx, ns, routes, *t, o.set)
		failed = append(failed, err)
		if err != nil && side.Result.Sent == 0 {
			return nil // nothing was measured that could be told
		}
		return &side
	}
	// Outside first: what is learned of the path inside, the kernel keeps.
	outside = measure(plan.Outside)
	inside = measure(plan.Inside)
	if outside != nil && inside != nil {
		outside.Learned(routes)
	}
	if err := errors.Join(failed...); err != nil && outside == nil && inside == nil {
		return doc, err
	}
	return mtu.NewDocument(r.Peer, o.netns, start, plan, outside, inside), errors.Join(failed...)
}

// probeWorld reads what a plan is made of. SAs and policies that cannot be read cost the inside.
func probeWorld(ctx context.Context, ns *netns.Handle, routes *mtu.Routes) (w mtu.World, err error) {
	w.Route = routes.To
	if w.Local, err = routes.Local(); err != nil {
		return w, err
	}
	client, err := xfrm.Open(ns)
	if errors.Is(err, xfrm.ErrDebugged) {
		return w, err
	}
	if err != nil {
		w.Unread = err
		return w, nil
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	if w.SAs, w.Unread = client.DumpSAs(ctx); w.Unread == nil {
		w.Policies, w.Unread = client.DumpPolicies(ctx)
	}
	return w, nil
}

// unanswered says what to do where nothing could be measured.
func unanswered(d *mtu.Document) error {
	if d.Outside == nil && d.Inside == nil {
		return fmt.Errorf("probe %s: nothing can be measured: outside: %s; inside: %s", d.Peer, d.NotOutside, d.NotInside)
	}
	for _, s := range []*mtu.SideDoc{d.Outside, d.Inside} {
		if s != nil && s.Limit == mtu.LimitAsked {
			return fmt.Errorf("probe %s: whether what is set passes is not known, since --max forbids to try it: leave it out", d.Peer)
		}
		if s != nil && s.Answered {
			return fmt.Errorf("probe %s: the packets sent do not suffice for an answer: allow more with --count, or wait longer with --timeout", d.Peer)
		}
	}
	other := "try --udp 33434 (a port where nobody listens), which asks for another kind of answer"
	if d.Outside != nil && d.Outside.UDPPort != 0 || d.Inside != nil && d.Inside.UDPPort != 0 {
		other = "try ICMP echo (without --udp)"
	}
	return fmt.Errorf("probe %s: nobody answers: is it the right address, and up? Where a filter drops the probes, %s, or another address with --inside", d.Peer, other)
}
