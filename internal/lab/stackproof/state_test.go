// SPDX-License-Identifier: Apache-2.0

package stackproof

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/lab/tunnel"
)

// Packets of SPIs that nobody knows, by plain ESP and in UDP, over both families.
func TestUnknownSPI(t *testing.T) {
	tunnel.Need(t)
	for _, tc := range []struct {
		name string
		tunnel.Options
	}{
		{"IPv4", tunnel.Options{}},
		{"IPv4 UDP", tunnel.Options{UDP: true}},
		{"IPv6", tunnel.Options{Family: 6}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := raise(t, tc.Options, Setup{})
			for i := range uint32(7) {
				r.craft(0xdead0000, i+1, tc.UDP)
				r.craft(0xdead0001+i%2, i+1, tc.UDP)
			}
			got := r.agree()
			to := r.tunnel.B.Outer
			want := map[string]uint64{
				fmt.Sprintf("%s 0xdead0000", to): 7, fmt.Sprintf("%s 0xdead0001", to): 4, fmt.Sprintf("%s 0xdead0002", to): 3,
			}
			if diff := cmp.Diff(want, got.Unknown); diff != "" {
				t.Errorf("unknown SPIs (-want +got):\n%s", diff)
			}
			if len(got.SAs) > 0 || len(got.Residue) > 0 {
				t.Errorf("SAs %+v, residue %v", got.SAs, got.Residue)
			}
			events, err := r.watch.Events()
			check(t, err)
			if len(events) != 14 || events[0].Seq != 1 || events[13].Seq != 7 || events[0].Cause != "no_state" {
				t.Errorf("events: %+v", events)
			}
		})
	}
}

// A flood of invented SPIs fills its own table and no other; what it could not hold is counted.
func TestUnknownSPIFlood(t *testing.T) {
	tunnel.Need(t)
	r := raise(t, tunnel.Options{}, Setup{Unknown: 8})
	for i := range uint32(40) {
		r.craft(0xf1000000+i, 1, false)
	}
	got, err := r.watch.Read()
	check(t, err)
	if n := r.moved()["XfrmInNoStates"]; n != 40 {
		t.Fatalf("the kernel counted %d packets, want 40", n)
	}
	known := uint64(0)
	for _, n := range got.Unknown {
		known += n
	}
	if known < 8 || known+got.Lost["unknown_table_full"] != 40 || len(got.Lost) != 1 {
		t.Errorf("%d in the table, lost: %v; want 40 in all", known, got.Lost)
	}
}

// The SA goes away under traffic: from then on its SPI is unknown.
func TestDeletedSA(t *testing.T) {
	tunnel.Need(t)
	r := raise(t, tunnel.Options{}, Setup{})
	r.send(50)
	check(t, r.sa.Delete(r.tunnel.B))
	r.send(25)
	got := r.agree()
	if diff := cmp.Diff(map[string]uint64{fmt.Sprintf("%s %#x", r.tunnel.B.Outer, r.sa.SPI): 25}, got.Unknown); diff != "" {
		t.Errorf("unknown SPIs (-want +got):\n%s", diff)
	}
	if len(got.Residue) > 0 {
		t.Errorf("residue: %v", got.Residue)
	}
}

// Past its packet limit an SA is first expired, then invalid, and soon gone.
func TestHardLimit(t *testing.T) {
	tunnel.Need(t)
	r := raise(t, tunnel.Options{HardPackets: 30}, Setup{})
	r.send(60)
	got := r.agree()
	var dropped uint64
	for _, sa := range got.SAs {
		for cause, n := range sa.Causes {
			dropped += n
			if sa.SPI != r.sa.SPI || cause != "state_expired" && cause != "state_invalid" {
				t.Errorf("%d packets of SA %#x: %s", n, sa.SPI, cause)
			}
		}
	}
	for _, n := range got.Unknown {
		dropped += n
	}
	if len(got.SAs) != 1 || got.SAs[0].Causes["state_expired"] == 0 {
		t.Errorf("no packet met the expired SA: %+v", got.SAs)
	}
	if arrived, _ := r.flow.Delivered(); uint64(arrived)+dropped != 60 || len(got.Residue) > 0 {
		t.Errorf("%d delivered and %d dropped of 60, residue %v", arrived, dropped, got.Residue)
	}
}

// A policy refuses what the SA has decrypted: the packet still belongs to that SA.
func TestPolicyAfterDecryption(t *testing.T) {
	tunnel.Need(t)
	for _, tc := range []struct {
		name, policy, cause string
		family              int
	}{
		{"block", "xfrm policy update src %[1]s dst %[2]s dir in priority 1 action block", "pol_block", 4},
		{"block IPv6", "xfrm policy update src %[1]s dst %[2]s dir in priority 1 action block", "pol_block", 6},
		{"other SA demanded", "xfrm policy update src %[1]s dst %[2]s dir in priority 1 tmpl proto esp reqid 4711 mode tunnel", "tmpl_mismatch", 4},
		{"none", "xfrm policy delete src %[1]s dst %[2]s dir in", "no_pols", 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := raise(t, tunnel.Options{Family: tc.family}, Setup{})
			r.send(10)
			bits := map[int]string{4: "/32", 6: "/128"}[tc.family]
			check(t, r.tunnel.B.IP(fmt.Sprintf(tc.policy, r.sa.Src.String()+bits, r.sa.Dst.String()+bits)))
			r.send(15)
			r.only(r.agree(), map[string]uint64{tc.cause: 15})
		})
	}
}

// An SA that wants UDP around ESP refuses it without.
func TestEncapsulationMismatch(t *testing.T) {
	tunnel.Need(t)
	r := raise(t, tunnel.Options{UDP: true}, Setup{})
	for i := range uint32(9) {
		r.craft(r.sa.SPI, i+1, false)
	}
	r.only(r.agree(), map[string]uint64{"encap_mismatch": 9})
}

// An SPI that is allocated but has no SA yet.
func TestLarvalState(t *testing.T) {
	tunnel.Need(t)
	r := raise(t, tunnel.Options{}, Setup{})
	check(t, r.tunnel.B.IP(fmt.Sprintf("xfrm state allocspi src %s dst %s proto esp mode tunnel min 0x7001 max 0x7001", r.tunnel.A.Outer, r.tunnel.B.Outer)))
	for i := range uint32(8) {
		r.craft(0x7001, i+1, false)
	}
	got := r.agree()
	if len(got.SAs) != 1 || got.SAs[0].SPI != 0x7001 || got.SAs[0].Causes["acquire_error"] != 8 {
		t.Errorf("SAs: %+v", got.SAs)
	}
}
