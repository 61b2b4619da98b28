// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/netns"
	"xfrmscope/internal/reader"
)

// TestHundredThousand sends 100,000 packets over a veth pair and expects each of them counted once.
func TestHundredThousand(t *testing.T) {
	needBPF(t)
	l := newLab(t)
	l.veth(t, "wan", ownIP+"/24")
	s := openSet(t, l, Options{WireOnly: true, RunTimeStats: true, Mode: ModeXDP})
	r := openReader(t, s, reader.Options{})
	in := openWire(t, l.far, "far-wan")
	const packets = 100_000
	frame := esp(peerIP, ownIP, 7, 0)
	for seq := uint32(1); seq <= packets; seq++ {
		frame[38], frame[39], frame[40], frame[41] = byte(seq>>24), byte(seq>>16), byte(seq>>8), byte(seq)
		in.send(t, frame)
		if seq%128 == 0 {
			time.Sleep(200 * time.Microsecond) // veth holds 256 frames and drops the rest unsaid
		}
	}
	snap := settle(t, r, packets)
	w := find(snap, key(7, ledger.In))
	want := figures{Packets: packets, Bytes: packets * ipBytes, First: 1, Highest: packets, Span: packets, Unique: packets}
	if got := figuresOf(w); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if snap.Self.RecursionMisses != 0 || len(snap.Self.Lost) != 0 {
		t.Errorf("self: %+v", snap.Self)
	}
	if n := snap.Self.Runs["xdp_ingress"]; n < packets {
		t.Errorf("runs of xdp_ingress: %d for %d packets", n, packets)
	}
	if b := snap.Self.MapBytes; b == nil || *b < ringBytes(t, s) {
		t.Errorf("memory of all maps: %v, of which the ring alone has %d", b, ringBytes(t, s))
	}
	if ns := snap.Self.NsPerRun["xdp_ingress"]; ns <= 0 {
		t.Errorf("run time of xdp_ingress: %v ns", ns)
	}
	t.Logf("self: %+v", snap.Self)
}

// TestDevicesWithoutLinkHeader sends through a TUN device, whose packets begin with the IP header.
func TestDevicesWithoutLinkHeader(t *testing.T) {
	for _, old := range []bool{false, true} {
		t.Run(fmt.Sprintf("old-%v", old), func(t *testing.T) {
			k := *needBPF(t)
			if old {
				k.Capabilities.TCX = errNo
			}
			l := newLab(t)
			tun := openTun(t, l.near, "tun7")
			s, err := Open(&k, Options{Netns: l.nearName, Interfaces: []string{"tun7"}, WireOnly: true})
			must(t, err)
			defer func() { must(t, s.Close()) }()
			r := openReader(t, s, reader.Options{})
			out := openWire(t, l.near, "tun7")
			for seq := uint32(1); seq <= 20; seq++ {
				_, err := tun.Write(esp(peerIP, ownIP, 7, seq)[14:])
				must(t, err)
				out.send(t, esp(ownIP, peerIP, 8, seq)[14:])
			}
			snap := settle(t, r, 40)
			for _, k := range []ledger.SAKey{key(7, ledger.In), key(8, ledger.Out)} {
				if w := find(snap, k); w.Unique != 20 || w.Bytes != 20*ipBytes {
					t.Errorf("%v: %+v of %+v", k, figuresOf(w), snap.Packets)
				}
			}
		})
	}
}

func openTun(t testing.TB, ns *netns.Handle, name string) *os.File {
	t.Helper()
	var f *os.File
	must(t, ns.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), name)
		return quietUp(name, nil)
	}))
	t.Cleanup(func() { f.Close() })
	return f
}

