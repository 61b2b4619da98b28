// SPDX-License-Identifier: Apache-2.0

package icount

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// ownTransfers is how many transfers the programs' own instructions are the median of.
const ownTransfers = 3

// programs are the BPF programs that the kernel has now.
func programs(t *testing.T) map[ebpf.ProgramID]bool {
	t.Helper()
	out := map[ebpf.ProgramID]bool{}
	var id ebpf.ProgramID
	for {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		id = next
		out[id] = true
	}
}

// ownCost prints the instructions that all programs together take for a megabyte which are there now and were
// not before: the kernel's run-time statistics of them. What it takes to get into a tracepoint or a kprobe is
// not among them, nor is what happens in user space.
func ownCost(t *testing.T, name string, before map[ebpf.ProgramID]bool, run func()) {
	t.Helper()
	progs := map[string]*ebpf.Program{}
	for id := range programs(t) {
		if before[id] {
			continue
		}
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			t.Fatal(err)
		}
		defer closed(t, p)
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		key := info.Name
		for progs[key] != nil {
			key += "'"
		}
		progs[key] = p
	}
	if len(progs) == 0 {
		t.Logf("OWN %s: has no programs that the kernel has statistics of", name)
		return
	}
	counting, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, counting)
	var all []float64
	per, runs := map[string][]float64{}, map[string][]float64{}
	for range ownTransfers {
		was := stats(t, progs)
		run()
		var sum float64
		for name, is := range stats(t, progs) {
			took := float64((is.Runtime - was[name].Runtime).Nanoseconds())
			sum += took
			per[name] = append(per[name], took)
			runs[name] = append(runs[name], float64(is.RunCount-was[name].RunCount))
		}
		all = append(all, sum)
	}
	for _, program := range slices.Sorted(maps.Keys(per)) {
		if n, took := middle(runs[program]), middle(per[program]); took/megabytes > 500 {
			t.Logf("OWN %s: %-16s %6.0f thousand instructions for a MB, %.0f runs of %.0f", name, program, took/megabytes/1e3, n/megabytes, took/n)
		}
	}
	slices.Sort(all)
	t.Logf("OWN %s: %-16s %6.0f thousand instructions for a MB, %.0f to %.0f, %d programs", name, "together", middle(all)/megabytes/1e3,
		all[0]/megabytes/1e3, all[len(all)-1]/megabytes/1e3, len(progs))
}

// middle is the median.
func middle(of []float64) float64 {
	of = slices.Sorted(slices.Values(of))
	return of[len(of)/2]
}

// TestMiddle needs no virtual machine.
func TestMiddle(t *testing.T) {
	of := []float64{3, 1, 2}
	if m := middle(of); m != 2 || fmt.Sprint(of) != "[3 1 2]" {
		t.Errorf("the middle of 3, 1, 2 is %v, and they are now %v", m, of)
	}
}
