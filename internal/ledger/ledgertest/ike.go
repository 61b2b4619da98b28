// SPDX-License-Identifier: Apache-2.0

package ledgertest

import (
	"maps"
	"net/netip"
	"time"

	"xfrmscope/internal/ike"
	"xfrmscope/internal/ledger"
)

// booted is how long before Start the world's monotonic clock began.
const booted = time.Hour

// mono is the world's time by the clock of the wire programs.
func (w *World) mono() time.Duration { return w.now.Sub(Start) + booted }

// account is what has been seen of IKE.
func (w *World) account() *ledger.IKE {
	if w.ike == nil {
		return nil
	}
	return w.ike.Report(w.now)
}

// Talk is an IKE SA of the world, seen at the interface.
type Talk struct {
	Peer netip.AddrPort
	Port uint16

	world *World
	spi   uint64
}

// IKE begins an IKEv2 SA with the peer; here is its initiator.
func (w *World) IKE(spi uint64) *Talk {
	if w.ike == nil {
		w.ike = ike.NewTracker()
	}
	return &Talk{Peer: netip.AddrPortFrom(Peer, 500), Port: 500, world: w, spi: spi}
}

// say lets one message pass.
func (t *Talk) say(by ledger.End, typ ike.Exchange, id uint32, response bool) {
	m := ike.Message{At: t.world.now, Src: netip.AddrPortFrom(Here, t.Port), Dst: t.Peer, Direction: ledger.Out}
	flags := uint8(0x08) // the initiator is here
	if by == ledger.Remote {
		m.Src, m.Dst, m.Direction, flags = m.Dst, m.Src, ledger.In, 0
	}
	if response {
		flags |= 0x20
	}
	m.Header = ike.Header{InitiatorSPI: t.spi, ResponderSPI: t.spi + 1, NextPayload: 46, Version: 0x20, Exchange: typ, Flags: flags, MessageID: id, Length: 200}
	t.world.ike.Observe(m)
}

// Ask sends a request.
func (t *Talk) Ask(by ledger.End, typ ike.Exchange, id uint32) { t.say(by, typ, id, false) }

// Answer sends a response.
func (t *Talk) Answer(by ledger.End, typ ike.Exchange, id uint32) { t.say(by, typ, id, true) }

// Exchange is a request of the local end and its response, 20 ms later.
func (t *Talk) Exchange(typ ike.Exchange, id uint32) {
	t.Ask(ledger.Local, typ, id)
	t.world.Tick(20 * time.Millisecond)
	t.Answer(ledger.Remote, typ, id)
}

// Announce notes that the kernel announced the SA now.
func (s *SA) Announce() *SA { s.Entry.Announced = s.world.now; return s }

// SoftExpire lets the kernel ask for a successor.
func (s *SA) SoftExpire() { s.Entry.SoftExpired = s.world.now }

func cloneClasses(m map[ledger.Direction]map[string]uint64) map[ledger.Direction]map[string]uint64 {
	out := make(map[ledger.Direction]map[string]uint64, len(m))
	for dir, classes := range m {
		out[dir] = maps.Clone(classes)
	}
	return out
}
