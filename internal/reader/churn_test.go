// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"context"
	"fmt"
	"testing"
	"time"

	"xfrmscope/internal/ledger"
)

// churner is a gateway whose tunnels are rekeyed all the time: what its SADB would say, and the truth.
type churner struct {
	*rig
	reader  *Reader
	rolling *ledger.Rolling
	tunnels []*churned
	ended   []ledger.EndedSA
	next    uint32 // SPI
	snaps   int
}

// churned is one tunnel.
type churned struct {
	now                  ledger.SADEntry
	seq                  uint32 // last number of the SA
	packets, lost, rekey int64
}

// pass sends numbers of a tunnel's SA, one of which is lost if asked to.
func (c *churner) pass(t *churned, numbers int, lose bool) {
	c.t.Helper()
	for i := range numbers {
		t.seq++
		if lose && i == numbers/2 {
			t.lost++
			continue
		}
		c.send(uint32(t.now.Key.SPI), t.seq)
		t.now.Packets++
		t.now.Seq = uint64(t.seq)
		t.packets++
	}
}

// fresh is a new SA for a tunnel.
func (c *churner) fresh(reqid uint32) ledger.SADEntry {
	c.next++
	return ledger.SADEntry{Key: in(c.next), Src: peer, Mode: "tunnel", ReqID: reqid, ReplayWindow: 32,
		Added: c.now.Truncate(time.Second), Announced: c.now}
}

// rekey gives a tunnel its next SA, as IKE does: both are in use for a moment, then the old one goes.
func (c *churner) rekey(t *churned) {
	c.t.Helper()
	old := *t
	t.now, t.seq = c.fresh(old.now.ReqID), 0
	c.pass(t, 3, false)
	c.pass(&old, 2, false)
	t.packets, t.rekey = t.packets+2, t.rekey+1
	c.ended = append(c.ended, ledger.EndedSA{Last: old.now, At: c.now, Why: ledger.EndDeleted})
}

func (c *churner) observe() {
	c.t.Helper()
	snap, err := c.reader.Snapshot(context.Background(), func(context.Context) (Dump, error) {
		d := Dump{SAD: []ledger.SADEntry{}, Ended: c.ended}
		for _, t := range c.tunnels {
			d.SAD = append(d.SAD, t.now)
		}
		return d, nil
	})
	must(c.t, err)
	c.snaps++
	c.ended = nil
	if c.rolling.Observe(snap) {
		must(c.t, c.reader.Prune(churnPeriod))
	}
}

const churnPeriod = 5 * time.Minute

// TestChurn rekeys eight tunnels ten thousand times, twelve times as often as the table has slots, in a run
// without end. The sums of each tunnel stay exact, and neither table nor memory fills up.
func TestChurn(t *testing.T) {
	const (
		tunnels = 8
		rekeys  = 10_000
		slots   = 800
		sample  = 4000 // as far into a period of 150 rekeys as the end is, so that as much is remembered
	)
	c := &churner{rig: newRig(t, slots), rolling: ledger.NewRolling(ledger.Source{Kind: ledger.KindLive}, churnPeriod)}
	c.reader = c.rig.reader(Options{})
	for i := range uint32(tunnels) {
		c.tunnels = append(c.tunnels, &churned{now: c.fresh(i + 1)})
		c.pass(c.tunnels[i], 1, false)
	}
	c.observe() // the baseline: what was before is nobody's
	for _, x := range c.tunnels {
		x.packets = 0
	}
	var early uint64
	for n := range rekeys {
		x := c.tunnels[n%tunnels]
		c.rekey(x)
		c.pass(x, 6, n%7 == 0)
		c.now = c.now.Add(2 * time.Second)
		must(t, c.reader.Sample())
		if n%5 == 4 {
			c.observe()
		}
		if n == sample {
			early = heap()
		}
	}
	c.now = c.now.Add(2 * time.Second)
	must(t, c.reader.Sample())
	c.observe()
	late := heap()
	if late > early+1<<18 {
		t.Errorf("%d bytes of heap after %d rekeys, %d at their end", early, sample, late)
	}
	sums := c.rolling.Totals()
	if len(sums.Tunnels) != tunnels {
		t.Errorf("%d tunnels, want %d", len(sums.Tunnels), tunnels)
	}
	for _, x := range c.tunnels {
		got := sums.Tunnels[ledger.TunnelKey{Direction: ledger.In, Local: in(1).Dst, Remote: peer, ReqID: x.now.ReqID}]
		if got == nil || got.In == nil || got.Wire == nil {
			t.Fatalf("tunnel %d: %+v", x.now.ReqID, got)
		}
		b := got.In
		have := fmt.Sprintf("packets %d, sent %s, lost %s, arrivals %s, decapsulated %s, rekeys %d, alive %d", got.Wire.Packets,
			figure(b.Sent), figure(b.LostOnPath), figure(b.Arrivals), figure(b.Decapsulated), got.Rekeys, got.Alive)
		want := fmt.Sprintf("packets %d, sent %d, lost %d, arrivals %d, decapsulated %d, rekeys %d, alive 1", x.packets,
			x.packets+x.lost, x.lost, x.packets, x.packets, x.rekey)
		if have != want {
			t.Errorf("tunnel %d: %s\nwant %s", x.now.ReqID, have, want)
		}
	}
	for what, n := range sums.Self.Lost {
		if n != 0 && what != "suppressed" {
			t.Errorf("lost %d: %s", n, what)
		}
	}
	if used := c.reader.used; used > slots*3/4 {
		t.Errorf("%d slots of %d are in use", used, slots)
	}
}

func figure(n *int64) string {
	if n == nil {
		return "?"
	}
	return fmt.Sprint(*n)
}
