// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"errors"
	"testing"
	"time"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/swan"
	"xfrmscope/internal/lab/tunnel"
)

// TestStrongSwan has a real IKE daemon at both ends.
func TestStrongSwan(t *testing.T) {
	tunnel.Need(t)
	d := openDaemons(t, tunnel.Options{})
	d.scenario("establish, carry, close", sides{}, carryAndClose, func(d *daemons, o observation) {
		d.checkAnswered()
		d.checkExact(o, 1)
		d.checkStat(o, nil)
		d.checkWhole(100)
		d.checkIKE(o)
		d.checkRekeys(o, 0, 0)
		o.checkFindings(d.t)
	})
	// Each rekey makes the new SAs before it breaks the old ones, so nothing is lost under load. One
	// answer is slow, but comes before the question is repeated.
	d.scenario("rekey under load", sides{}, rekeyUnderLoad, func(d *daemons, o observation) {
		d.checkAnswered()
		diff(d.t, "rekeys seen on the path", 3, d.requests(inject.CreateChildSA))
		d.checkExact(o, 3)
		d.checkStat(o, nil)
		d.checkWhole(100)
		d.checkIKE(o)
		d.checkRekeys(o, 2, 0)
		o.checkFindings(d.t)
	})
	// The peer is idle and alive: each question whether it is there gets its answer.
	alive := swan.Options{DPDDelay: time.Second}
	d.scenario("idle, dead peer detection answered", sides{alive, alive}, func(d *daemons) {
		d.must(d.pair.Initiate())
		d.both(5, pace)
		d.must(swan.Until("questions from both ends", func() (bool, error) { return d.requests(inject.Informational) >= 4, nil }))
		d.must(d.pair.Terminate()) // before xfrmscope ends, so that no question falls between the two
	}, func(d *daemons, o observation) {
		d.checkAnswered()
		d.checkExact(o, 1)
		d.checkStat(o, nil)
		d.checkIKE(o)
		o.checkFindings(d.t)
	})
}

func carryAndClose(d *daemons) {
	d.must(d.pair.Initiate())
	d.both(100, pace)
	d.settle()
	d.must(d.pair.Terminate())
}

func rekeyUnderLoad(d *daemons) {
	d.must(d.pair.Initiate())
	stop := d.load(2 * time.Millisecond)
	d.must(d.pair.RekeyChild(d.pair.A))
	d.must(d.pair.RekeyIKE())
	d.must(d.path.Control(inject.Control{Direction: inject.BtoA, Exchange: inject.CreateChildSA, Kind: inject.Response, Action: inject.Hold, Count: 1}))
	before, err := d.pair.A.SAs()
	d.must(err)
	d.must(d.pair.A.BeginRekeyChild())
	d.release(700 * time.Millisecond)
	d.must(d.pair.Rekeyed(before))
	time.Sleep(250 * time.Millisecond)
	stop()
	d.settle()
	d.must(d.pair.Terminate())
}

