// SPDX-License-Identifier: Apache-2.0

package verdict_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
	"xfrmscope/internal/verdict"
	"xfrmscope/internal/verdict/verdicttest"
)

func ids(findings []verdict.Finding) []verdict.ID {
	var out []verdict.ID
	for _, f := range findings {
		out = append(out, f.ID)
	}
	return out
}

func TestJudge(t *testing.T) {
	for _, s := range verdicttest.Scenarios() {
		t.Run(s.Name, func(t *testing.T) {
			got := verdict.Judge(s.Report())
			if diff := cmp.Diff(s.Want, ids(got)); diff != "" {
				t.Fatalf("findings (-want +got):\n%s", diff)
			}
			if len(got) == 0 {
				return
			}
			f := got[0]
			if f.Severity != s.Grade || f.Confidence != s.Sure {
				t.Errorf("%s with confidence %v, want %s with %v", f.Severity, f.Confidence, s.Grade, s.Sure)
			}
			if len(s.Folded) != len(f.Consequences) || !slices.Equal(s.Folded, f.Consequences) {
				t.Errorf("consequences %v, want %v", f.Consequences, s.Folded)
			}
			for _, part := range s.Says {
				if !strings.Contains(f.Summary, part) {
					t.Errorf("summary lacks %q: %s", part, f.Summary)
				}
			}
			for _, f := range got {
				if len(f.Evidence) == 0 || len(f.Remedy) == 0 {
					t.Errorf("%s: %d pieces of evidence, %d remedies", f.ID, len(f.Evidence), len(f.Remedy))
				}
			}
		})
	}
}

// TestScenariosAddUp makes sure that a verdict never rests on a ledger that does not add up.
func TestScenariosAddUp(t *testing.T) {
	for _, s := range verdicttest.Scenarios() {
		if s.Leaky {
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			r := s.Report()
			for _, sa := range r.SAs {
				if u, known := sa.Ledger.Unattributed(); !known || u != 0 {
					t.Errorf("SA %s: unattributed %d (known: %v)", sa.SPI, u, known)
				}
			}
			if r.Kernel.Reconciled == nil || !*r.Kernel.Reconciled {
				t.Errorf("not reconciled: %v", r.Kernel.Disagreements)
			}
		})
	}
}

// TestLateInsideThisHost: where the wire saw no packet that late, the advice names the host as well.
func TestLateInsideThisHost(t *testing.T) {
	for _, s := range verdicttest.Scenarios() {
		if s.Name != "reordered within this host" && s.Name != "reordered beyond the window" {
			continue
		}
		named := false
		for _, r := range verdict.Judge(s.Report())[0].Remedy {
			named = named || strings.Contains(r.Text, "inside this host")
		}
		if want := s.Name == "reordered within this host"; named != want {
			t.Errorf("%s: advice names this host: %v, want %v", s.Name, named, want)
		}
	}
}

// TestInnerMarks: a finding of marks outside says how many of them are inside as well.
func TestInnerMarks(t *testing.T) {
	for _, s := range verdicttest.Scenarios() {
		if s.Name != "congestion that the ends are told of" {
			continue
		}
		for _, e := range verdict.Judge(s.Report())[0].Evidence {
			if e.Counter == "flows.ecn_ce" && e.Value == 9 {
				return
			}
		}
	}
	t.Error("no evidence of the marks inside")
}

// TestNames: a finding about an SA that the IKE daemon has names for says them, and its commands for that
// daemon can be typed as they stand; a name that would not be one word in a shell stays out of them.
func TestNames(t *testing.T) {
	for _, tc := range []struct{ child, says, command string }{
		{"lan", "In strongSwan: connection branch, child lan.", "connections.branch.children.lan.replay_window = 128"},
		{"a b;c", `In strongSwan: connection branch, child "a b;c".`, "connections.branch.children.<child>.replay_window = 128"},
	} {
		w := ledgertest.New()
		sa := w.Inbound(0xc0ffee01, 32, false)
		w.Names = []ledger.SAName{{Key: sa.Key, ReqID: 1, Connection: "branch", Child: tc.child}}
		f := verdict.Judge(w.Run(func() { sa.Deliver(1000); sa.Reorder(20, 80) }))[0]
		if !strings.HasSuffix(f.Summary, tc.says) {
			t.Errorf("summary does not end with %q: %s", tc.says, f.Summary)
		}
		var commands []string
		for _, r := range f.Remedy {
			commands = append(commands, r.Commands...)
		}
		if !slices.Contains(commands, tc.command) {
			t.Errorf("no command %q among %q", tc.command, commands)
		}
	}
}

// TestUsualBuffers: each setting is given back its own usual value.
func TestUsualBuffers(t *testing.T) {
	for _, s := range verdicttest.Scenarios() {
		if s.Name != "small and huge buffers" {
			continue
		}
		got := verdict.Judge(s.Report())[0].Remedy[0].Commands
		want := []string{
			`sysctl -w net.ipv4.tcp_rmem="4096 131072 6291456"`, `sysctl -w net.ipv4.tcp_wmem="4096 16384 4194304"`,
			"sysctl -w net.core.netdev_max_backlog=5000",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		return
	}
	t.Error("no such scenario")
}

func TestExitCode(t *testing.T) {
	for _, tc := range []struct {
		severities []verdict.Severity
		want       int
	}{
		{nil, 0},
		{[]verdict.Severity{verdict.Info}, 0},
		{[]verdict.Severity{verdict.Info, verdict.Warning}, 1},
		{[]verdict.Severity{verdict.Critical}, 1},
	} {
		var f []verdict.Finding
		for _, s := range tc.severities {
			f = append(f, verdict.Finding{Severity: s})
		}
		if got := verdict.ExitCode(f); got != tc.want {
			t.Errorf("ExitCode(%v) = %d, want %d", tc.severities, got, tc.want)
		}
	}
}
