// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"xfrmscope/internal/ledger"
)

// flowKinds are about the TCP connections inside the tunnels.
func flowKinds() []Kind {
	return []Kind{
		{ReceiveWindowFull, "A receiver inside the tunnel stalls", receiveWindowFull},
		{InnerRetransmissions, "Senders inside the tunnel repeat segments", innerRetransmissions},
		{ReceiveWindowSmall, "A small receive window bounds the throughput", receiveWindowSmall},
		{InnerRTTGrowth, "A queue delays what the tunnel carries", innerRTTGrowth},
	}
}

// fromInner is the source of figures that the inner hooks gathered.
const fromInner = "inner TCP headers"

// For whom remedies about flows are.
const (
	forReceiver = "receiving host"
	forSender   = "sending host"
)

// talk is one direction of a connection: what one end sent, and the window that the other advertised.
type talk struct {
	sender, reader *ledger.FlowEnd
	sa             *ledger.SA // that carries it; nil: not in the report
}

// talks lists the directions whose packets an SA carried.
func talks(r *ledger.Report) []talk {
	if r.Flows == nil {
		return nil
	}
	sas := map[ledger.SAKey]*ledger.SA{}
	for i := range r.SAs {
		sa := &r.SAs[i]
		sas[ledger.SAKey{Dst: sa.Dst, SPI: sa.SPI, Proto: sa.Proto, Direction: sa.Direction}] = sa
	}
	var out []talk
	for i := range r.Flows.List {
		ends := &r.Flows.List[i].Ends
		for k := range ends {
			if ends[k].SA != nil {
				out = append(out, talk{&ends[k], &ends[1-k], sas[ends[k].SA.Key()]})
			}
		}
	}
	return out
}

// groups puts talks together by a key, in the order of their first.
func groups[K comparable](all []talk, key func(talk) K) [][]talk {
	var order []K
	by := map[K][]talk{}
	for _, t := range all {
		k := key(t)
		if by[k] == nil {
			order = append(order, k)
		}
		by[k] = append(by[k], t)
	}
	out := make([][]talk, 0, len(order))
	for _, k := range order {
		out = append(out, by[k])
	}
	return out
}

// worst is the talk of which a measure is largest.
func worst(all []talk, measure func(talk) int64) talk {
	return slices.MaxFunc(all, func(a, b talk) int { return cmp.Compare(measure(a), measure(b)) })
}

func total(all []talk, measure func(talk) int64) (n int64) {
	for _, t := range all {
		n += measure(t)
	}
	return n
}

// subject is the SA that carries the talk.
func (t talk) subject() Subject {
	if t.sa != nil {
		return about(t.sa)
	}
	s := t.sender.SA
	return Subject{SPI: new(s.SPI), Dst: new(s.Dst), Proto: s.Proto, Direction: s.Direction, ReqID: s.ReqID}
}

func (t talk) saName() string {
	if t.sa != nil && t.sa.Direction == ledger.In {
		return who(t.sa)
	}
	return fmt.Sprintf("SA %s to %s", t.sender.SA.SPI, t.sender.SA.Dst)
}

func (t talk) String() string { return fmt.Sprintf("%s to %s", port(t.sender), port(t.reader)) }

func port(e *ledger.FlowEnd) string { return netip.AddrPortFrom(e.Addr, e.Port).String() }

func (t talk) inbound() bool { return t.sender.SA.Direction == ledger.In }

// rtts are the least and the mean time from the sender to the reader and back: from here to either end
// and back, as far as it was measured. The handshake gives both halves, echoed timestamps the one
// towards the sender again and again.
func (t talk) rtts() (least, mean int64, whole bool) {
	ahead, back := t.sender.RTT, t.sender.Back
	if back == nil || t.reader.RTT != nil && t.reader.RTT.MinUS < back.MinUS {
		if back = t.reader.RTT; back != nil && t.sender.Back != nil {
			back = &ledger.FlowRTT{MinUS: back.MinUS, MeanUS: t.sender.Back.MeanUS}
		}
	}
	if ahead != nil {
		least, mean = ahead.MinUS, ahead.MeanUS
	}
	if back != nil {
		least, mean = least+back.MinUS, mean+back.MeanUS
	}
	return least, mean, ahead != nil && back != nil
}

