// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"time"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/netns"
	"xfrmscope/internal/reader"
	"xfrmscope/internal/xfrm"
)

// saDatabase reads the kernel's own account of the SAs. A kernel without it can still be watched on
// the wire; then it says so.
type saDatabase struct {
	client  *xfrm.Client
	tracker *xfrm.Tracker
	sas     []ledger.SADEntry // when it was opened
	missing error
	unread  error // why the policies could not be read last time

	pace     time.Duration // between two readings of the policies; 0: for each snapshot
	readAt   time.Time
	spd      []ledger.Policy
	fallback *ledger.PolicyDefault
}

func openSADatabase(ctx context.Context, ns *netns.Handle) (*saDatabase, error) {
	d := &saDatabase{}
	client, err := xfrm.Open(ns)
	switch {
	case errors.Is(err, xfrm.ErrDebugged):
		return nil, err
	case err != nil:
		d.missing = err
		return d, nil
	}
	d.client = client
	if d.tracker, err = xfrm.OpenTracker(ctx, client); err != nil {
		d.missing = err
		return d, nil
	}
	if d.sas, _, err = d.tracker.Snapshot(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// dump reads the SAs and the counters for one snapshot.
func (d *saDatabase) dump(ctx context.Context) (out reader.Dump, err error) {
	if d.missing == nil {
		if out.SAD, out.Ended, err = d.tracker.Snapshot(ctx); err != nil {
			return out, err
		}
		if out.SAD == nil {
			out.SAD = []ledger.SADEntry{}
		}
	}
	if d.client != nil {
		// A kernel without CONFIG_XFRM_STATISTICS has no such file; the ledger then says that
		// there was nothing to reconcile with.
		if stat, err := d.client.XfrmStat(); err == nil {
			out.XfrmStat = stat
		}
	}
	return out, nil
}

// policies reads the SPD into a snapshot. One that cannot be read costs the names of policies, not the
// report: hooks says so.
func (d *saDatabase) policies(ctx context.Context, snap *ledger.Snapshot) error {
	if d.missing != nil {
		return nil
	}
	if d.readAt.IsZero() || time.Since(d.readAt) >= d.pace {
		d.readAt = time.Now()
		if d.spd, d.unread = d.client.DumpPolicies(ctx); d.unread == nil {
			d.fallback, d.unread = d.client.DefaultPolicy(ctx)
		}
	}
	snap.Policies, snap.PolicyDefault = d.spd, d.fallback
	return nil
}

// mappings fills in which peers behind NAT the kernel said to have moved.
func (d *saDatabase) mappings(_ context.Context, snap *ledger.Snapshot) error {
	if d.missing != nil {
		return nil
	}
	if snap.NAT == nil {
		snap.NAT = &ledger.NATReading{}
	}
	snap.NAT.Mappings = d.tracker.Mappings()
	return nil
}

func (d *saDatabase) hooks() []ledger.Hook {
	h := ledger.Hook{Name: "SA database over netlink", Attached: d.missing == nil, Why: "netlink"}
	if d.missing != nil {
		h.Why = d.missing.Error()
		h.Costs = "SAs are known from the wire only: nothing is said of what xfrm decapsulated"
	}
	if d.unread == nil {
		return []ledger.Hook{h}
	}
	return []ledger.Hook{h, {Name: "policies over netlink", Why: d.unread.Error(),
		Costs: "which policy refused a packet is not told, and policies are not reviewed"}}
}

// Close ends the subscription and the sockets.
func (d *saDatabase) Close() error {
	var errs []error
	if d.tracker != nil {
		errs = append(errs, d.tracker.Close())
	}
	if d.client != nil {
		errs = append(errs, d.client.Close())
	}
	return errors.Join(errs...)
}
