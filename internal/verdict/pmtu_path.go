// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"net/netip"
	"time"

	"xfrmscope/internal/ledger"
)

// PMTUNotApplied is a router's word that is not acted upon.
const PMTUNotApplied ID = "pmtu-ptb-not-applied"

// PMTUReduced is a path that takes less than the link, and a host that knows it.
const PMTUReduced ID = "pmtu-reduced"

// forgetting is how long what a route has learned lasts at the least, by half: a route that has
// forgotten is no route that has not learned (net.ipv4.route.mtu_expires, 600 s).
const forgetting = 5 * time.Minute

// minPMTU is the least that the kernel believes: net.ipv4.route.min_pmtu.
const minPMTU = 552

// tellings sums what routers said of the ESP of one SA.
type tellings struct {
	sa       *ledger.SA
	path     *ledger.PMTUPath
	mtu      int // the least
	size     int
	n        int64
	took     *int
	last     time.Time
	reporter netip.Addr
}

// toldOf collects them for the SAs that exist. What is quoted of no SA of this host is somebody
// else's, or made up.
func toldOf(r *ledger.Report) []*tellings {
	if r.PMTU == nil {
		return nil
	}
	var out []*tellings
	by := map[*ledger.SA]*tellings{}
	for i := range r.PMTU.Events {
		e := &r.PMTU.Events[i]
		if e.Kind != ledger.PMTUTold || e.SPI == nil || e.MTU == 0 {
			continue
		}
		sa := outbound(r, *e.SPI, e.Dst)
		if sa == nil {
			continue
		}
		t := by[sa]
		if t == nil {
			t = &tellings{sa: sa, path: pathTo(r, *e.SPI, e.Dst), mtu: e.MTU}
			by[sa] = t
			out = append(out, t)
		}
		t.n += e.Packets
		t.size = max(t.size, e.SizeMax)
		if e.MTU <= t.mtu {
			t.mtu, t.took = e.MTU, e.Took
		}
		if e.Last.After(t.last) {
			t.last, t.reporter = e.Last, e.Reporter
		}
	}
	return out
}

// applied says whether the kernel's route goes by what was told; unknown where no route was read.
func (t *tellings) applied() (yes, known bool) {
	if t.path == nil || t.path.PathMTU == 0 {
		return false, false
	}
	return t.path.PathMTU <= t.mtu, true
}

func pmtuNotApplied(r *ledger.Report) []Finding {
	end := r.Source.Start.Add(time.Duration(r.Source.DurationS * float64(time.Second)))
	var out []Finding
	for _, t := range toldOf(r) {
		if yes, known := t.applied(); yes || !known || end.Sub(t.last) > forgetting {
			continue
		}
		severity := Critical
		if t.n < 3 {
			severity = Warning
		}
		why, fix := t.whyNot(r.PMTU.Discovery)
		inner := innerOf(t.path, t.mtu)
		f := Finding{
			ID: PMTUNotApplied, Severity: severity, Confidence: sure(witnessed, unrecorded(r), t.mtu < minPMTU), Subject: about(t.sa),
			Summary: fmt.Sprintf("%s: %s said %d times that ESP of up to %d octets does not fit its next link, which takes %d; this host goes by %d still. %s %s",
				through(ledger.SARef{SPI: t.sa.SPI, Dst: t.sa.Dst}), t.reporter, t.n, t.size, t.mtu, t.path.PathMTU, why, inner),
			Evidence: append([]Evidence{
				{"pmtu.told", t.n, "messages", "path MTU hooks", fmt.Sprintf("ICMP from %s about this SA", t.reporter)},
				{"pmtu.told_mtu", int64(t.mtu), "octets", "path MTU hooks", "asked for by the router" + famous(t.mtu)},
				{"pmtu.route_mtu", int64(t.path.PathMTU), "octets", "routes", "what this host goes by"},
			}, overheadEvidence(t.path)...),
			Remedy: append([]Remedy{fix}, shrinkRemedies(t.path, 4, innerMTU(t.path, t.mtu))...),
		}
		out = append(out, f)
	}
	return out
}

// whyNot names the reason, where there is one to be seen, and what to do about it.
func (t *tellings) whyNot(discovery *int) (string, Remedy) {
	dev := fmt.Sprintf("ip route replace %s/%d via <gateway> dev <interface> mtu %d", t.sa.Dst, t.sa.Dst.BitLen(), t.mtu)
	switch {
	case t.mtu < minPMTU && t.sa.Dst.Is4():
		return fmt.Sprintf("That is less than the kernel believes (net.ipv4.route.min_pmtu, %d): a broken router, or a forged message.", minPMTU),
			Remedy{For: forPath, Text: "Ask whoever runs the router; no ordinary link takes that little. Nothing is to be changed here before that is clear.",
				Commands: []string{fmt.Sprintf("tracepath -n %s", t.sa.Dst)}}
	case t.path.Locked:
		return "The route's MTU is locked, so that nothing is learned.",
			Remedy{For: forIproute2, Text: "Take the lock off the route, or lock it at what the path takes.", Commands: []string{
				fmt.Sprintf("ip route get %s", t.sa.Dst), dev}}
	case discovery != nil && *discovery != 0:
		return fmt.Sprintf("Path MTU discovery is off (net.ipv4.ip_no_pmtu_disc = %d).", *discovery),
			Remedy{For: forHost, Text: "Switch path MTU discovery on.", Commands: []string{"sysctl -w net.ipv4.ip_no_pmtu_disc=0"}}
	}
	return "Why the kernel does not take it is not to be seen.",
		Remedy{For: forIproute2, Text: "Give the route to the peer the path's MTU by hand; the kernel then tells the hosts inside by itself.", Commands: []string{dev}}
}

func pmtuReduced(r *ledger.Report) []Finding {
	var out []Finding
	done := map[netip.Addr]bool{}
	for _, t := range toldOf(r) {
		if yes, known := t.applied(); !yes || !known || done[t.sa.Dst] || t.path.PathMTU >= t.path.LinkMTU {
			continue
		}
		done[t.sa.Dst] = true
		out = append(out, Finding{
			ID: PMTUReduced, Severity: Info, Confidence: sure(corroborated, unrecorded(r)), Subject: about(t.sa),
			Summary: fmt.Sprintf("The path to %s takes %d octets, the link takes %d%s. %s told this host, and it goes by it; hosts that listen to ICMP are told in turn. %s",
				t.sa.Dst, t.path.PathMTU, t.path.LinkMTU, famous(t.path.PathMTU), t.reporter, innerOf(t.path, t.path.PathMTU)),
			Evidence: append([]Evidence{
				{"pmtu.told", t.n, "messages", "path MTU hooks", fmt.Sprintf("ICMP from %s; each cost one packet", t.reporter)},
				{"pmtu.path_mtu", int64(t.path.PathMTU), "octets", "routes", "what this host goes by"},
			}, overheadEvidence(t.path)...),
			Remedy: shrinkRemedies(t.path, 4, t.path.InnerMTU),
		})
	}
	return out
}
