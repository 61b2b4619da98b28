// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"net/netip"

	"xfrmscope/internal/ledger"
)

// ReceiveWindowFull is a receiver inside the tunnel that takes nothing more while its sender waits.
const ReceiveWindowFull ID = "receive-window-full"

const (
	// stallUS is how long a window may stay at zero without being a fault, in one piece or together.
	// A reader that pauses for a moment, or drains its buffer at the end, is healthy.
	stallUS = 1_000_000
	// stallShare is the part of a connection's time, 1/n, from which on the sum of short ones counts.
	stallShare = 10
)

// stalled says whether the reader kept its sender waiting. Probes prove that there was something to
// wait with: nobody probes a window that he has nothing for.
func stalled(t talk) bool {
	z := &t.reader.Zero
	if t.sender.Probes == 0 {
		return false
	}
	return z.LongestUS >= stallUS || z.TotalUS >= stallUS && z.TotalUS*stallShare >= t.sender.ActiveUS
}

func receiveWindowFull(r *ledger.Report) []Finding {
	type place struct {
		sa     ledger.SAKey
		reader netip.Addr
	}
	var all []talk
	for _, t := range talks(r) {
		if stalled(t) {
			all = append(all, t)
		}
	}
	var out []Finding
	for _, group := range groups(all, func(t talk) place { return place{t.sender.SA.Key(), t.reader.Addr} }) {
		out = append(out, windowFull(r, group))
	}
	return out
}

func windowFull(r *ledger.Report, group []talk) Finding {
	t := worst(group, func(t talk) int64 { return t.reader.Zero.TotalUS })
	z := &t.reader.Zero
	episodes := total(group, func(t talk) int64 { return t.reader.Zero.Episodes })
	f := Finding{
		ID: ReceiveWindowFull, Severity: Warning, Subject: t.subject(),
		Summary: fmt.Sprintf("%s: %s advertised a receive window of zero for %s in all, %s at the longest, while %s waited to send (%s). "+
			"The program there reads too slowly or not at all. %s",
			t.saName(), port(t.reader), seconds(z.TotalUS), seconds(z.LongestUS), port(t.sender), connections(len(group)), notTheTunnel(t)),
		Evidence: []Evidence{
			{"flows.zero_window.episodes", episodes, "episodes", fromInner,
				fmt.Sprintf("by %s, in %s", t.reader.Addr, connections(len(group)))},
			{"flows.zero_window.total", z.TotalUS / 1000, "ms", fromInner, "of the connection " + t.String()},
			{"flows.zero_window.longest", z.LongestUS / 1000, "ms", fromInner, ""},
			{"flows.window_probes", t.sender.Probes, "probes", fromInner, "the sender asked for room: it had data waiting"},
			{"flows.retransmissions", t.sender.Retransmissions, "segments", fromInner,
				fmt.Sprintf("of %d that the sender sent", t.sender.Segments)},
		},
		Remedy: windowFullRemedies(r, t),
	}
	if z.OpenUS > 0 && z.OpenUS >= 5*stallUS || z.TotalUS >= 5*stallUS && 2*z.TotalUS >= t.sender.ActiveUS {
		f.Severity = Critical
	}
	if z.OpenUS > 0 {
		f.Evidence = append(f.Evidence, Evidence{"flows.zero_window.open", z.OpenUS / 1000, "ms", fromInner, "not over when the run ended"})
	}
	if w := t.reader.Window; w != nil {
		note := "the largest that it advertised"
		if w.Scale == nil {
			note += "; the handshake was not seen, so the scale is missing"
		}
		f.Evidence = append(f.Evidence, Evidence{"flows.window.max", w.Max, "bytes", fromInner, note})
	}
	base := witnessed
	if lost, known := t.losses(); known {
		f.Evidence = append(f.Evidence, Evidence{"ledger.lost", lost, "packets", "wire and stack", "of the SA's, in the same time"})
	}
	// The kernel's own counters know the sockets of this host only, all of them together.
	if t.reader.Local && r.Host != nil {
		closed, opened := r.Host.Snmp["TcpExt.TCPToZeroWindowAdv"], r.Host.Snmp["TcpExt.TCPFromZeroWindowAdv"]
		f.Evidence = append(f.Evidence,
			Evidence{"TCPToZeroWindowAdv", closed, "times", "kernel", "all sockets of this host"},
			Evidence{"TCPFromZeroWindowAdv", opened, "times", "kernel", ""},
			Evidence{"TCPWantZeroWindowAdv", r.Host.Snmp["TcpExt.TCPWantZeroWindowAdv"], "times", "kernel", ""},
			Evidence{"TCPZeroWindowDrop", r.Host.Snmp["TcpExt.TCPZeroWindowDrop"], "packets", "kernel", ""})
		// Closed for want of memory it is not counted as closed (tcp_select_window), but when it opens.
		if max(closed, opened) >= episodes {
			base = corroborated
		}
	}
	f.Confidence = sure(base, blurred(r), missed(r))
	return f
}

// notTheTunnel holds the stall against the SA's own losses.
func notTheTunnel(t talk) string {
	lost, known := t.losses()
	switch {
	case known && lost == 0:
		return "The tunnel is not the cause: the SA lost nothing."
	case known:
		return fmt.Sprintf("The SA lost %s besides, which is another fault.", packets(lost))
	}
	return "Whether the SA lost packets besides is not known here."
}

func windowFullRemedies(r *ledger.Report, t talk) []Remedy {
	out := []Remedy{{For: forReceiver,
		Text: fmt.Sprintf("On %s find the program that does not read: Recv-Q stays full. What it waits for (disk, database, lock, CPU) "+
			"is the fault.%s", t.reader.Addr, rmemHere(r, t)),
		Commands: []string{
			fmt.Sprintf("ss -tnpmi 'sport = :%d and dst %s'", t.reader.Port, t.sender.Addr),
			"nstat -az TcpExtTCPToZeroWindowAdv TcpExtTCPFromZeroWindowAdv TcpExtTCPZeroWindowDrop",
		},
	}}
	rate := t.rate()
	rtt, _, whole := t.rtts()
	if rate > 0 && rtt > 0 && t.reader.Window != nil && t.reader.Window.Scale != nil {
		need, bridge := bufferFor(rate, rtt), 2*int64(float64(rate)*float64(t.reader.Zero.LongestUS)/1e6)
		atLeast := ""
		if !whole {
			atLeast = " at least"
		}
		text := fmt.Sprintf("While the window was open %s came, with a round trip of%s %s: a buffer of %s keeps that path full. "+
			"To bridge the longest stall it would take %s for each such connection; that hides the fault, delays everything "+
			"behind it and takes memory (tcp_mem bounds all sockets together). ", speed(rate), atLeast, seconds(rtt), size(need), size(bridge))
		if t.reader.Window.Max*2 >= need {
			out = append(out, Remedy{For: forReceiver, Text: text + "The buffer is large enough already: do not raise it."})
		} else {
			out = append(out, Remedy{For: forReceiver, Text: text + "Let the kernel tune it: a program that sets SO_RCVBUF itself switches that off.",
				Commands: []string{rmem(need)}})
		}
	}
	return append(out, untouched(), windowsPeer())
}
