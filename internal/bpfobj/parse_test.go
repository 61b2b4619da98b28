// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/lab/packet"
)

const (
	a4, b4 = "192.0.2.1", "192.0.2.2"
	a6, b6 = "2001:db8::1", "2001:db8::2"
)

type counts map[string]uint64

func eth4() *packet.Builder { return packet.Eth().IPv4(a4, b4) }
func eth6() *packet.Builder { return packet.Eth().IPv6(a6, b6) }
func natt() *packet.Builder { return eth4().UDP(4500, 40000) }

// deep6 is ESP behind n extension headers.
func deep6(n int) *packet.Builder {
	b := eth6()
	for range n {
		b.DstOpts(0)
	}
	return b.ESP(1, 1, 32)
}

// classes has at least one row for each enum why and each enum aside but "pulled", which needs a
// packet that is not linear: BPF_PROG_TEST_RUN makes none for TC.
var classes = []struct {
	name   string
	frame  *packet.Frame
	why    string
	asides []string
	bytes  uint64 // of an ESP packet, outer IP
}{
	{"esp", eth4().ESP(1, 1, 32).Frame(), "esp", nil, 60},
	{"esp, padded frame", eth4().ESP(1, 1, 2).Frame().Pad(16), "esp", nil, 30},
	{"esp, spi and sequence number only", eth4().ESP(1, 1, 0).Frame(), "esp", nil, 28},
	{"esp over ipv6", eth6().ESP(1, 1, 32).Frame(), "esp", nil, 80},
	{"ipv4 options", packet.Eth().IPv4Options(a4, b4, 10).ESP(1, 1, 32).Frame(), "esp", nil, 100},
	{"vlan", packet.Eth().VLAN(7).IPv4(a4, b4).ESP(1, 1, 32).Frame(), "esp", []string{"vlan"}, 60},
	{"qinq", packet.Eth().QinQ(7).VLAN(8).IPv6(a6, b6).ESP(1, 1, 32).Frame(), "esp", []string{"vlan2"}, 80},
	{"every extension header", eth6().HopByHop(1).DstOpts(0).Routing(2).FragmentExt(0, false).ESP(1, 1, 32).Frame(), "esp", nil, 136},
	{"eight extension headers", deep6(8).Frame(), "esp", nil, 144},
	{"ah around esp", eth4().AH(9, 1, 12).ESP(1, 1, 32).Frame(), "esp", []string{"ah"}, 84},
	{"ah around esp over ipv6", eth6().HopByHop(0).AH(9, 1, 12).ESP(1, 1, 32).Frame(), "esp", []string{"ah"}, 112},
	{"first fragment", packet.Eth().IPv4(a4, b4).Fragment(0, true).ESP(1, 1, 32).Frame(), "esp", []string{"frag_esp", "frag_first"}, 60},
	{"first fragment over ipv6", eth6().FragmentExt(0, true).ESP(1, 1, 32).Frame(), "esp", []string{"frag_esp", "frag_first"}, 88},
	{"esp in udp", natt().ESP(1, 1, 32).Frame(), "esp_udp", nil, 68},
	{"esp in udp to 4500", eth4().UDP(40000, 4500).ESP(1, 1, 32).Frame(), "esp_udp", nil, 68},
	{"esp in udp over ipv6", eth6().UDP(4500, 4500).ESP(1, 1, 32).Frame(), "esp_udp", nil, 88},
	{"esp in udp, other port", eth4().UDP(40000, 10000).ESP(1, 1, 32).Frame(), "esp_udp", nil, 68},
	{"esp in udp, first fragment", packet.Eth().IPv4(a4, b4).Fragment(0, true).UDP(4500, 4500).ESP(1, 1, 32).Frame().Set16(packet.UDP, 4, 1400), "esp_udp", []string{"frag_esp", "frag_first"}, 68},

	{"arp", packet.Eth().Bytes(make([]byte, 28)).Frame(), "not_ip", nil, 0},
	{"tcp", eth4().TCP(4500, 500).Frame(), "not_ipsec", nil, 0},
	{"udp, other ports", eth4().UDP(53, 53).Bytes([]byte{1}).Frame(), "not_ipsec", nil, 0},
	{"first fragment of other udp", packet.Eth().IPv4(a4, b4).Fragment(0, true).UDP(53, 53).Bytes([]byte{1}).Frame(), "not_ipsec", []string{"frag_first"}, 0},
	{"port 0 is not an unused entry", eth4().UDP(0, 0).Bytes([]byte{1}).Frame(), "not_ipsec", nil, 0},
	{"esp quoted in icmp", eth4().ICMPError(packet.L3().IPv4(b4, a4).ESP(1, 1, 0).Frame().Data).Frame(), "not_ipsec", nil, 0},
	{"ike", eth4().UDP(500, 500).IKE(2).Frame(), "ike", nil, 0},
	{"ikev1", eth4().UDP(40000, 500).IKE(1).Frame(), "ike", nil, 0},
	{"ike behind the marker", natt().NonESPMarker().IKE(2).Frame(), "ike", nil, 0},
	{"keepalive", natt().Keepalive().Frame(), "keepalive", nil, 0},
	{"keepalive, padded frame", natt().Keepalive().Frame().Pad(17), "keepalive", nil, 0},
	{"ah", eth4().AH(9, 1, 12).TCP(1, 2).Frame(), "ah", []string{"ah"}, 0},
	{"ah around udp 4500", eth4().AH(9, 1, 12).UDP(4500, 4500).ESP(1, 1, 8).Frame(), "ah", []string{"ah"}, 0},
	{"later fragment", packet.Eth().IPv4(a4, b4).Fragment(1480, true).ESP(1, 1, 32).Frame(), "frag_later", nil, 0},
	{"later fragment over ipv6", eth6().FragmentExt(1480, false).ESP(1, 1, 32).Frame(), "frag_later", nil, 0},

	{"ethernet cut", eth4().ESP(1, 1, 32).Frame().Cut(packet.Ethernet, 13).Pad(1).Cut(packet.Ethernet, 14).Set16(packet.Ethernet, 12, 0x8100), "bad_eth", nil, 0},
	{"vlan cut", packet.Eth().VLAN(7).IPv4(a4, b4).Frame().Cut(packet.VLAN, 3), "bad_eth", nil, 0},
	{"three tags", packet.Eth().QinQ(7).VLAN(8).VLAN(9).IPv4(a4, b4).ESP(1, 1, 32).Frame(), "vlan_depth", nil, 0},
	{"ipv4 cut", eth4().ESP(1, 1, 32).Frame().Cut(packet.IPv4, 19), "bad_ipv4", nil, 0},
	{"ipv4 version", eth4().ESP(1, 1, 32).Frame().Set8(packet.IPv4, 0, 0x55), "bad_ipv4", nil, 0},
	{"ihl below five", eth4().ESP(1, 1, 32).Frame().Set8(packet.IPv4, 0, 0x44), "bad_ipv4", nil, 0},
	{"ihl beyond the packet", eth4().ESP(1, 1, 0).Frame().Set8(packet.IPv4, 0, 0x4f), "bad_ipv4", nil, 0},
	{"total length beyond the frame", eth4().ESP(1, 1, 32).Frame().Set16(packet.IPv4, 2, 61), "bad_ipv4", nil, 0},
	{"total length below the header", eth4().ESP(1, 1, 32).Frame().Set16(packet.IPv4, 2, 19), "bad_ipv4", nil, 0},
	{"total length zero", eth4().ESP(1, 1, 32).Frame().Set16(packet.IPv4, 2, 0), "bad_ipv4", nil, 0},
	{"ipv6 cut", eth6().ESP(1, 1, 32).Frame().Cut(packet.IPv6, 39), "bad_ipv6", nil, 0},
	{"ipv6 version", eth6().ESP(1, 1, 32).Frame().Set8(packet.IPv6, 0, 0x40), "bad_ipv6", nil, 0},
	{"payload length beyond the frame", eth6().ESP(1, 1, 32).Frame().Set16(packet.IPv6, 4, 41), "bad_ipv6", nil, 0},
	{"nine extension headers", deep6(9).Frame(), "ipv6_ext_depth", nil, 0},
	{"extension header cut", eth6().HopByHop(0).ESP(1, 1, 32).Frame().EndAt(packet.Ext, 1), "bad_ipv6_ext", nil, 0},
	{"extension header too long", eth6().HopByHop(0).ESP(1, 1, 32).Frame().Set8(packet.Ext, 1, 255), "bad_ipv6_ext", nil, 0},
	{"fragment header cut", eth6().FragmentExt(0, true).ESP(1, 1, 32).Frame().EndAt(packet.FragExt, 7), "bad_ipv6_ext", nil, 0},
	{"ah cut", eth4().AH(9, 1, 12).ESP(1, 1, 32).Frame().EndAt(packet.AH, 11), "bad_ah", nil, 0},
	{"ah too short", eth4().AH(9, 1, 12).ESP(1, 1, 32).Frame().Set8(packet.AH, 1, 0), "bad_ah", nil, 0},
	{"ah too long", eth4().AH(9, 1, 12).ESP(1, 1, 32).Frame().Set8(packet.AH, 1, 255), "bad_ah", nil, 0},
	{"udp cut", natt().ESP(1, 1, 32).Frame().EndAt(packet.UDP, 7), "bad_udp", nil, 0},
	{"udp length below the header", natt().ESP(1, 1, 32).Frame().Set16(packet.UDP, 4, 7), "bad_udp", nil, 0},
	{"udp length beyond the packet", natt().ESP(1, 1, 32).Frame().Set16(packet.UDP, 4, 49), "bad_udp", nil, 0},
	{"esp short", eth4().ESP(1, 1, 32).Frame().EndAt(packet.ESP, 7), "esp_short", nil, 0},
	{"esp in udp short", natt().ESP(1, 1, 32).Frame().EndAt(packet.ESP, 7), "esp_short", nil, 0},
	{"udp 4500, empty", natt().Frame(), "natt_short", nil, 0},
	{"udp 4500, one byte", natt().Bytes([]byte{0xfe}).Frame(), "natt_short", nil, 0},
	{"udp 4500, three bytes", natt().Bytes([]byte{1, 2, 3}).Frame(), "natt_short", nil, 0},
	{"ike cut", eth4().UDP(500, 500).IKE(2).Frame().EndAt(packet.IKE, 27), "bad_ike", nil, 0},
	{"ike without initiator spi", eth4().UDP(500, 500).IKE(2).Frame().Set32(packet.IKE, 0, 0).Set32(packet.IKE, 4, 0), "bad_ike", nil, 0},
	{"ike version 3", eth4().UDP(500, 500).IKE(3).Frame(), "bad_ike", nil, 0},
	{"udp 4500, zeroes", natt().Bytes(make([]byte, 40)).Frame(), "bad_ike", nil, 0},
}

