// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/reader"
)

// theirs is a program of somebody else that returns a constant.
func theirs(t testing.TB, kind ebpf.ProgramType, ret int32) *ebpf.Program {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "theirs", Type: kind, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, ret), asm.Return()},
	})
	must(t, err)
	t.Cleanup(func() { prog.Close() })
	return prog
}

// state is all that is attached to a device, as the kernel tells.
type state struct {
	XDP             uint32
	TCXIn, TCXOut   []ebpf.ProgramID
	Clsact          bool
	FiltersIn, FOut []string
}

func (l *lab) state(t testing.TB, dev string) (st state) {
	t.Helper()
	must(t, l.near.Do(func() error {
		nl, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		if x := nl.Attrs().Xdp; x != nil && x.Attached {
			st.XDP = x.ProgId
		}
		for attach, dst := range map[ebpf.AttachType]*[]ebpf.ProgramID{
			ebpf.AttachTCXIngress: &st.TCXIn, ebpf.AttachTCXEgress: &st.TCXOut,
		} {
			res, err := link.QueryPrograms(link.QueryOptions{Target: nl.Attrs().Index, Attach: attach})
			if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL) {
				continue // before 6.6 there is no tcx
			}
			if err != nil {
				return err
			}
			for _, p := range res.Programs {
				*dst = append(*dst, p.ID)
			}
		}
		qdiscs, err := netlink.QdiscList(nl)
		if err != nil {
			return err
		}
		for _, q := range qdiscs {
			st.Clsact = st.Clsact || q.Type() == "clsact"
		}
		for parent, dst := range map[uint32]*[]string{
			netlink.HANDLE_MIN_INGRESS: &st.FiltersIn, netlink.HANDLE_MIN_EGRESS: &st.FOut,
		} {
			filters, err := netlink.FilterList(nl, parent)
			if err != nil {
				return err
			}
			for _, f := range filters {
				if b, ok := f.(*netlink.BpfFilter); ok {
					name, _, _ := strings.Cut(b.Name, ":")
					*dst = append(*dst, name)
				}
			}
		}
		return nil
	}))
	return st
}

func (l *lab) ifindex(t testing.TB, dev string) (index int) {
	t.Helper()
	must(t, l.near.Do(func() error {
		ifi, err := net.InterfaceByName(dev)
		if err == nil {
			index = ifi.Index
		}
		return err
	}))
	return index
}

// tcWay is how TC hooks are attached on this kernel.
func tcWay(k *Kernel) string {
	if refused(k.Capabilities.TCX) {
		return string(WayClsact)
	}
	return string(WayTCX)
}

// unchanged compares what is attached before and after a set's life.
func (l *lab) unchanged(t testing.TB, dev string, during func()) {
	t.Helper()
	before := l.state(t, dev)
	during()
	if diff := cmp.Diff(before, l.state(t, dev)); diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}

func TestKeepsTheirXDP(t *testing.T) {
	k := needBPF(t)
	l := newLab(t)
	l.veth(t, "wan", ownIP+"/24")
	for _, how := range []string{"link", "netlink"} {
		t.Run(how, func(t *testing.T) {
			prog := theirs(t, ebpf.XDP, 2)
			must(t, l.near.Do(func() error {
				if how == "link" {
					x, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: l.ifindex(t, "wan"), Flags: link.XDPDriverMode})
					if err == nil {
						t.Cleanup(func() { x.Close() })
					}
					return err
				}
				nl, err := netlink.LinkByName("wan")
				if err != nil {
					return err
				}
				t.Cleanup(func() { must(t, l.near.Do(func() error { return netlink.LinkSetXdpFd(nl, -1) })) })
				return netlink.LinkSetXdpFdWithFlags(nl, prog.FD(), unix.XDP_FLAGS_DRV_MODE)
			}))
			l.unchanged(t, "wan", func() {
				s, err := Open(k, Options{Netns: l.nearName, WireOnly: true})
				must(t, err)
				if h := hook(s, "wire ingress"); !strings.HasPrefix(h.Why, tcWay(k)+" (XDP: program id") {
					t.Errorf("hook: %+v", h)
				}
				must(t, s.Close())
			})
			l.unchanged(t, "wan", func() {
				_, err := Open(k, Options{Netns: l.nearName, WireOnly: true, Mode: ModeXDP})
				if err == nil || !strings.Contains(err.Error(), "is already on wan and stays there") {
					t.Errorf("error: %v", err)
				}
			})
		})
	}
}

