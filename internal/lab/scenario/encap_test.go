// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"testing"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/tunnel"
)

// TestEncapMismatch lets one end's packets come without the UDP header that the SA of gateway B wants, and
// with one that it does not want, beside a twin that has what it wants.
func TestEncapMismatch(t *testing.T) {
	tunnel.Need(t)
	for _, row := range []struct {
		name    string
		options tunnel.Options
		action  inject.Action
		says    string
	}{
		{"plain ESP on the wire", tunnel.Options{UDP: true}, inject.Unwrap, "wants ESP in UDP, on the wire is plain ESP"},
		{"ESP in UDP on the wire", tunnel.Options{EncapSocket: true}, inject.Wrap, "wants plain ESP, on the wire is ESP in UDP"},
	} {
		t.Run(row.name, func(t *testing.T) {
			b, o := mistaken(t, row.options, row.action)
			s := b.tunnel.AtoB[0]
			b.checkIn(o, s, cause("encap_mismatch", strays))
			b.checkCounters(s, cause("encap_mismatch", strays))
			b.checkIn(o, b.tunnel.AtoB[1], map[string]int64{})
			b.checkStat(o, cause("encap_mismatch", strays))
			o.checkFindings(t, "encap-mismatch "+name(s.SPI))
			o.says(t, "encap-mismatch", s.SPI, row.says)
			o.checkSelf(t)
		})
	}
}

// TestEncapWithoutSocket lets ESP in UDP come to a gateway whose SA wants plain ESP and where nobody has
// opened a socket for it. The packets reach no xfrm: UDP throws them away.
func TestEncapWithoutSocket(t *testing.T) {
	tunnel.Need(t)
	b, o := mistaken(t, tunnel.Options{}, inject.Wrap)
	s := b.tunnel.AtoB[0]
	b.checkIn(o, b.tunnel.AtoB[1], map[string]int64{})
	b.checkStat(o, nil)
	got := o.find(t, s.SPI, "in")
	diff(t, "arrivals, lost in the host, dropped by xfrm, decapsulated, unattributed", []int64{strays, strays, 0, 0, 0},
		values(got.Ledger.Arrivals, got.Ledger.LostInHost, got.Ledger.XfrmDropped, got.Ledger.Decapsulated, got.Ledger.Unattributed))
	o.checkFindings(t, "encap-mismatch "+name(s.SPI))
	o.says(t, "encap-mismatch", s.SPI, "wants plain ESP, on the wire is ESP in UDP, and no socket of this host takes ESP out of UDP")
	for _, f := range o.report.Findings {
		diff(t, "explains", []string{"host-ingress-drop"}, f.Folded)
	}
	o.checkSelf(t)
}

// strays are the packets in the wrong encapsulation.
const strays = 60

// mistaken sends packets through two SAs, the first one's in the encapsulation that it does not want.
func mistaken(t *testing.T, options tunnel.Options, action inject.Action) (*bench, observation) {
	options.Pairs = 2
	b := open(t, options, []inject.Rule{{SPI: tunnel.FirstSPIAtoB, Action: action, Seqs: inject.Every(1, strays, 1)}})
	for _, sa := range b.tunnel.AtoB {
		b.send(sa, strays)
	}
	return b, b.finish()
}
