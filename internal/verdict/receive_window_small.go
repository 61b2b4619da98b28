// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"net/netip"

	"xfrmscope/internal/ledger"
)

// ReceiveWindowSmall is a receive window that bounds a connection's throughput by window / round trip.
const ReceiveWindowSmall ID = "receive-window-small"

const (
	// smallWindow is what a receiver can advertise without scaling, which none needs to stay below.
	smallWindow = 65535
	// smallSegments is how many segments it takes to call it persistent.
	smallSegments = 100
	// slowRate bounds what is slow: 100 Mbit/s, in bytes.
	slowRate = 100_000_000 / 8
	// longUS is the round trip from which on a window of that size is slow.
	longUS = 5_000
)

// echoesLeast is how many echoes it takes to judge by them.
const echoesLeast = 20

// usedUp says how many of how many looks at the window found it used up. This gateway sees what is in
// flight only where it is near the sender; near the reader the echoed timestamps tell what the sender knew.
func usedUp(t talk) (hits, looks int64, counter string) {
	s := t.sender
	if s.EdgeChecked >= echoesLeast && s.EdgeHit*s.Segments > s.Limited*s.EdgeChecked {
		return s.EdgeHit, s.EdgeChecked, "flows.edge_hit"
	}
	return s.Limited, s.Segments, "flows.window_limited"
}

// bounded says whether the window, and nothing else, bounds the talk: at least half of the time it was
// used up, and the round trip did not grow, so that no queue on the way was full.
func bounded(t talk) bool {
	w, s := t.reader.Window, t.sender
	if w == nil || w.Scale == nil || w.Max > smallWindow || s.Segments < smallSegments {
		return false
	}
	least, mean, _ := t.rtts()
	hits, looks, _ := usedUp(t)
	return !stalled(t) && t.reader.Zero.TotalUS*stallShare < s.ActiveUS &&
		2*hits >= looks && mean < 2*least && least >= longUS && ceiling(w.Max, least) <= slowRate
}

// ceiling is the most that a window lets through, bytes per second.
func ceiling(window, rttUS int64) int64 { return int64(float64(window) / float64(rttUS) * 1e6) }

func receiveWindowSmall(r *ledger.Report) []Finding {
	type place struct {
		sa     ledger.SAKey
		reader netip.Addr
	}
	var all []talk
	for _, t := range talks(r) {
		if bounded(t) {
			all = append(all, t)
		}
	}
	var out []Finding
	for _, group := range groups(all, func(t talk) place { return place{t.sender.SA.Key(), t.reader.Addr} }) {
		t := worst(group, func(t talk) int64 { return t.sender.PayloadBytes })
		rtt, mean, whole := t.rtts()
		hits, looks, counter := usedUp(t)
		window := t.reader.Window
		least := ""
		if !whole {
			least = "at least "
		}
		most := ceiling(window.Max, rtt)
		out = append(out, Finding{
			ID: ReceiveWindowSmall, Severity: Warning, Subject: t.subject(),
			Confidence: sure(witnessed, blurred(r), missed(r), !whole),
			Summary: fmt.Sprintf("%s: the receive window of %s never opened beyond %s. With a round trip of %s%s that lets through %s at most, "+
				"and the sender %s had used it up in %s of the looks at it (%s). The path was not full.",
				t.saName(), port(t.reader), size(window.Max), least, seconds(rtt), speed(most), port(t.sender),
				share(hits, looks), connections(len(group))),
			Evidence: []Evidence{
				{"flows.window.max", window.Max, "bytes", fromInner, fmt.Sprintf("scale %d", *window.Scale)},
				{counter, hits, "times", fromInner,
					fmt.Sprintf("of %d left the sender no room for one more segment", looks)},
				{"flows.in_flight_max", t.sender.InFlightMax, "bytes", fromInner, "sent and not acknowledged"},
				{"flows.rtt.min", rtt, "µs", fromInner, "from end to end, both halves as seen here"},
				{"flows.rtt.mean", mean, "µs", fromInner, "it did not grow, so no queue was full"},
				{"flows.rate", t.rate(), "bytes/s", fromInner, "payload, over the connection's whole time"},
			},
			Remedy: smallRemedies(r, t, rtt),
		})
	}
	return out
}

func smallRemedies(r *ledger.Report, t talk, rtt int64) []Remedy {
	const mbit = 1_000_000 / 8
	scaling := ""
	if *t.reader.Window.Scale == 0 {
		scaling = " The window is not scaled: either end has window scaling off, or the program set a small buffer before it connected."
	}
	full := bufferFor(100*mbit, rtt)
	return []Remedy{
		{For: forReceiver,
			Text: fmt.Sprintf("The buffer to set is the bandwidth-delay product, twice since half of it is window: for this round trip %s "+
				"at 10 Mbit/s, %s at 100 Mbit/s, %s at 1 Gbit/s.%s%s Best let the kernel tune it: take SO_RCVBUF (and the like: "+
				"rmem settings of the program) out, and allow enough.",
				size(bufferFor(10*mbit, rtt)), size(full), size(bufferFor(1000*mbit, rtt)), scaling, rmemHere(r, t)),
			Commands: []string{
				fmt.Sprintf("ss -tnmi 'sport = :%d'   # skmem rb…: the buffer; wscale", t.reader.Port),
				"sysctl -w net.ipv4.tcp_window_scaling=1 net.ipv4.tcp_moderate_rcvbuf=1",
				rmem(full),
			}},
		{For: forReceiver,
			Text: "Do not set more than the path can carry: what exceeds it fills a queue on the way, which delays all connections " +
				"through it, and each socket may take the whole of it from tcp_mem."},
		{For: forSender,
			Text:     "A sender needs the same room for what is not acknowledged.",
			Commands: []string{fmt.Sprintf(`sysctl -w net.ipv4.tcp_wmem="4096 16384 %d"`, full)}},
		untouched(),
		windowsPeer(),
	}
}
