// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/probe"
)

// hostCheck is one setting of the host that decides what becomes of IPsec traffic.
type hostCheck struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	State string `json:"state"` // ok, note, warning
	Why   string `json:"why,omitempty"`
}

// The states of a check. None of them changes the verdict of doctor, which is about what can be observed.
const (
	checkOK      = "ok"
	checkNote    = "note"
	checkWarning = "warning"
)

// examineHost judges the host's settings.
func examineHost(h ledger.Host, plan probe.Plan) (checks []hostCheck) {
	var devices []ledger.Link
	native := map[string]bool{}
	for _, hook := range plan.Wire {
		i := slices.IndexFunc(h.Links, func(l ledger.Link) bool { return l.Index == hook.Device.Index })
		if i < 0 {
			continue
		}
		if len(hook.Try) > 0 && hook.Try[0].Way == probe.WayXDP {
			native[h.Links[i].Name] = true
		}
		if !slices.ContainsFunc(devices, func(l ledger.Link) bool { return l.Index == h.Links[i].Index }) {
			devices = append(devices, h.Links[i])
		}
	}
	checks = checkSettings(h.Sysctls, devices)
	for i := range devices {
		checks = append(checks, checkDevice(&devices[i], native[devices[i].Name])...)
	}
	return checks
}

// settingRule says what a value of a setting means; without bad it is shown and not judged.
type settingRule struct {
	name string
	bad  func(n int64) bool
	grim string // state when bad
	why  string
}

var settingRules = []settingRule{
	{"net/ipv4/ip_forward", is(0), checkNote, "IPv4 is not forwarded: right for a host's own tunnels, wrong for a gateway"},
	{"net/ipv6/conf/all/forwarding", is(0), checkNote, "IPv6 is not forwarded: right for a host's own tunnels, wrong for a gateway"},
	{"net/ipv4/ip_no_pmtu_disc", isNot(0), checkWarning, "path MTU discovery is off or restricted: fragmentation-needed messages about ESP change nothing"},
	{"net/ipv4/tcp_mtu_probing", is(0), checkNote, "TCP of this host does not find out by itself that large packets vanish; 1 lets it"},
	{"net/core/xfrm_larval_drop", nil, "", ""},
	{"net/core/xfrm_acq_expires", below(2), checkNote, "a negotiation that was asked for is forgotten almost at once"},
	{"net/core/netdev_max_backlog", below(300), checkWarning, "devices without NAPI and RPS lose packets in short bursts; the default is 1000"},
	{"net/core/bpf_jit_enable", is(0), checkWarning, "programs are interpreted: each packet costs several times as much as measured"},
	{"net/ipv4/ipfrag_high_thresh", below(262144), checkWarning, "fragmented ESP is given up for want of room; the default is 4194304 bytes"},
	{"net/ipv4/ipfrag_time", nil, "", ""},
	{"net/core/rmem_max", nil, "", ""},
	{"net/ipv4/tcp_rmem", nil, "", ""},
}

func is(v int64) func(int64) bool    { return func(n int64) bool { return n == v } }
func isNot(v int64) func(int64) bool { return func(n int64) bool { return n != v } }
func below(v int64) func(int64) bool { return func(n int64) bool { return n < v } }

// perDevice are settings of a single device. Kernels of late count the one for all devices as well (IN_DEV_ORCONF).
var perDevice = []settingRule{
	{"disable_xfrm", isNot(0), checkWarning, "what leaves by this device is never encrypted"},
	{"disable_policy", isNot(0), checkNote, "packets of this device pass without the policy that should demand IPsec of them"},
}