// Every row through XDP and both TC programs, and without its link header through the L3 ones.
func TestClasses(t *testing.T) {
	programs := []struct {
		name string
		dir  int
		l3   bool
	}{{"xdp_ingress", 0, false}, {"tc_ingress", 0, false}, {"tc_egress", 1, false}, {"tc_ingress_l3", 0, true}, {"tc_egress_l3", 1, true}}
	for _, build := range builds(t) {
		w := loadWire(t, build.lockfree, 64, func(spec *ebpf.CollectionSpec) {
			set(t, spec, "cfg_natt_ports", [8]uint16{4500, 10000})
		})
		seen := map[string]bool{}
		for _, p := range programs {
			for _, tt := range classes {
				frame, why, asides := tt.frame.Data, tt.why, tt.asides
				seen[why] = true
				if p.l3 {
					if tt.frame.Has(packet.VLAN) || why == "bad_eth" || why == "not_ip" {
						continue
					}
					frame = frame[14:]
					if tt.name == "ipv4 version" {
						why = "not_ip" // the version is all that an L3 program has to go by
					} else if tt.name == "ipv6 version" {
						why = "bad_ipv4"
					}
				}
				// BPF_PROG_TEST_RUN wants an Ethernet header's worth, and a whole IP header for TC.
				if len(frame) < 14 || p.name != "xdp_ingress" && (tt.name == "ipv4 cut" || tt.name == "ipv6 cut") {
					continue
				}
				t.Run(build.name+"/"+p.name+"/"+tt.name, func(t *testing.T) {
					w.t = t
					check := w.difference(p.dir)
					w.run(p.name, frame)
					wantAsides := counts{}
					for _, a := range asides {
						wantAsides[a] = 1
					}
					check(counts{why: 1}, wantAsides, tt.bytes)
				})
			}
		}
		for _, why := range w.names["why"] {
			if !seen[why] {
				t.Errorf("no row has class %s", why)
			}
		}
		w.t = t
		if got := w.lost(); len(got) != 0 {
			t.Errorf("lost %v", got)
		}
	}
}

