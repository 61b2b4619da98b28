// SPDX-License-Identifier: Apache-2.0

package stackproof

import (
	"testing"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/tunnel"
)

// Around the end of an epoch the window lies in two of them, and the receiver guesses the upper half
// by other rules (RFC 4303 appendix A2.2): duplicates must be found across it, and lateness too.
func TestEpochEnds(t *testing.T) {
	tunnel.Need(t)
	const last = 0xffffffff - 60
	r := raise(t, tunnel.Options{ESN: true, LastSeq: last}, Setup{},
		rule(inject.Corrupt, []uint32{0xffffffe0, 20}, 0),
		rule(inject.Duplicate, []uint32{0xffffffd0, 0xffffffff, 0, 3, 100}, 0),
		rule(inject.Duplicate, []uint32{0xfffffffc}, 10),
		rule(inject.Delay, []uint32{0xfffffff0}, 40),
		rule(inject.Delay, []uint32{0xfffffff8}, 60))
	r.send(200)
	r.only(r.agree(), map[string]uint64{"integrity_failed": 2, "replay_duplicate": 6, "esn_mis_epoch": 2})
	events, err := r.watch.Events()
	check(t, err)
	const epoch = 1 << 32
	want := map[uint64]string{
		0xffffffe0: "integrity_failed", epoch + 20: "integrity_failed",
		0xffffffd0: "replay_duplicate", 0xffffffff: "replay_duplicate", epoch: "replay_duplicate",
		epoch + 3: "replay_duplicate", epoch + 100: "replay_duplicate", 0xfffffffc: "replay_duplicate",
		0xfffffff0: "esn_mis_epoch", 0xfffffff8: "esn_mis_epoch",
	}
	for _, e := range events {
		if want[e.Seq] != e.Cause {
			t.Errorf("number %#x: %s, want %q (top %#x, distance %d)", e.Seq, e.Cause, want[e.Seq], e.Top, e.Distance)
		}
		delete(want, e.Seq)
	}
	if len(want) > 0 {
		t.Errorf("not told: %v", want)
	}
}
