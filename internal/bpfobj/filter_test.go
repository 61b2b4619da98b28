// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"

	"xfrmscope/internal/lab/packet"
)

// Keys of the filter's lists: struct filter_prefix and struct filter_sa.
type (
	peerList struct {
		Bits uint32
		Addr [16]byte
	}
	saList struct {
		Dst [16]byte
		SPI uint32
	}
)

func peer(prefix string) peerList {
	p := netip.MustParsePrefix(prefix)
	bits := uint32(p.Bits())
	if p.Addr().Is4() {
		bits += 96
	}
	return peerList{bits, p.Addr().As16()}
}

// TestEventFilter sends the same gaps and IKE past each filter, in both builds.
func TestEventFilter(t *testing.T) {
	const spi4, spi6 = 0x11, 0x22
	const gap, ike, device = 1, 8, 1
	frames := func() (out [][]byte) {
		for seq := uint32(1); seq < 12; seq += 3 { // three gaps of each SA
			out = append(out, eth4().ESP(spi4, seq, 40).Frame().Data, eth6().ESP(spi6, seq, 40).Frame().Data)
		}
		return append(out, ikeFrame(eth4().UDP(500, 500), 1).Data)
	}()
	for _, row := range []struct {
		name   string
		consts map[string]uint32
		lists  map[string]any // the list and its one element
		gaps   []uint32       // SPIs whose gaps come
		ike    int
	}{
		{"nothing", nil, nil, []uint32{spi4, spi6}, 1},
		{"kind gap", map[string]uint32{"cfg_kinds": 1 << gap}, nil, []uint32{spi4, spi6}, 0},
		{"kind ike", map[string]uint32{"cfg_kinds": 1 << ike}, nil, nil, 1},
		{"out", map[string]uint32{"cfg_directions": 1 << 1}, nil, nil, 0},
		{"in", map[string]uint32{"cfg_directions": 1 << 0}, nil, []uint32{spi4, spi6}, 1},
		{"SPI", map[string]uint32{"cfg_filter": 1}, map[string]any{"filter_spis": uint32(spi4)}, []uint32{spi4}, 0},
		{"IPv4 peer", map[string]uint32{"cfg_filter": 2}, map[string]any{"filter_peers": peer(a4 + "/24")}, []uint32{spi4}, 1},
		{"IPv6 peer", map[string]uint32{"cfg_filter": 2}, map[string]any{"filter_peers": peer(b6 + "/128")}, []uint32{spi6}, 0},
		{"no peer", map[string]uint32{"cfg_filter": 2}, map[string]any{"filter_peers": peer("203.0.113.0/24")}, nil, 0},
		{"everybody", map[string]uint32{"cfg_filter": 2}, map[string]any{"filter_peers": peer("::/0")}, []uint32{spi4, spi6}, 1},
		{"reqid", map[string]uint32{"cfg_filter": 4}, map[string]any{"filter_sas": saList{netip.MustParseAddr(b6).As16(), spi6}}, []uint32{spi6}, 0},
		{"reqid of another destination", map[string]uint32{"cfg_filter": 4}, map[string]any{"filter_sas": saList{netip.MustParseAddr(a6).As16(), spi6}}, nil, 0},
		{"device", map[string]uint32{"cfg_filter": 8}, map[string]any{"filter_devices": uint32(device)}, []uint32{spi4, spi6}, 1},
		{"another device", map[string]uint32{"cfg_filter": 8}, map[string]any{"filter_devices": uint32(77)}, nil, 0},
		{"SPI and peer", map[string]uint32{"cfg_filter": 3}, map[string]any{"filter_spis": uint32(spi4), "filter_peers": peer(b6 + "/64")}, nil, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, build := range builds(t) {
				w := loadWire(t, build.lockfree, 16, func(spec *ebpf.CollectionSpec) {
					only("xdp_ingress")(spec)
					for name, value := range row.consts {
						set(t, spec, name, value)
					}
				})
				for list, key := range row.lists {
					if err := w.Maps[list].Put(key, uint8(1)); err != nil {
						t.Fatal(err)
					}
				}
				for _, frame := range frames {
					w.run("xdp_ingress", frame)
				}
				gaps, headers := map[uint32]int{}, 0
				for _, e := range w.events() {
					switch e.Kind {
					case gap:
						gaps[e.Spi]++
					case ike:
						headers++
					}
				}
				for _, spi := range []uint32{spi4, spi6} {
					want := 0
					if slices.Contains(row.gaps, spi) {
						want = 3
					}
					if gaps[spi] != want {
						t.Errorf("%s: %d gaps of SA %#x, want %d", build.name, gaps[spi], spi, want)
					}
				}
				if headers != row.ike {
					t.Errorf("%s: %d IKE headers, want %d", build.name, headers, row.ike)
				}
			}
		})
	}
}

// TestFilterComesFirst has a rate of one event a second: what the filter turns away takes no part of it and
// is not counted as withheld.
func TestFilterComesFirst(t *testing.T) {
	const unwanted, wanted = 0x11, 0x22
	w := loadWire(t, true, 16, func(spec *ebpf.CollectionSpec) {
		only("xdp_ingress")(spec)
		set(t, spec, "cfg_events_per_sec", uint32(1))
		set(t, spec, "cfg_filter", uint32(1))
	})
	if err := w.Maps["filter_spis"].Put(uint32(wanted), uint8(1)); err != nil {
		t.Fatal(err)
	}
	for seq := uint32(1); seq < 300; seq += 3 {
		w.run("xdp_ingress", packet.Eth().IPv4(a4, b4).ESP(unwanted, seq, 40).Frame().Data)
	}
	for _, seq := range []uint32{1, 4} {
		w.run("xdp_ingress", packet.Eth().IPv4(a4, b4).ESP(wanted, seq, 40).Frame().Data)
	}
	if n := len(w.events()); n != 2 { // sa_new and gap
		t.Errorf("%d events, want 2", n)
	}
	if lost := w.lost(); len(lost) != 0 {
		t.Errorf("lost %v, want nothing", lost)
	}
}
