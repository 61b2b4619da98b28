// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTallyOfTableThatForgets: entries are let go of and come back, with less and with more than they had,
// while another stays. Each packet is counted once.
func TestTallyOfTableThatForgets(t *testing.T) {
	var l tally[string]
	for i, look := range []map[string]uint64{
		{"a": 5, "b": 7, "c": 1}, // the baseline
		{"a": 6, "b": 8, "c": 1},
		{"b": 9}, // a and c are let go of
		{"a": 2, "b": 9, "c": 4},
		{"a": 1, "b": 10, "c": 4}, // a was let go of and came back between two looks
	} {
		l.observeEach(look, i == 0)
	}
	if diff := cmp.Diff(map[string]int64{"a": 1 + 2 + 1, "b": 3, "c": 4}, l.total()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