// TestStrongSwanLoses takes control messages away from two IKE daemons.
func TestStrongSwanLoses(t *testing.T) {
	tunnel.Need(t)
	d := openDaemons(t, tunnel.Options{})
	impatient := swan.Options{Timeout: time.Second, Tries: 4}
	d.scenario("a rekey answered at the third try", sides{swan.Options{}, impatient}, func(d *daemons) {
		d.must(d.pair.Initiate())
		stop := d.load(4 * time.Millisecond)
		d.must(d.path.Control(inject.Control{Direction: inject.BtoA, Exchange: inject.CreateChildSA, Kind: inject.Request, Count: 2}))
		d.must(d.pair.RekeyChild(d.pair.B))
		stop()
		d.settle()
		d.must(d.pair.Terminate())
	}, func(d *daemons, o observation) {
		diff(d.t, "requests dropped, sent again", []int{2, 2}, []int{d.dropped(), d.repeated()})
		d.checkExact(o, 2)
		d.checkStat(o, nil)
		d.checkWhole(100)
		d.checkIKE(o)
		d.checkRekeys(o, 1, 0)
		d.checkRoot(o, "ike-retransmissions")
	})
	// B's SAs expire while its request for new ones goes unanswered; A goes on sending.
	d.scenario("a rekey never answered", sides{swan.Options{}, swan.Options{
		Timeout: time.Second, Tries: 20, ChildRekey: 2 * time.Second, ChildLife: 5 * time.Second,
	}}, func(d *daemons) {
		d.must(d.path.Control(inject.Control{Direction: inject.BtoA, Exchange: inject.CreateChildSA, Kind: inject.Request},
			inject.Control{Direction: inject.BtoA, Exchange: inject.Informational}))
		d.must(d.pair.Initiate())
		d.must(swan.Until("the end of B's SAs", func() (bool, error) {
			sas, err := d.pair.B.SAs()
			return len(sas) == 0, errors.Join(err, d.to.Send(5, pace))
		}))
		d.must(d.to.Send(50, pace))
		d.settle()
		d.must(d.pair.Abandon())
		d.must(d.path.Control())
	}, func(d *daemons, o observation) {
		moved := d.counted().minus(d.before)
		refused := moved.SentTo - moved.GotTo
		if refused < 50 {
			d.t.Errorf("invalid run: only %d datagrams came after the end of the SA", refused)
		}
		diff(d.t, "datagrams that found no SA", refused, sum(o.stat))
		d.checkIKE(o)
		d.checkRekeys(o, 0, 0)
		d.inbound(o, refused)
		d.checkRoot(o, "ike-unanswered", "rekey-failed", "sa-expired", "spi-unknown")
	})
	d.scenario("a dead peer", sides{swan.Options{}, swan.Options{DPDDelay: time.Second, Timeout: time.Second, Tries: 3}}, func(d *daemons) {
		d.must(d.pair.Initiate())
		d.both(20, pace)
		d.settle()
		d.block(true)
		d.must(swan.Until("the end of B's SAs", func() (bool, error) {
			sas, err := d.pair.B.SAs()
			return len(sas) == 0, err
		}))
	}, func(d *daemons, o observation) {
		diff(d.t, "requests dropped, sent again", []int{4, 3}, []int{d.dropped(), d.repeated()})
		d.checkExact(o, 1)
		d.checkStat(o, nil)
		d.checkIKE(o)
		d.checkRoot(o, "ike-unanswered")
		d.block(false)
		d.must(d.pair.Abandon())
	})
	// A has not got the answer to its rekey yet when B loses the old SA: what A sends until it gets it
	// finds no SA.
	d.scenario("the old SA deleted early", sides{}, func(d *daemons) {
		d.must(d.pair.Initiate())
		before, err := d.pair.B.SAs()
		d.must(err)
		d.both(50, pace)
		d.must(d.path.Control(inject.Control{Direction: inject.BtoA, Exchange: inject.CreateChildSA, Kind: inject.Response, Action: inject.Hold, Count: 1}))
		d.must(d.pair.A.BeginRekeyChild())
		d.must(swan.Until("the answer", func() (bool, error) { return d.held() > 0, nil }))
		d.settle()
		for _, sa := range before {
			if sa.Dst == d.tunnel.B.Outer.String() {
				d.must(d.pair.B.Delete(sa))
			}
		}
		d.must(d.to.Send(60, 5*time.Millisecond))
		d.settle()
		d.path.Release()
		d.must(d.pair.Rekeyed(before))
		d.both(50, pace)
		d.settle()
		d.must(d.pair.Terminate())
	}, func(d *daemons, o observation) {
		d.checkStat(o, cause("no_state", 60))
		diff(d.t, "carried", counts{SentTo: 160, GotTo: 100, SentBack: 100, GotBack: 100}, d.counted().minus(d.before))
		d.checkIKE(o)
		d.checkRekeys(o, 1, 60)
		d.checkRoot(o, "rekey-gap "+d.inbound(o, 60), "spi-unknown")
	})
}
