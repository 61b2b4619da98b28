// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"
	"testing"

	"xfrmscope/internal/ledger"
)

// TestHostChecks: a flaw is told as one, and a default is not.
func TestHostChecks(t *testing.T) {
	healthy := map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv4/ip_no_pmtu_disc": "0", "net/core/netdev_max_backlog": "1000",
		"net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/eth0/rp_filter": "2", "net/ipv4/conf/eth0/disable_xfrm": "0",
	}
	device := ledger.Link{Index: 2, Name: "eth0", Kind: "device", Driver: "ixgbe", MTU: 1500, Up: true, RingRx: 4096, RingRxMax: 4096, RxQueues: 8}
	check := func(sysctls map[string]string, d ledger.Link, native bool) map[string]string {
		grim := map[string]string{}
		for _, c := range append(checkSettings(sysctls, []ledger.Link{d}), checkDevice(&d, native)...) {
			if c.State != checkOK {
				grim[c.Name] = c.State
				if c.Why == "" {
					t.Errorf("%s is %s and nobody says why", c.Name, c.State)
				}
			} else if c.Why != "" {
				t.Errorf("%s is fine, but: %s", c.Name, c.Why)
			}
		}
		return grim
	}
	if grim := check(healthy, device, false); len(grim) != 0 {
		t.Errorf("a healthy host has flaws: %v", grim)
	}
	for name, flaw := range map[string]struct {
		sysctl, value, state string
		change               func(*ledger.Link)
		native               bool
	}{
		"net/ipv4/conf/eth0/rp_filter":    {sysctl: "net/ipv4/conf/eth0/rp_filter", value: "1", state: checkWarning},
		"net/ipv4/ip_no_pmtu_disc":        {sysctl: "net/ipv4/ip_no_pmtu_disc", value: "1", state: checkWarning},
		"net/ipv4/conf/eth0/disable_xfrm": {sysctl: "net/ipv4/conf/eth0/disable_xfrm", value: "1", state: checkWarning},
		"net/core/netdev_max_backlog":     {sysctl: "net/core/netdev_max_backlog", value: "10", state: checkWarning},
		"net/ipv4/ip_forward":             {sysctl: "net/ipv4/ip_forward", value: "0", state: checkNote},
		"device eth0":                     {change: func(l *ledger.Link) { l.Up = false }, state: checkWarning},
		"device eth0 receive ring":        {change: func(l *ledger.Link) { l.RingRx = 256 }, state: checkNote},
		"device eth0 rx-lro":              {change: func(l *ledger.Link) { l.Features = map[string]bool{"rx-lro": true} }, state: checkWarning},
		"device eth0 native XDP":          {native: true, state: checkNote},
	} {
		sysctls, d := map[string]string{}, device
		for k, v := range healthy {
			sysctls[k] = v
		}
		if flaw.sysctl != "" {
			sysctls[flaw.sysctl] = flaw.value
		}
		if flaw.change != nil {
			flaw.change(&d)
		}
		grim := check(sysctls, d, flaw.native)
		if len(grim) != 1 || grim[name] != flaw.state {
			t.Errorf("%s: found %v, want it as %s", name, grim, flaw.state)
		}
	}
	// The larger of the two values holds, so conf/all makes a device strict that is not by itself,
	// and a loose one stays loose.
	strict := map[string]string{"net/ipv4/conf/all/rp_filter": "1", "net/ipv4/conf/eth0/rp_filter": "0"}
	if grim := check(strict, device, false); grim["net/ipv4/conf/eth0/rp_filter"] != checkWarning {
		t.Errorf("strict by conf/all: %v", grim)
	}
	strict["net/ipv4/conf/eth0/rp_filter"] = "2"
	if grim := check(strict, device, false); len(grim) != 0 {
		t.Errorf("loose on the device: %v", grim)
	}
	for name, state := range map[string]string{"disable_xfrm": checkWarning, "disable_policy": checkNote} {
		all := map[string]string{"net/ipv4/conf/all/" + name: "1", "net/ipv4/conf/eth0/" + name: "0"}
		if grim := check(all, device, false); grim["net/ipv4/conf/eth0/"+name] != state {
			t.Errorf("%s by conf/all: %v", name, grim)
		}
	}
	if got := describeDevice(&device); !strings.Contains(got, "driver ixgbe") || !strings.Contains(got, "receive queues: 8") {
		t.Errorf("device: %s", got)
	}
}