// TestXDPTakenMeanwhile attaches without having seen the other program when planning.
func TestXDPTakenMeanwhile(t *testing.T) {
	k := needBPF(t)
	l := newLab(t)
	l.veth(t, "wan")
	prog := theirs(t, ebpf.XDP, 2)
	must(t, l.near.Do(func() error {
		x, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: l.ifindex(t, "wan"), Flags: link.XDPDriverMode})
		if err == nil {
			t.Cleanup(func() { x.Close() })
		}
		return err
	}))
	p, err := Make(k.Capabilities, []Device{{Name: "wan", Index: l.ifindex(t, "wan"), Up: true}}, Options{WireOnly: true})
	must(t, err)
	w, err := loadWire(p, &kernelTypes{})
	must(t, err)
	defer w.close()
	must(t, l.near.Do(func() error {
		c, with, why := w.attach(p.Wire[0])
		if c == nil {
			return fmt.Errorf("not attached, because %q", why)
		}
		if string(with.Way) != tcWay(k) || !strings.Contains(strings.Join(why, "\n"), "another XDP program is already on wan") {
			t.Errorf("attached by %+v, because %q", with, why)
		}
		return c.Close()
	}))
}

// TestObservesBeforeTheirTCX has somebody else drop every packet on both sides.
func TestObservesBeforeTheirTCX(t *testing.T) {
	k := needBPF(t)
	if refused(k.Capabilities.TCX) {
		t.Skipf("this kernel is too old: %v", k.Capabilities.TCX)
	}
	l := newLab(t)
	l.veth(t, "wan", ownIP+"/24")
	drop := theirs(t, ebpf.SchedCLS, 2) // TC_ACT_SHOT
	for _, attach := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		must(t, l.near.Do(func() error {
			x, err := link.AttachTCX(link.TCXOptions{Program: drop, Interface: l.ifindex(t, "wan"), Attach: attach, Anchor: link.Head()})
			if err == nil {
				t.Cleanup(func() { x.Close() })
			}
			return err
		}))
	}
	l.unchanged(t, "wan", func() {
		s, err := Open(k, Options{Netns: l.nearName, WireOnly: true, Mode: ModeTC})
		must(t, err)
		during := l.state(t, "wan")
		info, err := drop.Info()
		must(t, err)
		id, _ := info.ID()
		for _, ids := range [][]ebpf.ProgramID{during.TCXIn, during.TCXOut} {
			if len(ids) != 2 || ids[1] != id {
				t.Errorf("tcx programs %v, want ours before %d", ids, id)
			}
		}
		r := openReader(t, s, reader.Options{})
		in, out := openWire(t, l.far, "far-wan"), openWire(t, l.near, "wan")
		for seq := uint32(1); seq <= 50; seq++ {
			in.send(t, esp(peerIP, ownIP, 7, seq))
			// Dropped, of which the sender is told.
			if err := out.try(esp(ownIP, peerIP, 8, seq)); !errors.Is(err, unix.ENOBUFS) {
				t.Fatalf("send: %v, want it dropped", err)
			}
		}
		snap := settle(t, r, 100)
		for _, k := range []ledger.SAKey{key(7, ledger.In), key(8, ledger.Out)} {
			if w := find(snap, k); w.Unique != 50 {
				t.Errorf("%v: %+v", k, figuresOf(w))
			}
		}
		must(t, s.Close())
	})
}

