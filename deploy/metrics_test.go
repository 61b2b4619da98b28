// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"xfrmscope/internal/export"
)

// promtool runs Prometheus' own checker.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("promtool is not installed: scripts/deps test")
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestRulesParseAndHold(t *testing.T) {
	promtool(t, "check", "rules", "prometheus/xfrmscope.rules.yml", "prometheus/xfrmscope.alerts.yml")
	promtool(t, "test", "rules", "prometheus/xfrmscope.tests.yml")
}

type panel struct {
	Title   string
	Type    string
	Targets []struct{ Expr string }
	Panels  []panel
}

func dashboardQueries(t *testing.T) map[string]string {
	t.Helper()
	raw, err := Files.ReadFile("grafana/xfrmscope.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct{ Panels []panel }
	if err := json.Unmarshal(raw, &d); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	var walk func([]panel)
	walk = func(all []panel) {
		for _, p := range all {
			if p.Type != "row" && len(p.Targets) == 0 {
				t.Errorf("panel %q asks nothing", p.Title)
			}
			for i, q := range p.Targets {
				out[fmt.Sprintf("%s %d", p.Title, i)] = q.Expr
			}
			walk(p.Panels)
		}
	}
	walk(d.Panels)
	return out
}

// TestDashboardQueriesParse has Prometheus parse every query, with what Grafana would fill in.
func TestDashboardQueriesParse(t *testing.T) {
	queries := dashboardQueries(t)
	if len(queries) < 25 {
		t.Errorf("only %d queries were found", len(queries))
	}
	fill := strings.NewReplacer("$__rate_interval", "1m", "$instance", ".*", "$peer", ".*")
	var b strings.Builder
	b.WriteString("groups:\n- name: dashboard\n  rules:\n")
	for i, title := range slices.Sorted(func(yield func(string) bool) {
		for k := range queries {
			if !yield(k) {
				return
			}
		}
	}) {
		expr, err := json.Marshal(fill.Replace(queries[title]))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "  - record: query%d # %s\n    expr: %s\n", i, title, expr)
	}
	file := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", file)
}

var (
	metricName = regexp.MustCompile(`\bxfrmscope_[a-z0-9_]+\b`)
	recorded   = regexp.MustCompile(`\bxfrmscope:[a-z0-9_:]+\b`)
	records    = regexp.MustCompile(`(?m)record: (xfrmscope:[a-z0-9_:]+)$`)
)

// TestNamesExist makes sure that rules, alerts and dashboard ask for metrics that are exported, and for rules
// that are recorded.
func TestNamesExist(t *testing.T) {
	var exported []string
	for _, m := range export.Metrics() {
		exported = append(exported, m.Name)
	}
	texts := dashboardQueries(t)
	files, err := fs.Glob(Files, "prometheus/*.yml")
	if err != nil {
		t.Fatal(err)
	}
	var rules []string
	for _, f := range files {
		raw, err := Files.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		texts[f] = string(raw)
		for _, m := range records.FindAllStringSubmatch(texts[f], -1) {
			rules = append(rules, m[1])
		}
	}
	if len(files) != 3 || len(rules) < 6 {
		t.Fatalf("files %v, rules %v", files, rules)
	}
	for where, text := range texts {
		for _, name := range metricName.FindAllString(text, -1) {
			// One query asks for a family of names by a pattern.
			if !slices.Contains(exported, name) && !strings.HasSuffix(name, "_") {
				t.Errorf("%s asks for %s, which is not exported", where, name)
			}
		}
		for _, name := range recorded.FindAllString(text, -1) {
			if !slices.Contains(rules, name) {
				t.Errorf("%s asks for %s, which no rule records", where, name)
			}
		}
	}
}