// difference remembers the counters; the function that it returns compares what was added to them.
func (w *wire) difference(dir int) func(why, aside counts, bytes uint64) {
	w.t.Helper()
	classesBefore, asidesBefore := w.counts("why_counts", "why", dir), w.counts("aside_counts", "aside", dir)
	packetsBefore, bytesBefore := w.accounted()
	return func(why, aside counts, bytes uint64) {
		w.t.Helper()
		if diff := cmp.Diff(why, minus(w.counts("why_counts", "why", dir), classesBefore)); diff != "" {
			w.t.Error("classes (-want +got):\n" + diff)
		}
		if diff := cmp.Diff(aside, minus(w.counts("aside_counts", "aside", dir), asidesBefore)); diff != "" {
			w.t.Error("asides (-want +got):\n" + diff)
		}
		packets, all := w.accounted()
		if want := why["esp"] + why["esp_udp"]; packets-packetsBefore != want {
			w.t.Errorf("%d packets accounted to SAs, want %d", packets-packetsBefore, want)
		}
		if all-bytesBefore != bytes {
			w.t.Errorf("%d bytes accounted to SAs, want %d", all-bytesBefore, bytes)
		}
	}
}

func (w *wire) accounted() (packets, bytes uint64) {
	for _, s := range w.sas() {
		packets += s.Packets
		bytes += s.Bytes
	}
	return packets, bytes
}

