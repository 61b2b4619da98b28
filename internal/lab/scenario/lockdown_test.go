// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"os"
	"strings"
	"testing"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/tunnel"
)

// TestLockedDown locks the kernel down for confidentiality, as a machine with secure boot may be. No program may read
// the kernel's memory then, so the wire and the kernel's own counters are all there is, and the report says what it
// lacks. It cannot be undone: scripts/vm/test begins it last.
func TestLockedDown(t *testing.T) {
	tunnel.Need(t)
	const file = "/sys/kernel/security/lockdown"
	if err := os.WriteFile(file, []byte("confidentiality"), 0); err != nil {
		t.Fatalf("lock the kernel down: %v", err)
	}
	if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), "[confidentiality]") {
		t.Fatalf("lock the kernel down: %s, %v", text, err)
	}
	b := open(t, tunnel.Options{}, oneOfEach(tunnel.FirstSPIAtoB))
	b.tool.hidden = true
	s := b.tunnel.AtoB[0]
	b.send(s, 250)
	o := b.finish()
	want, got := b.path.Truth(inject.AtoB, s.SPI).Wire(), o.find(t, s.SPI, "in")
	diff(t, "packets on the wire, distinct, repeated, missing",
		[]int64{int64(want.Packets), int64(want.Unique), int64(want.Duplicates), int64(want.Missing)},
		[]int64{got.Wire.Packets, got.Wire.Unique, got.Wire.Duplicates, got.Wire.Missing})
	diff(t, "decapsulated", new(int64(want.Packets)-sum(theirCauses)), got.Ledger.Decapsulated)
	if got.Ledger.LostInHost != nil || got.Ledger.InnerDropped != nil {
		t.Errorf("bins that no hook fills are filled: %+v", got.Ledger)
	}
	diff(t, "xfrm_stat in the report", map[string]int64{"XfrmInStateSeqError": 3, "XfrmInStateProtoError": 1}, nonzero(o.report.Kernel.XfrmStat))
	held := map[string]bool{}
	for _, h := range o.report.Hooks {
		if h.Attached {
			held[h.Name] = true
		} else if !strings.Contains(h.Why, "lockdown") {
			t.Errorf("hook %s is missing and does not say that it is for the lockdown: %s", h.Name, h.Why)
		}
	}
	diff(t, "hooks that hold", map[string]bool{"wire ingress wan": true, "wire egress wan": true, "SA database over netlink": true}, held)
	o.checkSelf(t)
}
