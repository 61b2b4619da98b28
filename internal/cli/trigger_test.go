// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"io"
	"path/filepath"
	"testing"
	"time"

	"xfrmscope/internal/export"
	"xfrmscope/internal/trigger"
	"xfrmscope/internal/verdict"
)

// TestOneRecordingAFolder: however many findings begin, and however many rules they meet, recordings that would hold
// the same are not made beside one another.
func TestOneRecordingAFolder(t *testing.T) {
	dir := t.TempDir()
	rule := trigger.Rule{Findings: []string{trigger.Any}, Action: trigger.Record, Dir: dir}
	under := &keeping{path: filepath.Join(dir, "xfrmscope-path-loss.xsr")}
	w := &triggers{watch: trigger.NewWatch([]trigger.Rule{rule, rule}, 0), progress: io.Discard, results: map[export.Trigger]uint64{}, open: []*keeping{under}}
	w.look([]verdict.Finding{{ID: verdict.PathLoss, Severity: verdict.Warning}}, time.Now())
	if n := w.counts()[export.Trigger{Action: string(trigger.Record), Result: export.Withheld}]; n != 2 || len(w.open) != 1 {
		t.Errorf("%d withheld, %d under way", n, len(w.open))
	}
	if w.recordingTo(filepath.Join(dir, "other")) {
		t.Error("another folder is taken for this one")
	}
}