// TestDropsWhatTheKernelRefuses loads good programs around one that the verifier rejects.
func TestDropsWhatTheKernelRefuses(t *testing.T) {
	needBPF(t)
	prog := func(name string, ins ...asm.Instruction) *ebpf.ProgramSpec {
		return &ebpf.ProgramSpec{Name: name, Type: ebpf.XDP, License: "GPL", Instructions: append(ins, asm.Return())}
	}
	good := func(name string) *ebpf.ProgramSpec { return prog(name, asm.Mov.Imm(asm.R0, 2)) }
	spec := &ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{
		"first": good("first"), "bad": prog("bad" /* R0 is not set */), "last": good("last"),
	}}
	coll, dropped, err := loadDropping(spec, ebpf.CollectionOptions{})
	must(t, err)
	defer coll.Close()
	if len(coll.Programs) != 2 || len(dropped) != 1 {
		t.Fatalf("loaded %v, dropped %v", coll.Programs, dropped)
	}
	var ve *ebpf.VerifierError
	if !errors.As(dropped["bad"], &ve) {
		t.Errorf("reason: %v", dropped["bad"])
	}
	_, dropped, err = loadDropping(&ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{"bad": prog("bad")}}, ebpf.CollectionOptions{})
	if err == nil || len(dropped) != 1 || !strings.Contains(err.Error(), "refuses every program") {
		t.Errorf("nothing left: %v, %v", dropped, err)
	}
}

// TestSkippedHooksSayWhyAndWhatItCosts opens everything; what this kernel declines has to say so.
func TestSkippedHooksSayWhyAndWhatItCosts(t *testing.T) {
	needBPF(t)
	l := newLab(t)
	l.veth(t, "wan", ownIP+"/24")
	s := openSet(t, l, Options{})
	if plan := s.Plan(); len(s.Hooks()) != 2+1+len(audits)+len(plan.Objects) || len(plan.Objects) == 0 {
		t.Errorf("%d hooks: %+v", len(s.Hooks()), s.Hooks())
	}
	for _, h := range s.Hooks() {
		t.Logf("%+v", h)
		if h.Why == "" || !h.Attached && h.Costs == "" {
			t.Errorf("%s: %+v", h.Name, h)
		}
	}
	src, err := s.Source()
	must(t, err)
	if hook(s, kfreeName).Attached != (src.Stack != nil) {
		t.Errorf("kfree_skb: %+v, stack maps %v", hook(s, kfreeName), src.Stack)
	}
	snap := settle(t, openReader(t, s, reader.Options{}), 0)
	if src.Stack != nil && (snap.Stack == nil || snap.Unknown == nil || snap.Residue == nil) {
		t.Errorf("attached, but not in the snapshot: %+v", snap)
	}
	must(t, s.Detach())
	must(t, s.Detach())
	// What was counted can still be read.
	settle(t, openReader(t, s, reader.Options{}), 0)
	if _, err := net.InterfaceByName("wan"); err == nil {
		t.Error("the test left its namespace")
	}
}

// TestDevices reads what the kernel says of the lab's devices.
func TestDevices(t *testing.T) {
	needBPF(t)
	l := newLab(t)
	l.veth(t, "wan", ownIP+"/24")
	openTun(t, l.near, "tun7")
	must(t, l.near.Do(func() error {
		wan, err := netlink.LinkByName("wan")
		if err != nil {
			return err
		}
		vlan := &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "wan.7", ParentIndex: wan.Attrs().Index}, VlanId: 7}
		err = netlink.LinkAdd(vlan)
		if errors.Is(err, unix.EOPNOTSUPP) {
			t.Log("this kernel has no VLAN devices")
			return nil
		}
		return err
	}))
	var devices []Device
	must(t, l.near.Do(func() (err error) { devices, err = Devices(); return err }))
	got := make(map[string]Device)
	for _, d := range devices {
		got[d.Name] = d
	}
	if d := got["wan"]; d.Kind != "veth" || d.Layer != LayerEthernet || !d.Up || len(d.Lower) != 0 || len(d.Addrs) != 1 || d.Addrs[0].String() != ownIP {
		t.Errorf("wan: %+v", d)
	}
	if d := got["lo"]; !d.Loopback {
		t.Errorf("lo: %+v", d)
	}
	if d := got["tun7"]; d.Layer != LayerIP || !d.Up {
		t.Errorf("tun7: %+v", d)
	}
	if d, ok := got["wan.7"]; ok && (d.Kind != "vlan" || len(d.Lower) != 1 || d.Lower[0] != got["wan"].Index) {
		t.Errorf("wan.7: %+v", d)
	}
}

// ringBytes is the size that the event ring was made with.
func ringBytes(t *testing.T, s *Set) uint64 {
	t.Helper()
	src, err := s.Source()
	if err != nil {
		t.Fatal(err)
	}
	return uint64(src.Events.MaxEntries())
}
