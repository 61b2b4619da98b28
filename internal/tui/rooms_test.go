// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"os/exec"
	"strings"
	"testing"
)

// TestRoomsApart holds the walls: the screens know no kernel, no socket and no command line.
func TestRoomsApart(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dep := range strings.Lines(string(out)) {
		dep = strings.TrimSpace(dep)
		for _, wall := range []string{"github.com/cilium/ebpf", "netlink", "github.com/spf13/cobra", "xfrmscope/internal/reader", "xfrmscope/internal/cli", "xfrmscope/internal/probe"} {
			if strings.Contains(dep, wall) {
				t.Errorf("the screens depend on %s", dep)
			}
		}
	}
}
