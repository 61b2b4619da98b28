// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/reader"
)

// TestTheirTCXComesLater has somebody else put a program at the tail, where it is put by default, while we
// observe. It gets every packet, we count every packet, and it stays when we leave.
func TestTheirTCXComesLater(t *testing.T) {
	k := needBPF(t)
	if refused(k.Capabilities.TCX) {
		t.Skipf("this kernel is too old: %v", k.Capabilities.TCX)
	}
	l := newLab(t)
	l.veth(t, "wan", ownIP+"/24")
	s, err := Open(k, Options{Netns: l.nearName, WireOnly: true, Mode: ModeTC})
	must(t, err)
	drop := theirs(t, ebpf.SchedCLS, 2) // TC_ACT_SHOT
	for _, attach := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		must(t, l.near.Do(func() error {
			x, err := link.AttachTCX(link.TCXOptions{Program: drop, Interface: l.ifindex(t, "wan"), Attach: attach})
			if err == nil {
				t.Cleanup(func() { x.Close() })
			}
			return err
		}))
	}
	r := openReader(t, s, reader.Options{})
	in, out := openWire(t, l.far, "far-wan"), openWire(t, l.near, "wan")
	for seq := uint32(1); seq <= 50; seq++ {
		in.send(t, esp(peerIP, ownIP, 7, seq))
		if err := out.try(esp(ownIP, peerIP, 8, seq)); !errors.Is(err, unix.ENOBUFS) {
			t.Fatalf("send: %v, want it dropped by their program", err)
		}
	}
	snap := settle(t, r, 100)
	for _, k := range []ledger.SAKey{key(7, ledger.In), key(8, ledger.Out)} {
		if w := find(snap, k); w.Unique != 50 {
			t.Errorf("%v: %+v", k, figuresOf(w))
		}
	}
	must(t, s.Close())
	info, err := drop.Info()
	must(t, err)
	id, _ := info.ID()
	st := l.state(t, "wan")
	for _, ids := range [][]ebpf.ProgramID{st.TCXIn, st.TCXOut} {
		if len(ids) != 1 || ids[0] != id {
			t.Errorf("after our end there are %v, want theirs alone, %d", ids, id)
		}
	}
}

// TestTheirXDPComesLater: a device has one XDP program, so whoever comes while we observe natively is refused, is
// not refused when we observe by TC, and is welcome once we have left. How they ask does not matter.
func TestTheirXDPComesLater(t *testing.T) {
	k := needBPF(t)
	l := newLab(t)
	l.veth(t, "wan", ownIP+"/24")
	prog := theirs(t, ebpf.XDP, 2)
	come := func(how string) error {
		return l.near.Do(func() error {
			if how == "link" {
				x, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: l.ifindex(t, "wan"), Flags: link.XDPDriverMode})
				if err != nil {
					return err
				}
				return x.Close()
			}
			nl, err := netlink.LinkByName("wan")
			if err != nil {
				return err
			}
			if err := netlink.LinkSetXdpFdWithFlags(nl, prog.FD(), unix.XDP_FLAGS_DRV_MODE); err != nil {
				return err
			}
			return netlink.LinkSetXdpFd(nl, -1)
		})
	}
	for _, how := range []string{"link", "netlink"} {
		s, err := Open(k, Options{Netns: l.nearName, WireOnly: true, Mode: ModeXDP})
		must(t, err)
		if h := hook(s, "wire ingress"); !h.Attached || !strings.HasPrefix(h.Why, string(WayXDP)) {
			t.Fatalf("invalid run: %+v", h)
		}
		before := l.state(t, "wan")
		if err := come(how); !errors.Is(err, unix.EBUSY) {
			t.Errorf("by %s, while we are there: %v, want EBUSY", how, err)
		}
		if after := l.state(t, "wan"); after.XDP != before.XDP {
			t.Errorf("by %s: program %d has taken the place of %d", how, after.XDP, before.XDP)
		}
		must(t, s.Close())
		if err := come(how); err != nil {
			t.Errorf("by %s, after we have left: %v", how, err)
		}
		s, err = Open(k, Options{Netns: l.nearName, WireOnly: true, Mode: ModeTC})
		must(t, err)
		if err := come(how); err != nil {
			t.Errorf("by %s, while we observe by TC: %v", how, err)
		}
		must(t, s.Close())
	}
}
