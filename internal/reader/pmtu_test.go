// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/kernel"
	"xfrmscope/internal/ledger"
)

// TestPMTUPart writes into real maps what the programs would and reads it back.
func TestPMTUPart(t *testing.T) {
	m := pmtuMaps(t)
	mapped := func(last byte) [16]byte { return [16]byte{10: 0xff, 11: 0xff, 12: 10, 15: last} }
	when, err := newClock()
	if err != nil {
		t.Fatal(err)
	}
	// tell_sender is kind 0 and told kind 2 (enum pmtu_kind).
	own := bpfobj.PMTUKey{Src: mapped(1), Dst: mapped(2), Mtu: 1446, Kind: 0, Proto: 6, Family: 4}
	if err := m.Own.Put(own, bpfobj.PMTUCount{Packets: 9, Sent: 7, Late: 3, Size: 1400, SizeMax: 1500, FirstNs: 1000, LastNs: 2000,
		SaSpi: 0xc0ffee02, SaDst: mapped(3)}); err != nil {
		t.Fatal(err)
	}
	told := bpfobj.PMTUKey{Src: mapped(4), Dst: mapped(3), Spi: 0xc0ffee02, Mtu: 1400, Kind: 2, Proto: 50, Family: 4}
	if err := m.Told.Put(told, bpfobj.PMTUCount{Packets: 2, Took: 1400, Reporter: mapped(5)}); err != nil {
		t.Fatal(err)
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		t.Fatal(err)
	}
	perCPU := make([]uint64, cpus)
	for i := range perCPU {
		perCPU[i] = 5
	}
	if err := m.Totals.Put(uint32(0), perCPU); err != nil {
		t.Fatal(err)
	}
	snap := ledger.Snapshot{}
	for range 2 { // absolutes: a second reading says the same
		snap = ledger.Snapshot{}
		if err := m.Part(context.Background(), &snap); err != nil {
			t.Fatal(err)
		}
	}
	if got := snap.PMTU.Totals["tell_sender"]; got != uint64(5*cpus) {
		t.Errorf("tell_sender %d, want %d", got, 5*cpus)
	}
	for _, name := range []string{"told", "applied", "fragmented", "reasm_expired", "too_big_v6", "unrecorded"} {
		if n, there := snap.PMTU.Totals[name]; !there || n != 0 {
			t.Errorf("total %s: %d (there: %v), want 0", name, n, there)
		}
	}
	if len(snap.PMTU.Events) != 2 {
		t.Fatalf("%d events, want 2", len(snap.PMTU.Events))
	}
	a, b := snap.PMTU.Events[0], snap.PMTU.Events[1]
	if a.Key != (ledger.PMTUKey{Kind: ledger.PMTUTellSender, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Proto: 6, MTU: 1446}) ||
		a.Packets != 9 || a.Sent != 7 || a.Late != 3 || a.SizeMax != 1500 || a.SA.SPI != 0xc0ffee02 || a.SA.Direction != ledger.Out {
		t.Errorf("first event %+v", a)
	}
	if d := a.Last.Sub(when.wall(2000)).Abs(); d.Seconds() > 1 {
		t.Errorf("the last packet is %s off", d)
	}
	if b.Key.Kind != ledger.PMTUTold || b.Key.SPI != 0xc0ffee02 || b.Took != 1400 || b.Reporter != netip.MustParseAddr("10.0.0.5") || b.SA != (ledger.SAKey{}) {
		t.Errorf("second event %+v", b)
	}
}

// pmtuMaps makes the object's maps without its programs.
func pmtuMaps(t *testing.T) PMTUMaps {
	t.Helper()
	if err := errors.Join(kernel.CheckCapabilities(), rlimit.RemoveMemlock()); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	spec, err := bpfobj.LoadPMTU()
	if err != nil {
		t.Fatal(err)
	}
	spec.Programs = nil
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(coll.Close)
	return PMTUMaps{Own: coll.Maps["pmtu_own"], Told: coll.Maps["pmtu_told"], Totals: coll.Maps["pmtu_totals"]}
}
