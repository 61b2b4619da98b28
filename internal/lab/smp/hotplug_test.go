// SPDX-License-Identifier: Apache-2.0

package smp

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"xfrmscope/internal/lab/tunnel"
)

// TestProcessorUnplugged takes away the processor that decrypts, sends on, and gives it back. What each processor counted
// stays counted, and no figure of a processor that was not there makes anything of it.
func TestProcessorUnplugged(t *testing.T) {
	tunnel.Need(t)
	if runtime.NumCPU() <= busyCPU {
		t.Fatal("this test needs two processors: scripts/vm/test -c 2")
	}
	const each = 400
	b := build(t)
	b.store.fill(3 * each)
	plug := func(state string) {
		t.Helper()
		if err := os.WriteFile(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/online", busyCPU), []byte(state), 0); err != nil {
			t.Fatalf("set processor %d to %s: %v", busyCPU, state, err)
		}
	}
	t.Cleanup(func() { plug("1") })
	x := startTool(t, b.tunnel.B)
	b.store.send(each, time.Millisecond, patience)
	plug("0")
	b.store.send(each, time.Millisecond, patience)
	time.Sleep(3 * time.Second) // xfrmscope looks at the processors while one is gone
	plug("1")
	b.store.send(each, time.Millisecond, patience)
	report, exit := x.finish(t)

	diff(t, "exit status", 0, exit)
	diff(t, "findings", 0, len(report.Findings))
	i := slices.IndexFunc(report.SAs, func(s sa) bool { return s.SPI == name(b.tunnel.AtoB[0].SPI) && s.Direction == "in" })
	if i < 0 {
		t.Fatal("the report lacks the SA")
	}
	s := report.SAs[i]
	diff(t, "ledger", bins{Arrivals: 3 * each, Decapsulated: 3 * each, Delivered: 3 * each}, s.Ledger)
	diff(t, "the SA's packets by processor", map[string]int64{strconv.Itoa(labCPU): each, strconv.Itoa(busyCPU): 2 * each}, s.CPUs)
	for _, c := range report.Host.CPUs {
		if c.BusyPercent < 0 || c.BusyPercent > 100 || c.SoftirqPercent < 0 || c.SoftirqPercent > 100 || c.Dropped != 0 {
			t.Errorf("processor %d: %+v", c.ID, c)
		}
	}
}