// TestClsactLeavesNothing uses a device without clsact, one with an empty clsact, and one with a
// filter of somebody else that accepts every packet, so that nothing behind it would see any.
func TestClsactLeavesNothing(t *testing.T) {
	k := *needBPF(t)
	k.Capabilities.TCX = errNo
	accept := theirs(t, ebpf.SchedCLS, 0) // TC_ACT_OK
	for _, tc := range []string{"none", "empty", "filter"} {
		t.Run(tc, func(t *testing.T) {
			l := newLab(t)
			l.veth(t, "wan", ownIP+"/24")
			index := l.ifindex(t, "wan")
			must(t, l.near.Do(func() error {
				if tc == "none" {
					return nil
				}
				q := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
					LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
				}}
				if err := netlink.QdiscAdd(q); err != nil || tc == "empty" {
					return err
				}
				return netlink.FilterAdd(&netlink.BpfFilter{
					FilterAttrs: netlink.FilterAttrs{
						LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Priority: 1, Handle: 1, Protocol: unix.ETH_P_ALL,
					},
					Fd: accept.FD(), Name: "theirs", DirectAction: true,
				})
			}))
			l.unchanged(t, "wan", func() {
				s, err := Open(&k, Options{Netns: l.nearName, WireOnly: true, Mode: ModeTC})
				must(t, err)
				r := openReader(t, s, reader.Options{})
				in := openWire(t, l.far, "far-wan")
				for seq := uint32(1); seq <= 50; seq++ {
					in.send(t, esp(peerIP, ownIP, 7, seq))
				}
				if w := find(settle(t, r, 50), key(7, ledger.In)); w.Unique != 50 {
					t.Errorf("counted %+v", figuresOf(w))
				}
				must(t, s.Close())
				must(t, s.Close()) // again: nothing left to do
			})
		})
	}
}

// TestTwoSets observes one device twice at once; each counts everything.
func TestTwoSets(t *testing.T) {
	k := needBPF(t)
	for _, name := range []string{"XDP, then TC", "links", "clsact"} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.veth(t, "wan", ownIP+"/24")
			k := *k
			k.Capabilities.GROHidesESP = name == "XDP, then TC" // veth is observed at TC otherwise
			old := name == "clsact"
			if old {
				k.Capabilities.TCX, k.Capabilities.XDPLink = errNo, errNo
			}
			want := l.state(t, "wan")
			// The first set, which made the qdisc, must leave it to the second, to which it is not
			// its own: an empty one remains.
			want.Clsact = old || refused(k.Capabilities.TCX)
			twoSets(t, l, &k)
			if diff := cmp.Diff(want, l.state(t, "wan")); diff != "" {
				t.Errorf("left behind (-want +got):\n%s", diff)
			}
		})
	}
}

func twoSets(t *testing.T, l *lab, k *Kernel) {
	var sets []*Set
	var readers []*reader.Reader
	for range 2 {
		s, err := Open(k, Options{Netns: l.nearName, WireOnly: true})
		must(t, err)
		sets, readers = append(sets, s), append(readers, openReader(t, s, reader.Options{}))
	}
	in := openWire(t, l.far, "far-wan")
	for seq := uint32(1); seq <= 50; seq++ {
		in.send(t, esp(peerIP, ownIP, 7, seq))
	}
	for i, r := range readers {
		if w := find(settle(t, r, 50), key(7, ledger.In)); w.Unique != 50 {
			t.Errorf("set %d counted %+v", i, figuresOf(w))
		}
	}
	must(t, sets[0].Close())
	must(t, sets[1].Close())
}

func TestAbsentInterface(t *testing.T) {
	k := needBPF(t)
	l := newLab(t)
	l.veth(t, "wan")
	_, err := Open(k, Options{Netns: l.nearName, Interfaces: []string{"eth77"}})
	if err == nil || !strings.Contains(err.Error(), `there is no "eth77" here; there are lo, wan`) {
		t.Errorf("error: %v", err)
	}
	_, err = Open(k, Options{Netns: "no-such-namespace"})
	if err == nil || !strings.Contains(err.Error(), l.nearName) {
		t.Errorf("error: %v", err)
	}
}
