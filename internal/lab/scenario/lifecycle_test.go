// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"bytes"
	"testing"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/tunnel"
)

// TestUnknownSPI sends packets of an SA that never was, beside a healthy one, plain and in UDP.
func TestUnknownSPI(t *testing.T) {
	tunnel.Need(t)
	const strange = 0xdeadbeef
	for _, options := range []tunnel.Options{{}, {Family: 6, UDP: true}} {
		label := "v4"
		if options.UDP {
			label = "v6 UDP"
		}
		t.Run(label, func(t *testing.T) {
			b := open(t, options, nil)
			s := b.tunnel.AtoB[0]
			b.send(s, 50)
			for seq := range uint32(7) {
				b.path.Send(inject.AtoB, inject.Crafted{
					SrcMAC: b.tunnel.A.MAC, DstMAC: b.tunnel.B.MAC, Src: b.tunnel.A.Outer, Dst: b.tunnel.B.Outer,
					UDP: options.UDP, SPI: strange, Seq: 1 + seq, Payload: bytes.Repeat([]byte{0x5a}, 120),
				})
			}
			o := b.finish()
			b.checkIn(o, s, map[string]int64{})
			b.checkStat(o, cause("no_state", 7))
			diff(t, "SPIs without an SA", []stranger{{SPI: name(strange), Dst: b.tunnel.B.Outer.String(), Packets: 7}}, o.report.Unknown)
			got := o.find(t, strange, "in")
			if got.Wire == nil || got.Ledger.XfrmDropped == nil || got.Ledger.Unattributed == nil {
				t.Fatalf("the report does not follow the packets of SPI %s: %+v", name(strange), got)
			}
			diff(t, "packets on the wire, dropped by xfrm, unattributed", []int64{7, 7, 0},
				[]int64{got.Wire.Packets, *got.Ledger.XfrmDropped, *got.Ledger.Unattributed})
			o.checkFindings(t, "spi-unknown "+name(strange))
			o.checkSelf(t)
		})
	}
}

// TestDeletedUnderTraffic deletes the receiver's SA while the sender goes on.
func TestDeletedUnderTraffic(t *testing.T) {
	tunnel.Need(t)
	b := open(t, tunnel.Options{}, nil)
	s := b.tunnel.AtoB[0]
	b.send(s, 100)
	b.settle()
	if err := s.Delete(b.tunnel.B); err != nil {
		t.Fatal(err)
	}
	b.send(s, 60)
	o := b.finish()
	b.checkOne(o, s, cause("no_state", 60))
	o.checkFindings(t, "spi-unknown "+name(s.SPI))
}

// TestHardExpired lets the receiver's SA run into its packet limit. The packet that meets the limit
// is counted as expired; what comes after it finds the SA invalid or gone, as fast as the kernel's
// timer removes it, so only the sum of the three is known beforehand.
func TestHardExpired(t *testing.T) {
	tunnel.Need(t)
	const limit, beyond = 100, 80
	b := open(t, tunnel.Options{HardPackets: limit}, nil)
	s := b.tunnel.AtoB[0]
	b.send(s, limit+beyond)
	o := b.finish()
	causes := nonzero(map[string]int64{
		"state_expired": o.stat["XfrmInStateExpired"], "state_invalid": o.stat["XfrmInStateInvalid"], "no_state": o.stat["XfrmInNoStates"],
	})
	diff(t, "packets beyond the limit", int64(beyond), sum(causes))
	if causes["state_expired"] == 0 {
		t.Errorf("no packet met the limit: %v", o.stat)
	}
	b.checkOne(o, s, causes)
	o.checkFindings(t, "sa-expired "+name(s.SPI))
}

// TestOneOfTwoSuffers has two SA pairs between the same gateways and faults on one of them.
func TestOneOfTwoSuffers(t *testing.T) {
	tunnel.Need(t)
	const other = tunnel.FirstSPIAtoB + 1
	b := open(t, tunnel.Options{Pairs: 2}, []inject.Rule{
		{SPI: other, Action: inject.Drop, Seqs: inject.Every(20, 180, 40)},
		{SPI: other, Action: inject.Delay, After: 50, Seqs: []uint32{30}},
	})
	healthy, suffers := b.tunnel.AtoB[0], b.tunnel.AtoB[1]
	for range 20 { // interleaved, so that an SA mistaken for the other shows
		b.send(healthy, 10)
		b.send(suffers, 10)
	}
	o := b.finish()
	diff(t, "numbers lost", []int{0, 5},
		[]int{b.path.Truth(inject.AtoB, healthy.SPI).Lost(), b.path.Truth(inject.AtoB, other).Lost()})
	b.checkIn(o, healthy, map[string]int64{})
	b.checkCounters(healthy, map[string]int64{})
	b.checkOne(o, suffers, cause("replay_late", 1))
	o.checkFindings(t, "path-loss "+name(other), "replay-window-too-small "+name(other))
}

// TestBothDirections sends both ways at once. What is lost behind gateway B on the way to A is not
// B's to know, and B must not be blamed for it.
func TestBothDirections(t *testing.T) {
	tunnel.Need(t)
	for _, mode := range []string{"auto", "tc"} {
		t.Run(mode, func(t *testing.T) {
			b := open(t, tunnel.Options{}, []inject.Rule{
				{SPI: tunnel.FirstSPIAtoB, Action: inject.Drop, Seqs: []uint32{40, 41, 200}},
				{Direction: inject.BtoA, SPI: tunnel.FirstSPIBtoA, Action: inject.Drop, Seqs: []uint32{10, 11, 12, 13}},
			}, "--mode", mode)
			s, back := b.tunnel.AtoB[0], b.tunnel.BtoA[0]
			for range 25 {
				b.send(s, 10)
				b.send(back, 8)
			}
			o := b.finish()
			diff(t, "numbers lost there and back", []int{3, 4},
				[]int{b.path.Truth(inject.AtoB, s.SPI).Lost(), b.path.Truth(inject.BtoA, back.SPI).Lost()})
			b.checkOne(o, s, map[string]int64{})
			b.checkOut(o, back.SPI, 200)
			o.checkFindings(t, "path-loss "+name(s.SPI))
		})
	}
}
