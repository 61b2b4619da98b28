// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The ledger knows the stages and hooks by these names.
func TestDropNames(t *testing.T) {
	spec, err := LoadDrop()
	if err != nil {
		t.Fatal(err)
	}
	for enum, want := range map[string][]string{
		"drop_stage": {"before_xfrm", "after_decap", "egress", "ike", "keepalive"},
		"drop_hook":  {"none", "prerouting", "input", "forward", "output", "postrouting"},
	} {
		got, err := EnumNames(spec, enum)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", enum, diff)
		}
	}
}
