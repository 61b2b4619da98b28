// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"xfrmscope/internal/lab/inject"
)

// ikeAccount is what the tests read of the report about IKE.
type ikeAccount struct {
	Messages int64            `json:"messages"`
	Counted  map[string]int64 `json:"by_direction"`
	Lost     int64            `json:"lost"`
	Peers    []struct {
		Sent      int64 `json:"sent"`
		Received  int64 `json:"received"`
		Exchanges []struct {
			Exchange  string `json:"exchange"`
			Requester string `json:"requester"`
			exchanged
		} `json:"exchanges"`
	} `json:"peers"`
}

// exchanged sums up the exchanges of one type that one end asked for.
type exchanged struct {
	Count    int64 `json:"count"`
	Answered int64 `json:"answered"`
	Repeats  int64 `json:"repeats"`
}

// rekey is an SA that took over from another.
type rekey struct {
	Direction  string  `json:"direction"`
	Old        string  `json:"old"`
	New        string  `json:"new"`
	OldRefused int64   `json:"old_refused"`
	NewRefused int64   `json:"new_refused"`
	GapS       float64 `json:"gap_s"`
}

var exchangeNames = map[byte]string{
	inject.IKESAInit: "IKE_SA_INIT", inject.IKEAuth: "IKE_AUTH", inject.CreateChildSA: "CREATE_CHILD_SA", inject.Informational: "INFORMATIONAL",
}

// checkIKE demands that the report's account of IKE is that of the messages which gateway B sent, and
// of those which the path let through to it.
func (d *daemons) checkIKE(o observation) {
	d.t.Helper()
	type exchange struct {
		initiator uint64
		id        uint32
		kind      string
	}
	requests, answered := map[exchange]int64{}, map[exchange]bool{}
	want := ikeAccount{Counted: map[string]int64{}}
	for _, m := range d.messages() {
		way, requester := "out", "local"
		if m.Direction == inject.AtoB {
			if m.Dropped {
				continue
			}
			way = "in"
		}
		if (m.Direction == inject.AtoB) != m.Response {
			requester = "remote"
		}
		want.Messages++
		want.Counted[way]++
		x := exchange{m.Initiator, m.ID, exchangeNames[m.Exchange] + " by " + requester}
		if m.Response {
			answered[x] = true
		} else {
			requests[x]++
		}
	}
	sums := map[string]exchanged{}
	for x, n := range requests {
		s := sums[x.kind]
		s.Count++
		s.Repeats += n - 1
		if answered[x] {
			s.Answered++
		}
		sums[x.kind] = s
	}
	if o.report.IKE == nil {
		d.t.Fatal("the report has no account of IKE")
	}
	got, seen := *o.report.IKE, map[string]exchanged{}
	for _, p := range got.Peers {
		for _, x := range p.Exchanges {
			s := seen[x.Exchange+" by "+x.Requester]
			s.Count, s.Answered, s.Repeats = s.Count+x.Count, s.Answered+x.Answered, s.Repeats+x.Repeats
			seen[x.Exchange+" by "+x.Requester] = s
		}
	}
	got.Peers = nil
	diff(d.t, "IKE messages", want, got)
	diff(d.t, "IKE exchanges", sums, seen)
}

// checkRekeys demands that the report tells of so many rekeys of the CHILD_SA, each once in each
// direction, and of this many packets that found no SA.
func (d *daemons) checkRekeys(o observation, rekeys int, refused int64) {
	d.t.Helper()
	by, lost := map[string]int{}, int64(0)
	for _, r := range o.report.Rekeys {
		by[r.Direction]++
		lost += r.OldRefused + r.NewRefused
		if (r.GapS > 0) != (r.OldRefused+r.NewRefused > 0) {
			d.t.Errorf("a gap without lost packets, or lost packets without a gap: %+v", r)
		}
	}
	want := map[string]int{}
	if rekeys > 0 {
		want["in"], want["out"] = rekeys, rekeys
	}
	diff(d.t, "rekeys", want, by)
	diff(d.t, "packets that found no SA", refused, lost)
}
