// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/ledger"
)

// peersMax bounds how many pairs of addresses are followed; anyone can send packets with invented ones.
const peersMax = 4096

// peerTrack follows who was last heard between two addresses. A binding that a NAT has given up shows as
// packets that go out after a silence and are not answered.
type peerTrack struct {
	in, out         uint64
	lastIn, lastOut time.Time
	alive           time.Time // last sign of life of either end
	quiet           time.Duration
	sinceIn         uint64
	sinceQuiet      uint64    // part of sinceIn, from oneWay on
	oneWay          time.Time // end of the longest silence that the peer has not answered since
	quietBefore     time.Duration

	newIn, newOut  uint64 // of the sample at hand
	beatIn, beatUs bool
}

type peerKey struct{ local, remote netip.Addr }

func peerOf(dir ledger.Direction, src, dst netip.Addr) (peerKey, bool) {
	switch dir {
	case ledger.In:
		return peerKey{dst, src}, true
	case ledger.Out:
		return peerKey{src, dst}, true
	case ledger.Unknown:
	}
	return peerKey{}, false
}

func (r *Reader) peer(dir ledger.Direction, src, dst netip.Addr) *peerTrack {
	k, known := peerOf(dir, src, dst)
	if !known {
		return nil
	}
	p := r.peers[k]
	if p == nil && len(r.peers) < peersMax {
		p = &peerTrack{}
		r.peers[k] = p
	}
	return p
}

// heard adds an SA's packets since the last sample.
func (r *Reader) heard(s *State, packets uint64) {
	dir := direction(s.Dir)
	p := r.peer(dir, addr(s.Src), addr(s.Dst))
	switch {
	case p == nil:
	case dir == ledger.In:
		p.newIn += packets
	default:
		p.newOut += packets
	}
}

// settlePeers ends a sample.
func (r *Reader) settlePeers(now time.Time) error {
	if err := r.readKeepalives(); err != nil {
		return err
	}
	for _, k := range r.beats {
		if p := r.peer(k.Direction, k.Src.Addr(), k.Dst.Addr()); p != nil && k.Packets != r.beaten[bindingOf(k)] {
			p.beatIn = p.beatIn || k.Direction == ledger.In
			p.beatUs = p.beatUs || k.Direction == ledger.Out
			r.beaten[bindingOf(k)] = k.Packets
		}
	}
	for _, p := range r.peers {
		p.settle(now)
	}
	return nil
}

func (p *peerTrack) settle(now time.Time) {
	silence := time.Duration(0)
	if !p.alive.IsZero() {
		silence = now.Sub(p.alive)
	}
	if p.newIn > 0 || p.beatIn {
		p.sinceIn = 0
	} else if p.newOut > 0 {
		// What this host said last before it fell silent was no question yet: the binding may have been
		// lost later. The longest silence counts.
		if p.sinceIn == 0 || silence > p.quietBefore {
			p.oneWay, p.quietBefore, p.sinceQuiet = now, silence, 0
		}
		p.sinceIn += p.newOut
		p.sinceQuiet += p.newOut
	}
	if p.newIn > 0 {
		p.lastIn = now
	}
	if p.newOut > 0 {
		p.lastOut = now
	}
	p.quiet = max(p.quiet, silence)
	if p.newIn > 0 || p.newOut > 0 || p.beatIn || p.beatUs {
		p.alive = now
	}
	p.in, p.out = p.in+p.newIn, p.out+p.newOut
	p.newIn, p.newOut, p.beatIn, p.beatUs = 0, 0, false, false
}

func bindingOf(k ledger.KeepaliveReading) ledger.KeepaliveReading {
	return ledger.KeepaliveReading{Src: k.Src, Dst: k.Dst, Direction: k.Direction}
}

// readKeepalives reads the table of NAT keepalives.
func (r *Reader) readKeepalives() error {
	m := r.src.Wire.Keepalives
	r.beats = r.beats[:0]
	if m == nil {
		return nil
	}
	return eachKeepalive(m, func(k ledger.KeepaliveReading) { r.beats = append(r.beats, k) })
}

func eachKeepalive(m *ebpf.Map, fn func(ledger.KeepaliveReading)) error {
	var key bpfobj.KeepaliveKey
	var v bpfobj.Keepalive
	it := m.Iterate()
	for it.Next(&key, &v) {
		fn(ledger.KeepaliveReading{
			Src: netip.AddrPortFrom(addr(key.Src), key.Sport), Dst: netip.AddrPortFrom(addr(key.Dst), key.Dport),
			Direction: direction(key.Dir), Packets: v.Packets,
			First: time.Duration(v.FirstNs), Last: time.Duration(v.LastNs),
			IntervalMin: time.Duration(v.IntervalMinNs), IntervalMax: time.Duration(v.IntervalMaxNs),
		})
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("list keepalives: %w", err)
	}
	return nil
}

// readNAT fills in what is known of bindings. Sample has just run.
func (r *Reader) readNAT(snap *ledger.Snapshot) {
	if snap.NAT == nil {
		snap.NAT = &ledger.NATReading{}
	}
	snap.NAT.Keepalives = slices.Clone(r.beats)
	mono := func(t time.Time) time.Duration {
		if t.IsZero() {
			return 0
		}
		return r.monoStart + t.Sub(r.started)
	}
	for k, p := range r.peers {
		quiet := p.quiet
		if !p.alive.IsZero() {
			quiet = max(quiet, snap.At.Sub(p.alive))
		}
		snap.NAT.Peers = append(snap.NAT.Peers, ledger.PeerReading{
			Local: k.local, Remote: k.remote, In: p.in, Out: p.out, LastIn: mono(p.lastIn), LastOut: mono(p.lastOut),
			Quiet: quiet, OutSinceIn: p.sinceIn,
			OutSinceQuiet: p.sinceQuiet, OneWaySince: mono(p.oneWay), QuietBefore: p.quietBefore,
		})
	}
}