// rate is the payload per second while the reader had room, bytes.
func (t talk) rate() int64 {
	open := t.sender.ActiveUS - t.reader.Zero.TotalUS
	if open <= 0 {
		return 0
	}
	return int64(float64(t.sender.PayloadBytes) / float64(open) * 1e6)
}

// losses says what is known of the SA's own losses: none, some, or unknown.
func (t talk) losses() (n int64, known bool) {
	if t.sa == nil {
		return 0, false
	}
	if b := t.sa.Ledger.In; b != nil && b.LostOnPath != nil && b.XfrmDropped != nil {
		return *b.LostOnPath + *b.XfrmDropped, true
	}
	if b := t.sa.Ledger.Out; b != nil && b.Encapsulated != nil && b.OnWire != nil && b.InFlight != nil {
		return *b.Encapsulated - *b.OnWire - *b.InFlight, true
	}
	return 0, false
}

// missed says whether flows, or packets of them, escaped the inner hooks.
func missed(r *ledger.Report) bool {
	return r.Flows.Forgotten > 0 || r.Flows.Packets["paged"] > 0 || r.Flows.Packets["full"] > 0
}

func connections(n int) string {
	if n == 1 {
		return "1 connection"
	}
	return fmt.Sprintf("%d connections", n)
}

func seconds(us int64) string {
	d := time.Duration(us) * time.Microsecond
	switch {
	case d >= time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return strconv.FormatFloat(float64(us)/1000, 'f', 1, 64) + " ms"
}

func size(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

// speed writes bytes per second as networks are sold.
func speed(bytes int64) string {
	bits := float64(bytes) * 8
	switch {
	case bits >= 1e9:
		return strconv.FormatFloat(bits/1e9, 'f', 1, 64) + " Gbit/s"
	case bits >= 1e6:
		return strconv.FormatFloat(bits/1e6, 'f', 1, 64) + " Mbit/s"
	}
	return strconv.FormatFloat(bits/1e3, 'f', 0, 64) + " kbit/s"
}

// bufferFor is the receive buffer that keeps a path full: twice the bandwidth-delay product, since Linux
// gives about half of a buffer out as window (tcp_adv_win_scale = 1), in steps of 64 KiB.
func bufferFor(bytesPerSecond, rttUS int64) int64 {
	const step = 64 << 10
	need := 2 * int64(float64(bytesPerSecond)*float64(rttUS)/1e6)
	return max(2*step, (need+step-1)/step*step)
}

// rmem is the command that lets buffers grow to so many bytes; the first two values are Linux's defaults.
func rmem(bytes int64) string {
	return fmt.Sprintf(`sysctl -w net.ipv4.tcp_rmem="4096 131072 %d"`, bytes)
}

// rmemHere adds what this host has set, where the reader is one of its own sockets.
func rmemHere(r *ledger.Report, t talk) string {
	if !t.reader.Local || r.Host == nil || r.Host.Sysctls["net/ipv4/tcp_rmem"] == "" {
		return ""
	}
	return fmt.Sprintf(" The reader is on this host, where tcp_rmem is %q.", r.Host.Sysctls["net/ipv4/tcp_rmem"])
}

// untouched says that the fault is not in the tunnel.
func untouched() Remedy {
	return Remedy{For: forStrongSwan, Text: "Nothing to change, nor in libreswan: the tunnel delivers what it is given. Its rekeying, " +
		"MTU and replay window have nothing to do with a TCP receive window."}
}

// windowsPeer is for a reader that runs Windows.
func windowsPeer() Remedy {
	return Remedy{For: forPeer, Text: "If the reader runs Windows, its buffers tune themselves unless that was switched off. A Cisco " +
		"gateway only forwards; for sessions that end on the router itself raise its own window.",
		Commands: []string{"netsh interface tcp set global autotuninglevel=normal", "ip tcp window-size 131072   ! IOS, sessions of the router itself"}}
}
