// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"testing"
	"time"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/swan"
	"xfrmscope/internal/lab/tunnel"
)

// TestStrongSwan has a real IKE daemon at both ends.
func TestStrongSwan(t *testing.T) {
	tunnel.Need(t)
	d := openDaemons(t, tunnel.Options{}, swan.Options{})

	d.scenario("establish, carry, close", swan.Options{}, func(d *daemons) {
		d.must(d.pair.Initiate())
		d.both(100, pace)
		d.settle()
		d.must(d.pair.Terminate())
	}, func(d *daemons, o observation) {
		d.checkAnswered()
		d.checkExact(o, 1)
		d.checkStat(o, nil)
		d.checkWhole(100)
		o.checkFindings(d.t)
	})

	// Each rekey makes the new SAs before it breaks the old ones, so nothing is lost under load.
	d.scenario("rekey under load", swan.Options{}, func(d *daemons) {
		d.must(d.pair.Initiate())
		stop := d.load(2 * time.Millisecond)
		d.must(d.pair.RekeyChild())
		d.must(d.pair.RekeyIKE())
		d.must(d.pair.RekeyChild())
		time.Sleep(250 * time.Millisecond)
		stop()
		d.settle()
		d.must(d.pair.Terminate())
	}, func(d *daemons, o observation) {
		d.checkAnswered()
		diff(d.t, "rekeys seen on the path", 3, d.requests(inject.CreateChildSA))
		d.checkExact(o, 3)
		d.checkStat(o, nil)
		d.checkWhole(100)
		o.checkFindings(d.t)
	})

	// The peer is idle and alive: each question whether it is there gets its answer.
	d.scenario("idle, dead peer detection answered", swan.Options{DPDDelay: time.Second}, func(d *daemons) {
		d.must(d.pair.Initiate())
		d.both(5, pace)
		d.must(swan.Until("questions from both ends", func() (bool, error) { return d.requests(inject.Informational) >= 4, nil }))
		d.settle()
	}, func(d *daemons, o observation) {
		d.checkAnswered()
		d.checkExact(o, 1)
		d.checkStat(o, nil)
		o.checkFindings(d.t)
		d.must(d.pair.Terminate())
	})
}

// requests counts the scenario's requests of an exchange, each once.
func (d *daemons) requests(exchange byte) (n int) {
	for _, m := range d.messages() {
		if m.Exchange == exchange && !m.Response && m.Again == 0 {
			n++
		}
	}
	return n
}