func minus(after, before map[string]uint64) counts {
	got := counts{}
	for k, v := range after {
		if v != before[k] {
			got[k] = v - before[k]
		}
	}
	return got
}

// Valid packets cut at every byte: each gets exactly one class, and nothing is lost.
func TestCutEverywhere(t *testing.T) {
	for _, build := range builds(t) {
		t.Run(build.name, func(t *testing.T) {
			w := loadWire(t, build.lockfree, 64, only("xdp_ingress"))
			var sent uint64
			for _, f := range []*packet.Frame{
				packet.Eth().QinQ(7).VLAN(8).IPv4Options(a4, b4, 10).AH(9, 1, 12).ESP(1, 1, 32).Frame(),
				eth6().HopByHop(1).Routing(2).FragmentExt(0, true).AH(9, 1, 12).DstOpts(0).ESP(2, 1, 32).Frame(),
				natt().NonESPMarker().IKE(2).Frame(),
				natt().ESP(3, 1, 32).Frame(),
			} {
				for n := 14; n <= len(f.Data); n++ {
					w.run("xdp_ingress", f.Data[:n])
					sent++
				}
			}
			var got uint64
			for _, n := range w.counts("why_counts", "why", 0) {
				got += n
			}
			if got != sent {
				t.Errorf("%d classes for %d packets", got, sent)
			}
			// Cut packets are shorter than they say, so only the whole ones are ESP.
			if n := len(w.sas()); n != 3 {
				t.Errorf("%d SAs, want 3", n)
			}
			if got := w.lost(); len(got) != 0 {
				t.Errorf("lost %v", got)
			}
		})
	}
}
