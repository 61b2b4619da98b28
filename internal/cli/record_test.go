// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"xfrmscope/internal/record"
)

// freshCmd makes sure that the last snapshot of a recording is no older than so long: fresh FILE DURATION.
func freshCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fresh file duration")
	}
	now := time.Now()
	limit, err := time.ParseDuration(args[1])
	ts.Check(err)
	run, err := record.Replay(ts.MkAbs(args[0]), record.ReplayOptions{})
	ts.Check(err)
	age := now.Sub(run.Stop)
	ts.Logf("the last snapshot is %s old", age)
	if age > limit {
		ts.Fatalf("the last snapshot of %s is %s old", args[0], age)
	}
}

func TestInBytes(t *testing.T) {
	for n, want := range map[float64]string{0: "0 bytes", 999: "999 bytes", 14700: "14.7 kB", 2.5e6: "2.5 MB", 3.2e9: "3.2 GB"} {
		if got := inBytes(n); got != want {
			t.Errorf("%v bytes are %q, want %q", n, got, want)
		}
	}
}

func TestMoment(t *testing.T) {
	base := time.Date(2026, 11, 20, 3, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{"90s": base.Add(90 * time.Second), "2026-11-20T03:10:00Z": base.Add(10 * time.Minute),
		"2026-11-20T04:10:00+01:00": base.Add(10 * time.Minute)} {
		m := moment{base: base}
		if err := m.Set(text); err != nil || !m.time().Equal(want) {
			t.Errorf("%s is %s (%v), want %s", text, m.time(), err, want)
		}
	}
	for _, text := range []string{"noon", "-5s", ""} {
		m := moment{}
		if m.Set(text) == nil {
			t.Errorf("%q is taken for a time", text)
		}
	}
	if !(&moment{}).time().IsZero() {
		t.Error("no time is a time")
	}
}
