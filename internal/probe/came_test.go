// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/netns"
)

// TestCameTogether: a device and one above it that carries its frames were both named and come at the same time, as
// when a driver is loaded again. Their packets must not be counted twice.
func TestCameTogether(t *testing.T) {
	eth := Device{Name: "eth0", Index: 5, Kind: "device", Up: true}
	vlan := Device{Name: "eth0.7", Index: 6, Kind: "vlan", Up: true, Lower: []int{5}}
	other := Device{Name: "eth1", Index: 7, Kind: "device", Up: true}
	s := &Set{plan: Plan{Options: Options{Interfaces: []string{"eth0.7", "eth0", "eth1"}}}}
	for _, devices := range [][]Device{{eth, vlan, other}, {vlan, other, eth}} {
		var names []string
		for _, d := range s.came(devices) {
			names = append(names, d.Name)
		}
		if got := strings.Join(names, " "); strings.Contains(got, "eth0.7") || len(names) != 2 {
			t.Errorf("to be observed: %s, want eth0 and eth1", got)
		}
	}
}

type closing struct{ closed *int }

func (c closing) Close() error { *c.closed++; return nil }

// TestNothingIsKeptOfWhatCameAndWent: of a planned device that is gone the hooks say so, one that had only come
// meanwhile leaves nothing behind, and the hooks of the others stay theirs.
func TestNothingIsKeptOfWhatCameAndWent(t *testing.T) {
	s, closed := &Set{}, 0
	name := func(d Device) string { return "wire ingress " + d.Name }
	attach := func(index int, later bool) Device {
		d := Device{Name: fmt.Sprintf("v%d", index), Index: index, Up: true}
		h := Hook{Name: name(d), Device: d, Costs: "much"}
		s.plan.Wire = append(s.plan.Wire, h)
		s.addWire(h, closing{&closed}, Candidate{Way: WayXDP}, nil, false).later = later
		return d
	}
	planned := attach(1, false)
	s.add(Hook{Name: "kfree_skb"}, closing{&closed}, Candidate{Way: WayRawTP}, nil)
	stays := attach(2, false)
	for i := 10; i < 60; i += 2 {
		attach(i, true)
		last := attach(i+1, true)
		s.letGo([]Device{planned, stays, last})
		s.letGo([]Device{planned, stays})
	}
	came := attach(100, true)
	s.letGo([]Device{stays, came})
	if closed != 51 {
		t.Errorf("%d hooks were closed, want 51", closed)
	}
	var hooks, plan []string
	for _, h := range s.Hooks() {
		hooks = append(hooks, fmt.Sprintf("%s %v", h.Name, h.Attached))
	}
	for _, h := range s.Plan().Wire {
		plan = append(plan, h.Name)
	}
	if diff := cmp.Diff([]string{"wire ingress v1 false", "kfree_skb true", "wire ingress v2 true", "wire ingress v100 true"}, hooks); diff != "" {
		t.Errorf("hooks (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"wire ingress v1", "wire ingress v2", "wire ingress v100"}, plan); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	for _, w := range s.wireHooks {
		if s.hooks[w.hook].Name != w.plan.Name {
			t.Errorf("the hook of %s is %+v", w.plan.Name, s.hooks[w.hook])
		}
	}
}

// TestFollowingEnds: where the kernel's announcements are heard no more, the hooks say so.
func TestFollowingEnds(t *testing.T) {
	needBPF(t)
	ns, err := netns.Open("")
	must(t, err)
	defer func() { must(t, ns.Close()) }()
	s := &Set{ns: ns}
	c, err := s.Follow()
	must(t, err)
	f := c.(*follower)
	must(t, f.conn.Close())
	<-f.done
	if h := s.Hooks(); len(h) != 1 || h[0].Name != FollowHook || h[0].Attached || h[0].Why == "" || h[0].Costs == "" {
		t.Errorf("hooks: %+v", h)
	}
}
