// SPDX-License-Identifier: Apache-2.0

package report

import (
	"slices"
	"time"

	"xfrmscope/internal/ledger"
)

// Series is how the ledgers of some SAs grew during a run, for plots.
type Series struct {
	From, To time.Time
	Tracks   []Track
}

// Track is one SA over time.
type Track struct {
	Key    ledger.SAKey
	Points []Point
	last   map[string]int64
	begun  bool
}

// Point is what happened to an SA's packets since the point before.
type Point struct {
	At      time.Time
	Packets int64 // seen on the wire
	Lost    map[string]int64
}

// plotted is how many SAs have plots of their own.
const plotted = 8

// Worth lists the SAs whose course is worth a plot: those that lost most, and of a run without loss those that
// carried most.
func (d *Document) Worth() []ledger.SAKey {
	type candidate struct {
		key            ledger.SAKey
		lost, arrivals int64
	}
	var all []candidate
	for i := range d.SAs {
		sa := &d.SAs[i]
		c := candidate{key: keyOf(sa)}
		for _, n := range lostBins(sa) {
			c.lost += max(n, -n)
		}
		if sa.Wire != nil {
			c.arrivals = sa.Wire.Packets
		}
		if c.lost != 0 || c.arrivals != 0 {
			all = append(all, c)
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int {
		if a.lost != b.lost {
			return int(min(1, max(-1, b.lost-a.lost)))
		}
		return int(min(1, max(-1, b.arrivals-a.arrivals)))
	})
	if len(all) > plotted {
		all = all[:plotted]
	}
	keys := make([]ledger.SAKey, len(all))
	for i, c := range all {
		keys[i] = c.key
	}
	return keys
}

func keyOf(sa *ledger.SA) ledger.SAKey {
	return ledger.SAKey{Dst: sa.Dst, SPI: sa.SPI, Proto: sa.Proto, Direction: sa.Direction}
}

// Names of the bins that a plot shows, in the order in which a packet meets them.
const (
	binPath     = "lost on the path"
	binHost     = "lost in host"
	binXfrm     = "dropped by xfrm"
	binPolicy   = "dropped by policy"
	binInner    = "dropped on the inner path"
	binUnproven = "unattributed"
)

var plotBins = []string{binPath, binHost, binXfrm, binPolicy, binInner, binUnproven}

// lostBins are the bins of an SA that hold what should not be there.
func lostBins(sa *ledger.SA) map[string]int64 {
	out := map[string]int64{}
	add := func(name string, bins ...*int64) {
		for _, n := range bins {
			if n != nil && *n != 0 {
				out[name] += *n
			}
		}
	}
	if b := sa.Ledger.In; b != nil {
		add(binPath, b.LostOnPath)
		add(binHost, b.LostInHost)
		add(binXfrm, b.XfrmDropped)
		add(binPolicy, b.PolicyDropped)
		add(binInner, b.InnerDropped)
		add(binUnproven, b.Unattributed)
	}
	if b := sa.Ledger.Out; b != nil {
		add(binXfrm, b.XfrmOutDropped, b.EncryptFailed)
		add(binHost, b.LostInHostEgress)
		add(binUnproven, b.Unattributed)
	}
	return out
}

// NewSeries begins to follow SAs.
func NewSeries(keys []ledger.SAKey) *Series {
	s := &Series{}
	for _, k := range keys {
		s.Tracks = append(s.Tracks, Track{Key: k, last: map[string]int64{}})
	}
	return s
}

// packetsSeen is the key of Track.last under which the packets stand.
const packetsSeen = ""

// Add takes the SAs as a ledger has them at a moment.
func (s *Series) Add(at time.Time, sas []ledger.SA) {
	if s.From.IsZero() {
		s.From = at
	}
	s.To = at
	now := map[ledger.SAKey]*ledger.SA{}
	for i := range sas {
		now[keyOf(&sas[i])] = &sas[i]
	}
	for i := range s.Tracks {
		t := &s.Tracks[i]
		bins := map[string]int64{}
		if sa := now[t.Key]; sa != nil {
			bins = lostBins(sa)
			if sa.Wire != nil {
				bins[packetsSeen] = sa.Wire.Packets
			}
		}
		p := Point{At: at, Packets: bins[packetsSeen] - t.last[packetsSeen], Lost: map[string]int64{}}
		for _, name := range plotBins {
			if d := bins[name] - t.last[name]; d != 0 {
				p.Lost[name] = d
			}
		}
		if t.begun {
			t.Points = append(t.Points, p)
		}
		t.begun, t.last = true, bins
	}
}
