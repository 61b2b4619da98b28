// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/ledger"
)

// A gateway: hardware with a VLAN, a bond of two, a bridge, tunnels of two kinds.
func gateway() []Device {
	a := func(s ...string) (out []netip.Addr) {
		for _, x := range s {
			out = append(out, netip.MustParseAddr(x))
		}
		return out
	}
	return []Device{
		{Name: "lo", Index: 1, Layer: LayerEthernet, Up: true, Loopback: true, Addrs: a("127.0.0.1", "10.9.9.9")},
		{Name: "eth0", Index: 2, Kind: "device", Layer: LayerEthernet, LinkType: "ether", Up: true, Addrs: a("192.0.2.2", "2001:db8::2")},
		{Name: "eth1", Index: 3, Kind: "device", Layer: LayerEthernet, LinkType: "ether", Up: true},
		{Name: "eth2", Index: 4, Kind: "device", Layer: LayerEthernet, LinkType: "ether", Up: true},
		{Name: "bond0", Index: 5, Kind: "bond", Layer: LayerEthernet, LinkType: "ether", Up: true, Lower: []int{3, 4}, Addrs: a("198.51.100.1")},
		{Name: "eth0.7", Index: 6, Kind: "vlan", Layer: LayerEthernet, LinkType: "ether", Up: true, Lower: []int{2}, Addrs: a("203.0.113.7")},
		{Name: "wg0", Index: 7, Kind: "wireguard", Layer: LayerIP, LinkType: "none", Up: true, Addrs: a("10.7.0.1")},
		{Name: "gre1", Index: 8, Kind: "gre", Layer: LayerIP, LinkType: "gre", Up: true, Lower: []int{2}, Addrs: a("10.8.0.1")},
		{Name: "eth3", Index: 9, Kind: "device", Layer: LayerEthernet, LinkType: "ether", Addrs: a("198.51.100.9")},
		{Name: "ib0", Index: 10, Kind: "device", Layer: LayerOther, LinkType: "infiniband", Up: true},
		{Name: "veth0", Index: 12, Kind: "veth", Layer: LayerEthernet, LinkType: "ether"},
		{Name: "dummy0", Index: 11, Kind: "dummy", Layer: LayerEthernet, LinkType: "ether", Up: true, Addrs: a("10.11.0.1")},
	}
}

func sa(dir ledger.Direction, src, dst string) ledger.SADEntry {
	return ledger.SADEntry{
		Key: ledger.SAKey{Dst: netip.MustParseAddr(dst), SPI: 1, Proto: ledger.ESP, Direction: dir},
		Src: netip.MustParseAddr(src),
	}
}

func TestChoose(t *testing.T) {
	for _, tc := range []struct {
		name  string
		names []string
		sas   []ledger.SADEntry
		want  string
		notes string // a part of them
	}{
		{"all that is up, without uppers, loopback and what cannot be read", nil, nil, "eth0 eth1 eth2 wg0", ""},
		{"owner of an inbound SA's destination", nil, []ledger.SADEntry{sa(ledger.In, "192.0.2.1", "192.0.2.2")}, "eth0", ""},
		{"owner of an outbound SA's source", nil, []ledger.SADEntry{sa(ledger.Out, "198.51.100.1", "192.0.2.1")}, "bond0", ""},
		{"IPv6", nil, []ledger.SADEntry{sa(ledger.In, "2001:db8::1", "2001:db8::2")}, "eth0", ""},
		{"both ends local: either", nil, []ledger.SADEntry{sa(ledger.Unknown, "10.7.0.1", "192.0.2.2")}, "eth0 wg0", ""},
		{"VLAN and its lower device both own one", nil,
			[]ledger.SADEntry{sa(ledger.In, "192.0.2.1", "192.0.2.2"), sa(ledger.In, "192.0.2.1", "203.0.113.7")}, "eth0", "eth0.7 is not observed by itself"},
		{"VLAN alone", nil, []ledger.SADEntry{sa(ledger.In, "192.0.2.1", "203.0.113.7")}, "eth0.7", ""},
		{"address on loopback: packets come in elsewhere", nil, []ledger.SADEntry{sa(ledger.In, "192.0.2.1", "10.9.9.9")},
			"eth0 eth1 eth2 wg0", "observing every device"},
		{"address on a dummy", nil, []ledger.SADEntry{sa(ledger.In, "192.0.2.1", "10.11.0.1")}, "eth0 eth1 eth2 wg0", "observing every device"},
		{"address on a device that is down", nil, []ledger.SADEntry{sa(ledger.In, "192.0.2.1", "198.51.100.9")}, "eth0 eth1 eth2 wg0", ""},
		{"address nowhere", nil, []ledger.SADEntry{sa(ledger.In, "192.0.2.1", "192.0.2.2"), sa(ledger.In, "192.0.2.1", "10.99.0.1")},
			"eth0 eth1 eth2 wg0", ""},
		{"named wins", []string{"eth1"}, []ledger.SADEntry{sa(ledger.In, "192.0.2.1", "192.0.2.2")}, "eth1", ""},
		{"named twice", []string{"eth1", "eth1"}, nil, "eth1", ""},
		{"named though down", []string{"eth3"}, nil, "eth3", ""},
		{"bond and one slave: the bond sees all", []string{"bond0", "eth1"}, nil, "bond0", "eth1 is not observed by itself"},
		{"bond and all slaves: they do", []string{"bond0", "eth1", "eth2"}, nil, "eth1 eth2", "bond0 is not observed by itself"},
		{"a tunnel carries other packets than its lower device", []string{"gre1", "eth0"}, nil, "gre1 eth0", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, notes, err := choose(gateway(), tc.names, tc.sas)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, d := range got {
				names = append(names, d.Name)
			}
			if diff := cmp.Diff(tc.want, strings.Join(names, " ")); diff != "" {
				t.Errorf("devices (-want +got):\n%s", diff)
			}
			if all := strings.Join(notes, "\n"); !strings.Contains(all, tc.notes) {
				t.Errorf("notes %q lack %q", all, tc.notes)
			}
		})
	}
}

