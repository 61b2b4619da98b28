// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"xfrmscope/internal/lab/swan"
	"xfrmscope/internal/lab/tunnel"
)

// TestStrongSwanNAT has two IKE daemons with a router between them that hides A's address and ports,
// so that IKE finds a NAT and goes over to UDP, both for itself and for ESP.
func TestStrongSwanNAT(t *testing.T) {
	tunnel.Need(t)
	d := openDaemons(t, tunnel.Options{Router: true})
	d.masquerade(20000, 20999)
	d.scenario("behind a NAT", sides{}, func(d *daemons) {
		d.must(d.pair.Initiate())
		d.both(100, pace)
		d.settle()
	}, func(d *daemons, o observation) {
		if port := d.mapped(); port < 20000 || port > 20999 {
			d.t.Errorf("invalid run: B sends to port %d, the NAT was told 20000 to 20999", port)
		}
		d.checkThroughNAT(o, 1)
		d.checkStat(o, nil)
		o.checkFindings(d.t)
		d.must(d.pair.Terminate())
	})
	// The NAT forgets its binding while the tunnel is idle; the next packet from behind it makes
	// another. B's kernel tells B's daemon, which replaces the SAs by ones that send to the new port.
	d.scenario("the binding changes", sides{}, func(d *daemons) {
		d.must(d.pair.Initiate())
		d.both(50, pace)
		d.settle()
		before := d.mapped()
		for _, timeout := range []string{"nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"} {
			d.must(d.tunnel.Path.Sysctl("netfilter/"+timeout, "1"))
		}
		d.both(5, pace) // which gives the binding its new, short life
		d.masquerade(30000, 30999)
		time.Sleep(2500 * time.Millisecond)
		// One packet: what would come while the daemon takes the SAs out and puts them back would be lost.
		d.must(d.to.Send(1, pace))
		d.must(swan.Until("the new binding", func() (bool, error) { return d.mapped() != before, nil }))
		d.both(50, pace)
		d.settle()
	}, func(d *daemons, o observation) {
		if port := d.mapped(); port < 30000 || port > 30999 {
			d.t.Errorf("invalid run: B sends to port %d, the NAT was told 30000 to 30999", port)
		}
		d.checkThroughNAT(o, 1)
		d.checkStat(o, nil)
		d.checkRoot(o, "nat-mapping-changed "+d.inbound(o, 0))
		d.must(d.pair.Terminate())
	})
}

// masquerade makes the router hide what comes from A behind its own address and one of these ports.
func (d *daemons) masquerade(first, last int) {
	d.t.Helper()
	rules := fmt.Sprintf(`table ip lab
delete table ip lab
table ip lab {
	chain hide {
		type nat hook postrouting priority srcnat;
		oifname %q meta l4proto udp masquerade to :%d-%d
	}
}
`, tunnel.PathB, first, last)
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	d.must(d.tunnel.Path.Do(cmd.Start))
	if err := cmd.Wait(); err != nil {
		d.t.Fatalf("nft: %v\n%s", err, complaint.String())
	}
}

// encapPattern matches the ports of an SA's encapsulation in the kernel's listing.
var encapPattern = regexp.MustCompile(`encap type espinudp sport (\d+) dport (\d+)`)

// mapped is the port that B's kernel sends ESP to, 0 if there is none.
func (d *daemons) mapped() (port int) {
	d.t.Helper()
	out, err := d.tunnel.B.Output("xfrm", "state", "list", "nokeys", "src", d.tunnel.B.Outer.String())
	d.must(err)
	m := encapPattern.FindStringSubmatch(out)
	if m == nil {
		return 0
	}
	if _, err := fmt.Sscan(m[2], &port); err != nil {
		d.t.Fatal(err)
	}
	return port
}

// checkThroughNAT demands that every SA of the report is in UDP, that each ledger adds up without loss,
// and that together they carried what the flows sent and delivered. A router keeps no account of SAs;
// the flows are the truth.
func (d *daemons) checkThroughNAT(o observation, generations int) {
	d.t.Helper()
	var in, out, sent, decapsulated, encapsulated, onWire int64
	for _, s := range o.report.SAs {
		diff(d.t, "encapsulation of "+s.SPI, "udp", s.Encap)
		diff(d.t, "unattributed of "+s.SPI, new(int64(0)), s.Ledger.Unattributed)
		if s.Direction == "in" {
			in++
			diff(d.t, "lost on the path of "+s.SPI, new(int64(0)), s.Ledger.LostOnPath)
			sent += value(s.Ledger.Sent)
			decapsulated += value(s.Ledger.Decapsulated)
		} else {
			out++
			encapsulated += value(s.Ledger.Encapsulated)
			onWire += value(s.Ledger.OnWire)
		}
	}
	diff(d.t, "SAs in and out", []int64{int64(generations), int64(generations)}, []int64{in, out})
	d.checkWhole(50)
	moved := d.counted().minus(d.before)
	diff(d.t, "sent by A, delivered to B, sent by B, on the wire", []int64{moved.SentTo, moved.GotTo, moved.SentBack, moved.SentBack},
		[]int64{sent, decapsulated, encapsulated, onWire})
}
