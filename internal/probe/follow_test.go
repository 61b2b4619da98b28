// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/netns"
	"xfrmscope/internal/reader"
)

// unplug deletes a device.
func (l *lab) unplug(t testing.TB, name string) {
	t.Helper()
	must(t, l.near.Do(func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	}))
}

// holds waits until both hooks of a device are attached, or neither is.
func holds(t testing.TB, s *Set, device string, want bool) {
	t.Helper()
	var in, out ledger.Hook
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		in, out = hook(s, "wire ingress "+device), hook(s, "wire egress "+device)
		if in.Name != "" && in.Attached == want && out.Attached == want {
			return
		}
	}
	t.Fatalf("want the hooks of %s attached: %v; they are %+v, %+v", device, want, in, out)
}

// exchange sends numbers of an inbound SA and an outbound one through a device.
func (l *lab) exchange(t testing.TB, device string, from, to uint32) {
	t.Helper()
	in, out := openWire(t, l.far, "far-"+device), openWire(t, l.near, device)
	for seq := from; seq <= to; seq++ {
		in.send(t, esp(peerIP, ownIP, 7, seq))
		out.send(t, esp(ownIP, peerIP, 8, seq))
	}
}

// TestDeviceMadeAnew deletes the observed device, which comes back under its name, as a PPPoE session does. What
// passes before and after is in one account, and meanwhile the hooks say that nobody looks.
func TestDeviceMadeAnew(t *testing.T) {
	k := needBPF(t)
	for _, tc := range []struct {
		name  string
		mode  Mode
		named bool
		old   bool
	}{
		{"named", ModeAuto, true, false}, {"chosen", ModeAuto, false, false}, {"XDP", ModeXDP, true, false}, {"TC", ModeTC, true, false}, {"clsact", ModeTC, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := *k
			if tc.old {
				k.Capabilities.TCX = errNo
			}
			l := newLab(t)
			l.veth(t, "wan", ownIP+"/24")
			l.veth(t, "lan")
			o := Options{Netns: l.nearName, WireOnly: true, Mode: tc.mode}
			if tc.named {
				o.Interfaces = []string{"wan"}
			}
			s, err := Open(&k, o)
			must(t, err)
			defer func() { must(t, s.Close()) }()
			f, err := s.Follow()
			must(t, err)
			r := openReader(t, s, reader.Options{})
			for round := range uint32(3) {
				l.exchange(t, "wan", 1+50*round, 50+50*round)
				snap := settle(t, r, uint64(100*(round+1)))
				for _, k := range []ledger.SAKey{key(7, ledger.In), key(8, ledger.Out)} {
					n := uint64(50 * (round + 1))
					if w := find(snap, k); w.Packets != n || w.Unique != n || w.Missing != 0 {
						t.Errorf("round %d, %v: %+v", round, k, figuresOf(w))
					}
				}
				if n := len(s.Hooks()); tc.named && n != 2 {
					t.Errorf("round %d: %d hooks, want two: %+v", round, n, s.Hooks())
				}
				l.unplug(t, "wan")
				holds(t, s, "wan", false)
				if h := hook(s, "wire ingress wan"); !strings.Contains(h.Why, "wan went away at ") || h.Costs == "" {
					t.Errorf("round %d: %+v", round, h)
				}
				l.veth(t, "wan", ownIP+"/24")
				holds(t, s, "wan", true)
			}
			must(t, f.Close())
			// Nobody follows any more: what comes now stays as it is.
			before := l.state(t, "wan")
			l.veth(t, "more")
			if st := l.state(t, "more"); st.XDP != 0 || len(st.TCXIn) != 0 || len(st.FiltersIn) != 0 {
				t.Errorf("attached after the end: %+v", st)
			}
			must(t, s.Detach())
			after := l.state(t, "wan")
			if before.XDP == 0 && len(before.TCXIn) == 0 && len(before.FiltersIn) == 0 || after.XDP != 0 || len(after.TCXIn)+len(after.TCXOut)+len(after.FiltersIn)+len(after.FOut) != 0 || after.Clsact {
				t.Errorf("the device before and after detaching: %+v, %+v", before, after)
			}
		})
	}
}

// TestDevicesCome has devices appear beside the observed ones. Where the user named one, no other is touched; where
// nobody did, each new one is observed, but not one that carries the frames of another.
func TestDevicesCome(t *testing.T) {
	k := needBPF(t)
	for _, named := range []bool{true, false} {
		t.Run(fmt.Sprintf("named=%v", named), func(t *testing.T) {
			l := newLab(t)
			l.veth(t, "wan", ownIP+"/24")
			o := Options{Netns: l.nearName, WireOnly: true}
			if named {
				o.Interfaces = []string{"wan", "wan"}
			}
			s, err := Open(k, o)
			must(t, err)
			defer func() { must(t, s.Close()) }()
			f, err := s.Follow()
			must(t, err)
			defer func() { must(t, f.Close()) }()
			r := openReader(t, s, reader.Options{})
			// Many at once, most of them gone again at once.
			for i := range 40 {
				name := fmt.Sprintf("v%d", i)
				l.veth(t, name)
				if i%4 != 0 {
					l.unplug(t, name)
				}
			}
			// The one that is waited for comes last, so that all before it have been looked at.
			l.unplug(t, "wan")
			holds(t, s, "wan", false)
			l.veth(t, "wan", ownIP+"/24")
			holds(t, s, "wan", true)
			packets := uint64(0)
			for i := range 40 {
				name := fmt.Sprintf("v%d", i)
				if i%4 != 0 {
					continue
				}
				st := l.state(t, name)
				if observed := st.XDP != 0 || len(st.TCXIn) != 0 || len(st.FiltersIn) != 0; observed == named {
					t.Errorf("%s is observed: %v; %+v", name, observed, st)
				}
				if !named {
					holds(t, s, name, true)
					l.exchange(t, name, uint32(1+i), uint32(4+i))
					packets += 4
				}
			}
			l.exchange(t, "wan", 41, 60)
			packets += 20
			snap := settle(t, r, 2*packets)
			for _, k := range []ledger.SAKey{key(7, ledger.In), key(8, ledger.Out)} {
				if w := find(snap, k); w.Packets != packets || w.Duplicates != 0 || w.Missing != 0 {
					t.Errorf("%v: %+v, want %d packets", k, figuresOf(w), packets)
				}
			}
		})
	}
}

