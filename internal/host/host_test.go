// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/netns"
)

// inside makes a namespace with two veth ends, small queues between them, and opens it.
func inside(t *testing.T) *netns.Handle {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("this test needs root, and CI has to give it")
		}
		t.Skip("needs root")
	}
	name := fmt.Sprintf("xsh-%d", os.Getpid())
	errs := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the thread stays in the new namespace and ends with this goroutine
		h, err := vnetns.NewNamed(name)
		if err == nil {
			err = h.Close()
		}
		errs <- err
	}()
	if err := <-errs; err != nil {
		t.Fatalf("make namespace: %v", err)
	}
	t.Cleanup(func() {
		if err := vnetns.DeleteNamed(name); err != nil {
			t.Errorf("delete namespace: %v", err)
		}
	})
	h, err := netns.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("close namespace: %v", err)
		}
	})
	if err := h.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.NumTxQueues, attrs.NumRxQueues, attrs.TxQLen = "left", 2, 3, 7
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "right"}); err != nil {
			return err
		}
		left, err := netlink.LinkByName("left")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMTU(left, 1400); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(left); err != nil {
			return err
		}
		return os.WriteFile("/proc/sys/net/ipv4/ip_no_pmtu_disc", []byte("2"), 0)
	}); err != nil {
		t.Fatal(err)
	}
	return h
}

// TestReadsTheNamespaceItWasGiven changes a namespace and expects to read just that.
func TestReadsTheNamespaceItWasGiven(t *testing.T) {
	s := Open(inside(t))
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	h, err := s.Read()
	if err != nil {
		t.Fatal(err)
	}
	if len(h.Notes) != 0 {
		t.Errorf("not everything was readable: %q", h.Notes)
	}
	for name, want := range map[string]string{
		"net/ipv4/ip_no_pmtu_disc": "2", "net/ipv4/conf/left/rp_filter": h.Sysctls["net/ipv4/conf/default/rp_filter"],
		"net/core/xfrm_acq_expires": "30",
	} {
		if got := h.Sysctls[name]; got != want || got == "" {
			t.Errorf("sysctl %s is %q, want %q", name, got, want)
		}
	}
	if h.Sysctls["net/core/netdev_max_backlog"] == "" {
		t.Error("netdev_max_backlog, which holds for the whole machine, is missing")
	}
	for _, name := range []string{"Ip.ReasmFails", "Udp.RcvbufErrors", "TcpExt.TCPToZeroWindowAdv"} {
		if _, ok := h.Snmp[name]; !ok {
			t.Errorf("counter %s is missing", name)
		}
	}
	var names []string
	for _, l := range h.Links {
		names = append(names, l.Name)
	}
	slices.Sort(names)
	if want := []string{"left", "lo", "right"}; !slices.Equal(names, want) {
		t.Fatalf("devices %q, want %q", names, want)
	}
	left := h.Links[slices.IndexFunc(h.Links, func(l ledger.Link) bool { return l.Name == "left" })]
	if left.Kind != "veth" || left.Driver != "veth" || left.MTU != 1400 || !left.Up || left.TxQueue != 7 || left.TxQueues != 2 || left.RxQueues != 3 {
		t.Errorf("device: %+v", left)
	}
	if len(left.RPS) != 3 {
		t.Errorf("RPS masks of %d queues, want 3: %q", len(left.RPS), left.RPS)
	}
	if _, ok := left.Features["rx-gro"]; !ok {
		t.Errorf("features: %v", left.Features)
	}
	if _, ok := left.Counters["rx_missed_errors"]; !ok {
		t.Errorf("counters: %v", left.Counters)
	}
	if len(left.Qdiscs) == 0 {
		t.Error("no queueing discipline on a device that is up")
	}
	if len(h.CPUs) < runtime.NumCPU() || h.CPUs[0].Total == 0 || h.CPUs[0].Processed == 0 {
		t.Errorf("CPUs: %+v", h.CPUs)
	}
}

// TestSettingsAreAskedForAgain changes a device during a run, as who follows a remedy does.
func TestSettingsAreAskedForAgain(t *testing.T) {
	s := Open(inside(t))
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	gro := func() (on bool, index int) {
		t.Helper()
		h, err := s.Read()
		if err != nil {
			t.Fatal(err)
		}
		left := h.Links[slices.IndexFunc(h.Links, func(l ledger.Link) bool { return l.Name == "left" })]
		return left.Features["rx-gro"], left.Index
	}
	before, index := gro()
	if err := s.tool.Change("left", map[string]bool{"rx-gro": !before}); err != nil {
		t.Fatal(err)
	}
	old := s.settings[index]
	old.asked = old.asked.Add(-askAgain)
	s.settings[index] = old
	if after, _ := gro(); after == before {
		t.Errorf("rx-gro is still %v", after)
	}
}