func TestAbsentInterfaceListsThoseThereAre(t *testing.T) {
	_, _, err := choose(gateway(), []string{"eth9"}, nil)
	if err == nil || !strings.Contains(err.Error(), `"eth9"`) || !strings.Contains(err.Error(), "bond0, dummy0, eth0") {
		t.Errorf("error: %v", err)
	}
	_, _, err = choose(gateway()[:1], nil, nil)
	if err == nil || !strings.Contains(err.Error(), "lo") {
		t.Errorf("only loopback: %v", err)
	}
}

// planned writes a hook as "name: way/program …" with + for required.
func planned(hooks []Hook) (out []string) {
	for _, h := range hooks {
		s := h.Name + ":"
		for _, c := range h.Try {
			s += " " + string(c.Way) + "/" + c.Program
		}
		if h.Required {
			s += " +"
		}
		out = append(out, s)
	}
	return out
}

func TestWirePlan(t *testing.T) {
	unknown := errors.New("could not ask")
	for _, tc := range []struct {
		name   string
		device string
		mode   Mode
		caps   Capabilities
		busy   bool
		want   []string
		limits bool
	}{
		{"new kernel", "eth0", "", Capabilities{}, false,
			[]string{"wire ingress eth0: xdp/xdp_ingress tcx/tc_ingress", "wire egress eth0: tcx/tc_egress"}, false},
		{"before tcx", "eth0", ModeAuto, Capabilities{TCX: errNo}, false,
			[]string{"wire ingress eth0: xdp/xdp_ingress clsact/tc_ingress", "wire egress eth0: clsact/tc_egress"}, false},
		{"tcx not known", "eth0", ModeTC, Capabilities{TCX: unknown}, false,
			[]string{"wire ingress eth0: tcx/tc_ingress clsact/tc_ingress +", "wire egress eth0: tcx/tc_egress clsact/tc_egress"}, false},
		{"XDP asked for has no fall-back", "eth0", ModeXDP, Capabilities{}, false,
			[]string{"wire ingress eth0: xdp/xdp_ingress +", "wire egress eth0: tcx/tc_egress"}, false},
		{"generic only when asked for", "eth0", ModeXDPGeneric, Capabilities{}, false,
			[]string{"wire ingress eth0: xdp-generic/xdp_ingress +", "wire egress eth0: tcx/tc_egress"}, true},
		{"somebody's XDP program stays", "eth0", ModeAuto, Capabilities{}, true,
			[]string{"wire ingress eth0: tcx/tc_ingress", "wire egress eth0: tcx/tc_egress"}, false},
		{"veth: TC, XDP behind it", "veth0", ModeAuto, Capabilities{}, false,
			[]string{"wire ingress veth0: tcx/tc_ingress xdp/xdp_ingress", "wire egress veth0: tcx/tc_egress"}, false},
		{"veth, XDP asked for", "veth0", ModeXDP, Capabilities{}, false,
			[]string{"wire ingress veth0: xdp/xdp_ingress +", "wire egress veth0: tcx/tc_egress"}, false},
		{"veth before tcx", "veth0", ModeAuto, Capabilities{TCX: errNo}, false,
			[]string{"wire ingress veth0: xdp/xdp_ingress clsact/tc_ingress", "wire egress veth0: clsact/tc_egress"}, false},
		{"veth where GRO hides ESP from TC", "veth0", ModeAuto, Capabilities{GROHidesESP: true}, false,
			[]string{"wire ingress veth0: xdp/xdp_ingress tcx/tc_ingress", "wire egress veth0: tcx/tc_egress"}, false},
		{"no XDP links", "eth0", ModeAuto, Capabilities{XDPLink: errNo}, false,
			[]string{"wire ingress eth0: tcx/tc_ingress", "wire egress eth0: tcx/tc_egress"}, false},
		{"no link header", "wg0", ModeAuto, Capabilities{}, false,
			[]string{"wire ingress wg0: tcx/tc_ingress_l3", "wire egress wg0: tcx/tc_egress_l3"}, false},
		{"no link header, clsact", "wg0", ModeTC, Capabilities{TCX: errNo}, false,
			[]string{"wire ingress wg0: clsact/tc_ingress_l3 +", "wire egress wg0: clsact/tc_egress_l3"}, false},
		{"unreadable link type", "ib0", ModeAuto, Capabilities{}, false, []string{"wire ingress ib0: +", "wire egress ib0:"}, false},
		{"GRO hides ESP from TC", "eth0", ModeTC, Capabilities{GROHidesESP: true}, false,
			[]string{"wire ingress eth0: tcx/tc_ingress +", "wire egress eth0: tcx/tc_egress"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			devices := gateway()
			for i := range devices {
				devices[i].XDPHere = tc.busy
			}
			p, err := Make(tc.caps, devices, Options{Interfaces: []string{tc.device}, Mode: tc.mode, WireOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, planned(p.Wire)); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
			if got := p.Wire[0].Limits != ""; got != tc.limits {
				t.Errorf("limits %q, want some: %v", p.Wire[0].Limits, tc.limits)
			}
			for _, h := range p.Wire {
				if h.Costs == "" || len(h.Try) == 0 && len(h.Why) == 0 {
					t.Errorf("%s: its absence has costs %q and reasons %q", h.Name, h.Costs, h.Why)
				}
			}
		})
	}
}

func TestStackPlan(t *testing.T) {
	p, err := Make(Capabilities{
		Kprobe:  errNo,
		Missing: map[string]string{"xfrm_audit_state_notfound_simple": "not in this kernel"},
	}, nil, Options{StackOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"kfree_skb: raw_tp/kfree_skb",
		"xfrm_audit_state_replay: fentry/audit_replay",
		"xfrm_audit_state_icvfail: fentry/audit_icvfail",
		"xfrm_audit_state_notfound: fentry/audit_notfound",
		"xfrm_audit_state_notfound_simple:",
		"xfrm_audit_state_replay_overflow: fentry/audit_replay_overflow",
	}
	if diff := cmp.Diff(want, planned(p.Stack)); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	if p, err = Make(Capabilities{Fentry: errNo}, nil, Options{StackOnly: true}); err != nil {
		t.Fatal(err)
	}
	if got := planned(p.Stack)[1]; got != "xfrm_audit_state_replay: kprobe/audit_replay_kprobe" {
		t.Errorf("without fentry: %s", got)
	}
	for name, caps := range map[string]Capabilities{"without BTF": {BTF: errNo}, "locked down": {Memory: errNo}} {
		if p, err = Make(caps, nil, Options{StackOnly: true}); err != nil {
			t.Fatal(err)
		}
		for _, h := range append(p.Stack, p.Objects...) {
			if len(h.Try) != 0 || len(h.Why) == 0 {
				t.Errorf("%s: %+v", name, h)
			}
		}
	}
}

func TestOptions(t *testing.T) {
	o, err := Options{RingBytes: 100_000}.withDefaults()
	if err != nil || o.RingBytes != 131072 || o.SATableSize != DefaultSATableSize || o.Mode != ModeAuto || len(o.NATTPorts) != 1 {
		t.Errorf("defaults: %+v, %v", o, err)
	}
	for _, bad := range []Options{
		{WireOnly: true, StackOnly: true},
		{Mode: "fast"},
		{SATableSize: 1<<20 + 1},
		{RingBytes: 1<<30 + 1},
		{NATTPorts: make([]uint16, 9)},
	} {
		if _, err := bad.withDefaults(); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
	if _, err := (Options{SATableSize: 1<<20 + 1}).withDefaults(); !strings.Contains(err.Error(), "more than 3328 MiB") {
		t.Errorf("memory of a large table: %v", err)
	}
	for lockfree, caps := range map[bool]Capabilities{true: {}, false: {Atomics: errNo}} {
		p, err := Make(caps, gateway(), Options{})
		if err != nil || p.LockFree != lockfree {
			t.Errorf("atomics %v: lock-free %v, %v", caps.Atomics, p.LockFree, err)
		}
	}
}
