// SPDX-License-Identifier: Apache-2.0

// Package rooms holds the walls between the other packages: docs/architecture.md says which room may know what, and
// this test is what keeps it so. `make lint` runs it.
package rooms

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// kernelSide is what is behind the snapshot: a room that does without it serves a live gateway, a capture and a recording
// alike, and needs no privilege to be tested.
var kernelSide = []string{
	"github.com/cilium/ebpf", "github.com/mdlayher/netlink", "github.com/vishvananda/netlink", "github.com/google/nftables", "github.com/spf13/cobra",
	"xfrmscope/internal/bpfobj", "xfrmscope/internal/cli", "xfrmscope/internal/drops", "xfrmscope/internal/kernel", "xfrmscope/internal/probe",
	"xfrmscope/internal/reader", "xfrmscope/internal/xfrm",
}

// apart are rooms that know none of it, not even by way of others.
var apart = []string{"check", "compare", "ike", "ledger", "pcap", "private", "privilege", "report", "trigger", "tui", "verdict"}

// keepers are the rooms that alone import a library, or one of the standard library's packages that reaches far out
// of the process; what they make of it they hand on in words of their own.
var keepers = map[string][]string{
	"github.com/spf13/cobra":                 {"cli", "cmd/xfrmscope-docs"},
	"github.com/cilium/ebpf":                 {"bpfobj", "capture", "cli", "drops", "kernel", "probe", "reader", "replay"},
	"github.com/mdlayher/netlink":            {"probe", "xfrm"},
	"github.com/vishvananda/netlink":         {"cli", "host", "mtu", "probe"},
	"github.com/google/nftables":             {"netfilter"},
	"github.com/safchain/ethtool":            {"host"},
	"github.com/strongswan/govici":           {"vici"},
	"github.com/gopacket/gopacket":           {"pcap"},
	"github.com/expr-lang/expr":              {"check"},
	"github.com/prometheus/client_golang":    {"export"},
	"github.com/prometheus/exporter-toolkit": {"export"},
	"go.opentelemetry.io/otel":               {"export"},
	"charm.land/bubbletea":                   {"cli", "tui"},
	"net/http":                               {"export"},
	"os/exec":                                {"check"},
	"xfrmscope/internal/cli":                 {"cmd/xfrmscope", "cmd/xfrmscope-docs"},
	"xfrmscope/internal/lab":                 {}, // what tests are made with is in no program
}

// listed is what `go list` says of a package.
type listed struct {
	ImportPath    string
	Imports, Deps []string
}

// packages are those of the program, without the lab.
func packages(t *testing.T) map[string]listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "xfrmscope/cmd/...", "xfrmscope/internal/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]listed{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if !below(p.ImportPath, "xfrmscope/internal/lab") {
			all[room(p.ImportPath)] = p
		}
	}
	return all
}

func room(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, "xfrmscope/"), "internal/")
}

// below says whether a package is one of a module or folder, of whatever major version.
func below(path, of string) bool { return path == of || strings.HasPrefix(path, of+"/") }

func TestApart(t *testing.T) {
	all := packages(t)
	for _, name := range apart {
		p, ok := all[name]
		if !ok {
			t.Errorf("there is no room %s", name)
		}
		for _, dep := range p.Deps {
			for _, wall := range kernelSide {
				if below(dep, wall) {
					t.Errorf("%s depends on %s", name, dep)
				}
			}
		}
	}
}

func TestKeepers(t *testing.T) {
	all := packages(t)
	for library, rooms := range keepers {
		kept := map[string]bool{}
		for name, p := range all {
			if !slices.ContainsFunc(p.Imports, func(path string) bool { return below(path, library) }) {
				continue
			}
			kept[name] = true
			if !slices.Contains(rooms, name) {
				t.Errorf("%s imports %s, which only %v may", name, library, rooms)
			}
		}
		for _, name := range rooms {
			if !kept[name] {
				t.Errorf("%s may import %s and does not: the wall can be closed", name, library)
			}
		}
	}
}
