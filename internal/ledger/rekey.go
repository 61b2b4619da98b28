// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// takeoverMax is how long after an SA's end another one still takes its place; later it is a new
// beginning, as of a tunnel that was closed for want of traffic.
const takeoverMax = time.Minute

// tunnelSide is what SAs that renew one another have in common.
type tunnelSide struct {
	direction Direction
	src, dst  netip.Addr
	proto     Proto
	reqid     uint32
	ifid      uint32
	mark      string
}

// rekeys finds the SAs that took over from others during the run.
func (l *Ledger) rekeys(sas []SA) []Rekey {
	sides := map[tunnelSide][]*SA{}
	for i := range sas {
		sa := &sas[i]
		if sa.Added == nil || sa.SharedBy > 1 || sa.Direction == Unknown {
			continue
		}
		k := tunnelSide{sa.Direction, sa.Src, sa.Dst, sa.Proto, sa.ReqID, sa.IfID, sa.Mark}
		sides[k] = append(sides[k], sa)
	}
	out := []Rekey{}
	for _, of := range sides {
		slices.SortFunc(of, func(a, b *SA) int { return cmp.Or(began(a).Compare(began(b)), cmp.Compare(a.SPI, b.SPI)) })
		for i := 1; i < len(of); i++ {
			if took(of[i-1], of[i]) {
				out = append(out, l.rekey(of[i-1], of[i]))
			}
		}
	}
	slices.SortFunc(out, func(a, b Rekey) int {
		return cmp.Or(a.Added.Compare(b.Added), cmp.Compare(place(a.Direction), place(b.Direction)),
			a.Dst.Compare(b.Dst), cmp.Compare(a.New, b.New))
	})
	return out
}

// began is when an SA was added, as exactly as is known.
func began(sa *SA) time.Time {
	if sa.Announced != nil {
		return *sa.Announced
	}
	return *sa.Added
}

// took says whether an SA renewed an older one. While both live they may as well be two that do the
// same, unless the older one was told to find a successor.
func took(old, sa *SA) bool {
	if !sa.AddedDuring {
		return false
	}
	if end := old.ended(); end != nil {
		return began(sa).Sub(end.At) < takeoverMax
	}
	return old.SoftExpired != nil && !began(sa).Before(*old.SoftExpired)
}

// ended is how an SA that is no more went.
func (sa *SA) ended() *Ending {
	if sa.State != Gone || len(sa.Endings) == 0 {
		return nil
	}
	return &sa.Endings[len(sa.Endings)-1]
}

func (l *Ledger) rekey(old, sa *SA) Rekey {
	k := Rekey{
		Direction: sa.Direction, Src: sa.Src, Dst: sa.Dst, Proto: sa.Proto, ReqID: sa.ReqID, IfID: sa.IfID,
		Connection: sa.Connection, Child: sa.Child, Old: old.SPI, New: sa.SPI, Added: *moment(began(sa)),
		OldRefused: refusedFor(old), NewRefused: refusedFor(sa),
	}
	if end := old.ended(); end != nil {
		k.Ended, k.Why = moment(end.At), end.Why
		k.OverlapS = seconds(end.At.Sub(k.Added))
	}
	if w := l.wire[old.key()]; w != nil {
		k.OldLast = l.wall(w.now.LastSeen)
	}
	if w := l.wire[sa.key()]; w != nil {
		k.NewFirst = l.wall(w.now.Created)
	}
	if k.OldLast != nil && k.NewFirst != nil {
		k.SilenceS = new(max(0, seconds(k.NewFirst.Sub(*k.OldLast))))
	}
	if k.OldRefused > 0 && k.Ended != nil && k.OldLast != nil {
		k.GapS = max(k.GapS, seconds(k.OldLast.Sub(*k.Ended)))
	}
	if k.NewRefused > 0 && k.NewFirst != nil {
		k.GapS = max(k.GapS, seconds(k.Added.Sub(*k.NewFirst)))
	}
	return k
}

// refusedFor counts packets that came for an SA before it was there or when it had gone.
func refusedFor(sa *SA) int64 { return sa.Xfrm[NoState] + sa.Xfrm[StateInvalid] }

func (sa *SA) key() SAKey {
	return SAKey{Dst: sa.Dst, SPI: sa.SPI, Proto: sa.Proto, Direction: sa.Direction}
}

func seconds(d time.Duration) float64 {
	return float64(d.Round(time.Millisecond).Milliseconds()) / 1000
}
