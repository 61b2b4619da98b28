// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strconv"
	"strings"

	"xfrmscope/internal/ledger"
)

// Kinds of findings about this host's settings.
const (
	ConfigPMTUDiscoveryOff ID = "config-pmtu-discovery-off"
	ConfigMTU              ID = "config-mtu-mss"
	ConfigSocketBuffers    ID = "config-socket-buffers"
)

// configPMTUDiscoveryOff: ip_no_pmtu_disc 1 sends without DF, 2 ignores what routers ask for as well;
// 3 merely checks it harder.
func configPMTUDiscoveryOff(r *ledger.Report) []Finding {
	if r.Host == nil || len(alive(r)) == 0 {
		return nil
	}
	const name = "net/ipv4/ip_no_pmtu_disc"
	means := map[string]string{
		"1": "this host sends its own packets without DF, so that routers fragment them",
		"2": "this host sends its own packets without DF and ignores what routers say of the path's MTU, for ESP, too",
	}[r.Host.Sysctls[name]]
	if means == "" {
		return nil
	}
	value, _ := strconv.ParseInt(r.Host.Sysctls[name], 10, 64)
	return []Finding{{
		ID: ConfigPMTUDiscoveryOff, Severity: Info, Confidence: sure(configured),
		Summary:  fmt.Sprintf("net.ipv4.ip_no_pmtu_disc is %d: %s.", value, means),
		Evidence: []Evidence{{"net.ipv4.ip_no_pmtu_disc", value, "setting", "sysctl", ""}},
		Remedy: []Remedy{
			{For: forHost, Text: "Let the path's MTU be discovered; where ICMP is filtered, let TCP probe for it.",
				Commands: []string{"sysctl -w net.ipv4.ip_no_pmtu_disc=0", "sysctl -w net.ipv4.tcp_mtu_probing=1"}},
			{For: forStrongSwan, Text: "Nothing in the IKE configuration makes up for it."},
		},
	}}
}

// Limits beyond which buffers are judged. A window of 512 KiB carries 84 Mbit/s over 50 ms; 256 MiB
// per socket is what a few hundred connections of one client can pin. The kernel's defaults lie far
// inside.
const (
	tcpBufferLeast    = 512 << 10
	tcpBufferMost     = 256 << 20
	tcpBufferStart    = 4 << 20 // the middle value: what every socket begins with
	socketBufferMost  = 512 << 20
	backlogLeast      = 300
	backlogMost       = 100000
	backlogPacketTime = 1000 // packets that a slow CPU handles in a millisecond
)

func configSocketBuffers(r *ledger.Report) []Finding {
	if r.Host == nil || len(alive(r)) == 0 {
		return nil
	}
	var e []Evidence
	var wrong, set []string
	say := func(name string, value int64, unit, text string, good int64) {
		dotted := strings.ReplaceAll(name, "/", ".")
		e = append(e, Evidence{dotted, value, unit, "sysctl", text})
		wrong = append(wrong, fmt.Sprintf("%s is %d (%s)", dotted, value, text))
		set = append(set, fmt.Sprintf("sysctl -w %s=%d", dotted, good))
	}
	for _, kernels := range [][2]string{{"net/ipv4/tcp_rmem", "4096 131072 6291456"}, {"net/ipv4/tcp_wmem", "4096 16384 4194304"}} {
		name, usual := kernels[0], kernels[1]
		three := numbers(r.Host.Sysctls[name])
		if len(three) != 3 {
			continue
		}
		dotted := strings.ReplaceAll(name, "/", ".")
		tell := func(value int64, text string) {
			e = append(e, Evidence{dotted, value, "bytes", "sysctl", text})
			wrong = append(wrong, fmt.Sprintf("%s has %d (%s)", dotted, value, text))
			set = append(set, fmt.Sprintf("sysctl -w %s=%q", dotted, usual))
		}
		switch {
		case three[2] < tcpBufferLeast && !starved(r):
			tell(three[2], fmt.Sprintf("at most: %d Mbit/s over 50 ms", three[2]*8*20/1000000))
		case three[2] > tcpBufferMost:
			tell(three[2], "at most: one peer can pin that much memory with each connection, and delay grows with what waits")
		case three[1] > tcpBufferStart:
			tell(three[1], "to begin with: every connection takes it, used or not")
		}
	}
	for _, name := range []string{"net/core/rmem_max", "net/core/wmem_max"} {
		if v := numbers(r.Host.Sysctls[name]); len(v) == 1 && v[0] > socketBufferMost {
			say(name, v[0], "bytes", "at most: any program may pin that much memory", 8<<20)
		}
	}
	if v := numbers(r.Host.Sysctls["net/core/netdev_max_backlog"]); len(v) == 1 && !overflowed(r) {
		switch {
		case v[0] < backlogLeast:
			say("net/core/netdev_max_backlog", v[0], "packets", "less than a burst of a fast card: packets handed over by RPS or a tunnel are dropped", 2000)
		case v[0] > backlogMost:
			say("net/core/netdev_max_backlog", v[0], "packets", fmt.Sprintf("up to %d ms of delay before anything is dropped", v[0]/backlogPacketTime), 5000)
		}
	}
	if len(e) == 0 {
		return nil
	}
	return []Finding{{
		ID: ConfigSocketBuffers, Severity: Info, Confidence: sure(configured),
		Summary: "Buffers of this host are out of proportion: " + strings.Join(wrong, "; ") + ".", Evidence: e,
		Remedy: []Remedy{{For: forHost, Text: "A buffer should hold the bandwidth-delay product of the fastest flow, and not much more: " +
			"what is larger turns into delay and memory that strangers can take.", Commands: set}},
	}}
}

// starved says whether some flow inside a tunnel had its window closed: that finding computes the
// buffer to set.
func starved(r *ledger.Report) bool {
	return len(receiveWindowFull(r))+len(receiveWindowSmall(r)) > 0
}

// overflowed says whether a CPU's queue ran over during the run: that has a finding of its own.
func overflowed(r *ledger.Report) bool {
	for _, c := range r.Host.CPUs {
		if c.Dropped > 0 {
			return true
		}
	}
	return false
}

func numbers(s string) (out []int64) {
	for field := range strings.FieldsSeq(s) {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return nil
		}
		out = append(out, n)
	}
	return out
}
