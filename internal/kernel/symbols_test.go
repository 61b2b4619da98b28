// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const table = `ffffffff81000000 T _stext
ffffffff81001000 t xfrm_input.cold
ffffffff81001040 t __pfx_ip_forward
ffffffff81001050 T ip_forward
ffffffff81001150 T __pfx_xfrm_input
ffffffff81001160 T xfrm_input
ffffffff81001160 T xfrm_input_alias
ffffffff81001960 t xfrm_output_one.isra.0
ffffffff81001a60 W last_of_kernel
ffffffff82000000 D init_net
0000000000019000 A __per_cpu_thing
ffffffffc0001000 t esp_output_done	[esp4]
ffffffffc0001080 t esp_output	[esp4]
ffffffffc0002000 t esp_output_done	[esp6]
`

func parse(t *testing.T, s string) *Symbols {
	t.Helper()
	symbols, err := ParseSymbols(strings.NewReader(s))
	if err != nil {
		t.Fatal(err)
	}
	return symbols
}

func TestFunction(t *testing.T) {
	symbols := parse(t, table)
	for _, tc := range []struct {
		name string
		want []Range
	}{
		{"xfrm_input", []Range{
			{0xffffffff81001000, 0xffffffff81001040, "xfrm_input.cold"},
			{0xffffffff81001160, 0xffffffff81001960, "xfrm_input"},
		}},
		{"ip_forward", []Range{{0xffffffff81001050, 0xffffffff81001150, "ip_forward"}}},
		{"xfrm_output_one", []Range{{0xffffffff81001960, 0xffffffff81001a60, "xfrm_output_one.isra.0"}}},
		{"esp_output_done", []Range{
			{0xffffffffc0001000, 0xffffffffc0001080, "esp_output_done"},
			{0xffffffffc0002000, 0xffffffffc0003000, "esp_output_done"},
		}},
		{"last_of_kernel", []Range{{0xffffffff81001a60, 0xffffffff81002a60, "last_of_kernel"}}},
		{"init_net", nil},
		{"absent", nil},
	} {
		if diff := cmp.Diff(tc.want, symbols.Function(tc.name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

func TestName(t *testing.T) {
	symbols := parse(t, table)
	for address, want := range map[uint64]string{
		0xffffffff81001162: "xfrm_input+0x2",
		0xffffffff8100195f: "xfrm_input+0x7ff",
		0xffffffffc0001090: "esp_output+0x10 [esp4]",
		0xffffffff80000000: "0xffffffff80000000",
		0xffffffffd0000000: "0xffffffffd0000000",
	} {
		if got := symbols.Name(address); got != want {
			t.Errorf("name of %#x is %q, want %q", address, got, want)
		}
	}
	var none *Symbols
	if got := none.Name(0x12); got != "0x12" {
		t.Errorf("without a table: %q", got)
	}
}

func TestParseSymbolsRefuses(t *testing.T) {
	_, err := ParseSymbols(strings.NewReader("0000000000000000 T xfrm_input\n0000000000000000 T ip_forward\n"))
	if !errors.Is(err, ErrSymbolsHidden) {
		t.Errorf("hidden addresses: error is %v", err)
	}
	for _, bad := range []string{"", "nonsense\n", "zz T name\n", "ffffffff81000000 T\n"} {
		if _, err := ParseSymbols(strings.NewReader(bad)); err == nil {
			t.Errorf("table %q was accepted", bad)
		}
	}
}

func TestSites(t *testing.T) {
	var got []SiteKind
	var names []string
	sites := Sites(parse(t, table))
	for i, s := range sites {
		got = append(got, s.Kind)
		names = append(names, s.Name)
		if i > 0 && s.Start < sites[i-1].End {
			t.Errorf("%s overlaps %s", s.Name, sites[i-1].Name)
		}
	}
	want := []SiteKind{SiteInput, SiteForward, SiteInput, SiteOutput, SiteOutput, SiteOutput}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sites %v (-want +got):\n%s", names, diff)
	}
}

// The running kernel's own table must have what every kernel with IPsec has.
func TestRunningKernelsSites(t *testing.T) {
	symbols, err := LoadSymbols()
	if err != nil {
		needRoot(t, err)
	}
	sites := Sites(symbols)
	if len(sites) < 20 || len(sites) > 256 {
		t.Errorf("%d sites, want 20 to 256", len(sites))
	}
	t.Logf("%d sites", len(sites))
	seen := map[string]bool{}
	for i, s := range sites {
		seen[baseName(s.Name)] = true
		if s.End <= s.Start || s.End-s.Start > 1<<16 {
			t.Errorf("%s has %d bytes", s.Name, s.End-s.Start)
		}
		if i > 0 && s.Start < sites[i-1].End {
			t.Errorf("%s overlaps %s", s.Name, sites[i-1].Name)
		}
	}
	for _, name := range []string{"xfrm_input", "xfrm_output", "xfrm_output_resume", "ip_forward", "ip6_forward", "tcp_v4_rcv"} {
		if !seen[name] {
			t.Errorf("%s not found", name)
		}
	}
}

// needRoot ends a test that this machine does not allow: skipped for a developer, failed in CI.
func needRoot(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("CI must be able to run this: %v", err)
	}
	t.Skip(err)
}
