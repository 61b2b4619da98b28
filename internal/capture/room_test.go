// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/ledger"
)

// TestMakeRoom fills the table of windows. Until little room is left nothing goes, and then what no SA has.
func TestMakeRoom(t *testing.T) {
	if err := rlimit.RemoveMemlock(); err != nil || os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatalf("making a table needs root, and CI has to give it: %v", err)
		}
		t.Skip("making a table needs root")
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 24, ValueSize: 8, MaxEntries: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	dst := netip.MustParseAddr("192.0.2.2")
	fill := func(spis ...uint32) {
		t.Helper()
		for _, spi := range spis {
			if err := m.Put(bpfobj.PacketOrderKey{Dst: dst.As16(), Spi: spi, Family: 4}, uint64(0)); err != nil {
				t.Fatal(err)
			}
		}
	}
	r := newRig(t, Options{})
	r.source.Windows = m
	at := time.Now()
	there := func(spi ledger.SPI) ledger.SADEntry {
		return ledger.SADEntry{Key: ledger.SAKey{Dst: dst, SPI: spi, Proto: ledger.ESP, Direction: ledger.In}}
	}
	r.SetSAs([]ledger.SADEntry{there(1), there(2)}, nil, at.Add(-time.Hour))
	r.SetSAs([]ledger.SADEntry{there(2), there(3)}, nil, at)
	fill(1, 2, 3, 4, 5, 6)
	for _, want := range [][]uint32{{1, 2, 3, 4, 5, 6}, {2, 3}} {
		if err := r.MakeRoom(); err != nil {
			t.Fatal(err)
		}
		keys, err := windows(m)
		if err != nil {
			t.Fatal(err)
		}
		var got []uint32
		for _, k := range keys {
			got = append(got, k.Spi)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("windows of %d, want %d", got, want)
		}
		fill(7)
	}
}
