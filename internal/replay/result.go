// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"context"
	"fmt"
	"time"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/reader"
)

// snapshot reads the maps. At the end of a capture nothing is pending any more: what has not come will
// not come.
func (w *wire) snapshot(ctx context.Context, end time.Time) (ledger.Snapshot, error) {
	maps, err := reader.WireMapsOf(w.coll.Maps)
	if err != nil {
		return ledger.Snapshot{}, err
	}
	// The reader tells lost from pending by its clock; let that run far beyond its horizon between two
	// readings. No slot becomes idle by that, as long as it is less than Idle.
	now := time.Unix(0, 0)
	r, err := reader.New(reader.Source{Wire: &maps, Lost: maps.LostCounts}, reader.Options{
		Horizon: time.Second, Idle: time.Hour, Now: func() time.Time { return now },
	})
	if err != nil {
		return ledger.Snapshot{}, err
	}
	if err := r.Sample(); err != nil {
		return ledger.Snapshot{}, err
	}
	now = now.Add(time.Minute)
	snap, err := r.Snapshot(context.WithoutCancel(ctx), nil)
	if err != nil {
		return snap, err
	}
	snap.At = end
	snap.Mono = 0
	if !end.IsZero() {
		snap.Mono = time.Duration(end.UnixNano())
	}
	for i := range snap.Wire {
		// The CPUs are those that read the file.
		snap.Wire[i].CPUs, snap.Wire[i].LateSpread = nil, 0
	}
	// Events of a capture are withheld on purpose.
	delete(snap.Self.Lost, "suppressed")
	delete(snap.Self.Lost, "ike_suppressed")
	snap.Self.Suppressed = 0
	if err := w.prove(&snap); err != nil {
		return snap, err
	}
	if w.tiny > 0 {
		if snap.Packets.Classes[ledger.Unknown] == nil {
			snap.Packets.Classes[ledger.Unknown] = map[string]uint64{}
		}
		snap.Packets.Classes[ledger.Unknown]["bad_eth"] += w.tiny
	}
	return snap, nil
}

// prove compares the packets that the wire program classed with those that it was given.
func (w *wire) prove(snap *ledger.Snapshot) error {
	var classed uint64
	for _, n := range snap.Packets.Classes[ledger.Unknown] {
		classed += n
	}
	if fed := w.feed.fed.Load(); classed != fed {
		return fmt.Errorf("the wire program counted %d packets of %d: the figures are not to be trusted, please report this", classed, fed)
	}
	return nil
}
