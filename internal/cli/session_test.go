// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"os"
	"testing"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/netns"
	"xfrmscope/internal/xfrm"
)

// TestUnreadablePolicies: a policy database that fails in the middle of a run is a missing source, and
// no reason to lose the report.
func TestUnreadablePolicies(t *testing.T) {
	ns, err := netns.Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	client, err := xfrm.Open(ns)
	if err != nil && os.Getenv("CI") != "true" {
		t.Skipf("no IPsec over netlink here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	d := &saDatabase{client: client}
	snap := ledger.Snapshot{}
	if err := d.policies(context.Background(), &snap); err != nil || d.unread != nil || snap.Policies == nil {
		t.Fatalf("policies %v, %v, %v", snap.Policies, err, d.unread)
	}
	if hooks := d.hooks(); len(hooks) != 1 {
		t.Errorf("hooks %+v", hooks)
	}
	late, end := context.WithCancel(context.Background())
	end()
	snap = ledger.Snapshot{}
	if err := d.policies(late, &snap); err != nil || d.unread == nil || snap.Policies != nil {
		t.Fatalf("out of time: policies %v, %v, %v", snap.Policies, err, d.unread)
	}
	if hooks := d.hooks(); len(hooks) != 2 || hooks[1].Attached || hooks[1].Why == "" || hooks[1].Costs == "" {
		t.Errorf("hooks %+v", hooks)
	}
}