// TestNamespaceVanishes deletes the observed namespace's name and all its devices under a reader.
func TestNamespaceVanishes(t *testing.T) {
	needBPF(t)
	l := newLab(t)
	l.veth(t, "wan", ownIP+"/24")
	s := openSet(t, l, Options{WireOnly: true})
	f, err := s.Follow()
	must(t, err)
	r := openReader(t, s, reader.Options{})
	l.exchange(t, "wan", 1, 30)
	settle(t, r, 60)
	must(t, l.near.Do(func() error { // what ip netns del does, but for the name, which the lab deletes at its end
		link, err := netlink.LinkByName("wan")
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	}))
	holds(t, s, "wan", false)
	must(t, r.Sample())
	snap, err := r.Snapshot(context.Background(), nil)
	must(t, err)
	if w := find(snap, key(7, ledger.In)); w.Unique != 30 {
		t.Errorf("after the end: %+v", figuresOf(w))
	}
	must(t, f.Close())
}

// TestDevicesWhileOthersComeAndGo lists devices on a host whose containers come and go all the time. Each list has the
// device that was there throughout, and the hooks of that are never taken away.
func TestDevicesWhileOthersComeAndGo(t *testing.T) {
	k := needBPF(t)
	l := newLab(t)
	pair := func(name string) *netlink.Veth {
		return &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "far-" + name}
	}
	for i := range 70 { // so many that a list takes several messages
		must(t, l.near.Do(func() error {
			return netlink.LinkAdd(pair(fmt.Sprintf("d%d", i)))
		}))
	}
	l.veth(t, "wan", ownIP+"/24")
	s, err := Open(k, Options{Netns: l.nearName, WireOnly: true, Interfaces: []string{"wan"}})
	must(t, err)
	defer func() { must(t, s.Close()) }()
	f, err := s.Follow()
	must(t, err)
	defer func() { must(t, f.Close()) }()
	before := l.state(t, "wan")
	// A handle runs one function at a time, and this one goes on.
	busy, err := netns.Open(l.nearName)
	must(t, err)
	defer func() { must(t, busy.Close()) }()
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- busy.Do(func() error {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return nil
				default:
				}
				link := pair(fmt.Sprintf("e%d", i%7))
				if err := netlink.LinkAdd(link); err != nil {
					return err
				}
				if err := netlink.LinkDel(link); err != nil {
					return err
				}
			}
		})
	}()
	for range 200 {
		var devices []Device
		must(t, l.near.Do(func() (err error) { devices, err = Devices(); return err }))
		if !slices.ContainsFunc(devices, func(d Device) bool { return d.Name == "wan" && len(d.Addrs) == 1 }) {
			t.Fatalf("wan is not in a list of %d devices", len(devices))
		}
		must(t, s.refresh())
	}
	close(stop)
	must(t, <-done)
	if after := l.state(t, "wan"); after.XDP != before.XDP || before.XDP == 0 && len(after.TCXIn)+len(after.FiltersIn) == 0 {
		t.Errorf("the hooks of wan were %+v and are %+v", before, after)
	}
}

// TestNameTakenOver renames the observed device and gives its name to another: the name is what was asked for.
func TestNameTakenOver(t *testing.T) {
	k := needBPF(t)
	l := newLab(t)
	l.veth(t, "wan", ownIP+"/24")
	s, err := Open(k, Options{Netns: l.nearName, WireOnly: true, Interfaces: []string{"wan"}})
	must(t, err)
	defer func() { must(t, s.Close()) }()
	must(t, l.near.Do(func() error {
		link, err := netlink.LinkByName("wan")
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetDown(link), netlink.LinkSetName(link, "old"), netlink.LinkSetUp(link))
	}))
	must(t, l.far.Do(func() error {
		link, err := netlink.LinkByName("far-wan")
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetDown(link), netlink.LinkSetName(link, "far-old"), netlink.LinkSetUp(link))
	}))
	must(t, s.refresh())
	if st := l.state(t, "old"); st.XDP == 0 && len(st.TCXIn)+len(st.FiltersIn) == 0 {
		t.Fatalf("a new name alone has ended the observation: %+v", st)
	}
	l.veth(t, "wan")
	must(t, s.refresh())
	holds(t, s, "wan", true)
	r := openReader(t, s, reader.Options{})
	l.exchange(t, "wan", 1, 20)
	snap := settle(t, r, 40)
	if w := find(snap, key(7, ledger.In)); w.Unique != 20 {
		t.Errorf("on the new device: %+v", figuresOf(w))
	}
	if st := l.state(t, "old"); st.XDP != 0 || len(st.TCXIn)+len(st.TCXOut)+len(st.FiltersIn)+len(st.FOut) != 0 {
		t.Errorf("the old device is still observed: %+v", st)
	}
}