func checkSettings(sysctls map[string]string, devices []ledger.Link) []hostCheck {
	var out []hostCheck
	for _, r := range settingRules {
		value, known := sysctls[r.name]
		if !known {
			continue
		}
		c := hostCheck{Name: r.name, Value: value, State: checkOK}
		if n, err := strconv.ParseInt(value, 10, 64); err == nil && r.bad != nil && r.bad(n) {
			c.State, c.Why = r.grim, r.why
		}
		out = append(out, c)
	}
	number := func(name string) int64 {
		n, err := strconv.ParseInt(sysctls[name], 10, 64)
		if err != nil {
			return 0
		}
		return n
	}
	for _, d := range devices {
		conf := "net/ipv4/conf/" + d.Name + "/"
		// The larger of the two holds (IN_DEV_RPFILTER).
		filter := max(number("net/ipv4/conf/all/rp_filter"), number(conf+"rp_filter"))
		c := hostCheck{Name: conf + "rp_filter", Value: strconv.FormatInt(filter, 10), State: checkOK}
		if filter == 1 {
			c.State = checkWarning
			c.Why = "strict, by itself or through conf/all: ESP of peers to which the route leads by another device is dropped; 2 is loose. Decrypted packets are exempt"
		}
		out = append(out, c)
		for _, r := range perDevice {
			const all = "net/ipv4/conf/all/"
			value, known := sysctls[conf+r.name]
			switch {
			case known && r.bad(number(conf+r.name)):
				out = append(out, hostCheck{Name: conf + r.name, Value: value, State: r.grim, Why: r.why})
			case known && r.bad(number(all+r.name)):
				out = append(out, hostCheck{Name: conf + r.name, Value: value, State: r.grim,
					Why: r.why + ", by conf/all, which newer kernels count as well"})
			}
		}
	}
	return out
}

// checkDevice judges the device that carries the SAs.
func checkDevice(d *ledger.Link, native bool) []hostCheck {
	name := "device " + d.Name
	out := []hostCheck{{Name: name, Value: describeDevice(d), State: checkOK}}
	if !d.Up {
		out[0].State, out[0].Why = checkWarning, "it is down"
	}
	if d.RingRxMax > d.RingRx {
		out = append(out, hostCheck{Name: name + " receive ring", Value: fmt.Sprintf("%d of %d", d.RingRx, d.RingRxMax), State: checkNote,
			Why: fmt.Sprintf("if rx_missed_errors rise: ethtool -G %s rx %d", d.Name, d.RingRxMax)})
	}
	if d.Features["rx-lro"] {
		out = append(out, hostCheck{Name: name + " rx-lro", Value: "on", State: checkWarning,
			Why: "a gateway must not merge what it forwards beyond recovery: ethtool -K " + d.Name + " lro off"})
	}
	if native && d.Kind == "device" {
		out = append(out, hostCheck{Name: name + " native XDP", Value: d.Driver, State: checkNote,
			Why: "attaching makes many drivers set up their queues anew, and some take the link down for a moment; --mode tc attaches without it"})
	}
	return out
}

func describeDevice(d *ledger.Link) string {
	parts := []string{d.Kind}
	if d.Driver != "" && d.Driver != d.Kind {
		parts = append(parts, "driver "+d.Driver)
	}
	parts = append(parts, fmt.Sprintf("MTU %d", d.MTU))
	if d.RxQueues > 0 {
		parts = append(parts, fmt.Sprintf("receive queues: %d", d.RxQueues))
	}
	for _, q := range d.Qdiscs {
		if q.Parent == "root" {
			parts = append(parts, "queue "+q.Kind)
		}
	}
	var on []string
	for _, f := range []string{"esp-hw-offload", "tx-esp-segmentation", "rx-gro", "rx-gro-hw", "rx-udp-gro-forwarding"} {
		if d.Features[f] {
			on = append(on, f)
		}
	}
	if len(on) > 0 {
		parts = append(parts, "on: "+strings.Join(on, " "))
	}
	return strings.Join(parts, ", ")
}

func (d *diagnosis) writeHost(b *strings.Builder) {
	if len(d.Host) == 0 {
		return
	}
	b.WriteString("\nHOST\n")
	for _, c := range d.Host {
		fmt.Fprintf(b, "  %-8s  %s = %s\n", c.State, c.Name, c.Value)
		writeDetail(b, "because", c.Why)
	}
}
