// SPDX-License-Identifier: Apache-2.0

package trigger

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/verdict"
)

func TestParse(t *testing.T) {
	got, err := Parse("path-loss,any=record:/var/lib/x:y/")
	if diff := cmp.Diff(Rule{Findings: []string{"path-loss", "any"}, Action: Record, Dir: "/var/lib/x:y"}, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for _, bad := range []string{"", "path-loss", "path-loss=capture", "path-loss=capture:", "=capture:/tmp", "path-loss=shell:/tmp", "path-lost=record:/tmp", "path-loss,=record:/tmp"} {
		if r, err := Parse(bad); err == nil {
			t.Errorf("%q was accepted: %+v", bad, r)
		}
	}
}

func finding(id verdict.ID, severity verdict.Severity, spi ledger.SPI, dst string) verdict.Finding {
	a := netip.MustParseAddr(dst)
	return verdict.Finding{ID: id, Severity: severity, Subject: verdict.Subject{SPI: &spi, Dst: &a, Direction: ledger.In, ReqID: 1}}
}

// TestLook: a finding sets a rule off when it begins, not while it lasts, not because of a rekey, and not soon
// after the last time.
func TestLook(t *testing.T) {
	loss := finding(verdict.PathLoss, verdict.Warning, 1, "192.0.2.1")
	rekeyed := finding(verdict.PathLoss, verdict.Warning, 2, "192.0.2.1")
	elsewhere := finding(verdict.PathLoss, verdict.Warning, 3, "192.0.2.9")
	hint := finding(verdict.ReplayWindowZero, verdict.Info, 1, "192.0.2.1")
	w := NewWatch([]Rule{{Findings: []string{"path-loss"}, Action: Record}, {Findings: []string{Any}, Action: Capture}}, time.Minute)
	begin := time.Now()
	for i, step := range []struct {
		at       time.Duration
		findings []verdict.Finding
		want     []bool // withheld or not, of each that went off
	}{
		{0, nil, nil},
		{time.Second, []verdict.Finding{hint}, nil},
		{2 * time.Second, []verdict.Finding{hint, loss}, []bool{false, false}},
		{3 * time.Second, []verdict.Finding{loss}, nil},
		{4 * time.Second, []verdict.Finding{rekeyed}, nil},
		{5 * time.Second, []verdict.Finding{rekeyed, elsewhere}, []bool{true, true}},
		{6 * time.Second, nil, nil},
		{2 * time.Minute, []verdict.Finding{loss, elsewhere}, []bool{false, false}},
	} {
		var got []bool
		for _, f := range w.Look(step.findings, begin.Add(step.at)) {
			got = append(got, f.Withheld)
		}
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("step %d: %s", i, diff)
		}
	}
}

func TestMakeRoom(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "of [gw-1]") // which is no pattern
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		path := filepath.Join(dir, fmt.Sprintf("xfrmscope-%d.xsr", 9-i))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(time.Duration(i) * time.Hour)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	foreign := filepath.Join(dir, "notes.txt")
	if err := os.WriteFile(foreign, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := MakeRoom(dir, "xfrmscope-*.xsr", 3); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	want := []string{filepath.Base(foreign), "xfrmscope-4.xsr", "xfrmscope-5.xsr"}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Error(diff)
	}
	if err := MakeRoom(filepath.Join(dir, "none"), "*", 3); err != nil {
		t.Errorf("a folder that is not there: %v", err)
	}
}
