// SPDX-License-Identifier: Apache-2.0

package mtu

import (
	"encoding/json"
	"io"
	"net/netip"
	"time"

	"xfrmscope/internal/ledger"
)

// Schema names the format of the JSON document.
const Schema = "xfrmscope-probe-mtu/1"

// Document is what `probe mtu --json` prints.
type Document struct {
	Schema     string     `json:"schema"`
	Peer       netip.Addr `json:"peer"`
	Netns      string     `json:"netns"`
	Start      time.Time  `json:"start"`
	DurationS  float64    `json:"duration_s"`
	Tunnel     *TunnelDoc `json:"tunnel"`  // null: no SA and no policy leads to the peer
	Outside    *SideDoc   `json:"outside"` // null: see not_outside
	NotOutside string     `json:"not_outside,omitempty"`
	Inside     *SideDoc   `json:"inside"` // null: see not_inside
	NotInside  string     `json:"not_inside,omitempty"`
	Judgement
}

// TunnelDoc is the tunnel in the document.
type TunnelDoc struct {
	Gateway  netip.Addr       `json:"gateway"`
	Local    netip.Addr       `json:"local"`
	Policy   *string          `json:"policy"` // selector; null: none was looked for
	SPI      *ledger.SPI      `json:"spi"`    // null: there is no SA
	ReqID    uint32           `json:"reqid"`
	Mode     string           `json:"mode"`
	Encap    ledger.Encap     `json:"encap"`
	Overhead *ledger.Overhead `json:"overhead"` // null: see no_overhead
	Why      string           `json:"no_overhead,omitempty"`
}

// SideDoc is a measurement in the document. Sizes are in octets, IP header included.
type SideDoc struct {
	Src         netip.Addr  `json:"src"`
	Dst         netip.Addr  `json:"dst"`
	Method      string      `json:"method"`   // icmp-echo, udp
	UDPPort     uint16      `json:"udp_port"` // 0: icmp-echo
	Route       Route       `json:"route"`    // before
	RouteMTU    int         `json:"route_mtu_after"`
	Answered    bool        `json:"answered"`
	MTU         int         `json:"mtu"`      // largest size that passed; 0: none did
	FailsAt     int         `json:"fails_at"` // smallest size that did not; 0: none is known
	Exact       bool        `json:"exact"`
	Limit       Limit       `json:"limit"`
	LimitBy     *netip.Addr `json:"limit_by"` // router; null: none
	Told        []Told      `json:"told"`
	Confidence  float64     `json:"confidence"`
	OneWay      bool        `json:"arrives_above"` // larger packets arrive, their answers do not
	Changed     bool        `json:"changed"`       // the path did, while it was measured
	Tried       int         `json:"tried_up_to"`
	Packets     int         `json:"packets"`
	Unanswered  int         `json:"unanswered"`
	Lost        int         `json:"lost"` // of the unanswered, packets that fit
	RTTms       float64     `json:"rtt_ms"`
	Unreachable string      `json:"unreachable,omitempty"`
}

// NewDocument binds plan, measurements and what follows from them.
func NewDocument(peer netip.Addr, netns string, start time.Time, p Plan, outside, inside *Side) Document {
	return Document{
		Schema: Schema, Peer: peer, Netns: netns, Start: start.UTC().Truncate(time.Millisecond),
		DurationS: float64(time.Since(start).Milliseconds()) / 1000,
		Tunnel:    p.Tunnel.document(), Outside: outside.document(), NotOutside: p.NotOutside,
		Inside: inside.document(), NotInside: p.NotInside, Judgement: Judge(p, outside, inside),
	}
}

func (t *Tunnel) document() *TunnelDoc {
	if t == nil {
		return nil
	}
	d := &TunnelDoc{Gateway: t.Gateway, Local: t.Local, Overhead: t.Overhead, Why: t.Why}
	if t.Policy != nil {
		d.Policy = new(t.Policy.Selector.String())
	}
	if t.SA != nil {
		d.SPI, d.ReqID, d.Mode, d.Encap = new(t.SA.Key.SPI), t.SA.ReqID, t.SA.Mode, t.SA.Encap
	}
	return d
}

func (s *Side) document() *SideDoc {
	if s == nil {
		return nil
	}
	r := &s.Result
	d := &SideDoc{
		Src: s.Target.Src, Dst: s.Target.Dst, Method: "icmp-echo", UDPPort: s.Target.UDP, Route: s.Before, RouteMTU: s.After,
		Answered: r.MTU > 0, MTU: r.MTU, FailsAt: r.Above, Exact: r.Exact(), Limit: r.Limit, Told: append([]Told{}, r.Told...),
		Confidence: r.Confidence, OneWay: r.OneWay, Changed: r.Changed, Tried: s.Max, Packets: r.Sent, Unanswered: r.Unanswered,
		Lost: r.Lost, RTTms: float64(r.RTT.Round(time.Microsecond)) / float64(time.Millisecond), Unreachable: r.Unreachable,
	}
	if s.Target.UDP != 0 {
		d.Method = "udp"
	}
	if r.By.IsValid() {
		d.LimitBy = new(r.By)
	}
	return d
}

// WriteJSON writes the document, indented.
func (d Document) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(d)
}
