// SPDX-License-Identifier: Apache-2.0

package icount

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A count may be so much above what it was: the kernel's own tables are hashed by addresses and secrets
// that differ from boot to boot, so what they cost is not quite the same.
const (
	tolerance      = 0.03
	toleranceLeast = 8 // instructions
)

// kernelSeries is the running kernel's series, as in 6.12.
func kernelSeries(t *testing.T) string {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	release := unix.ByteSliceToString(name.Release[:])
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		t.Fatalf("read the kernel's version %q: %v", release, err)
	}
	return fmt.Sprintf("%d.%d", major, minor)
}

// baseline reads the counts of earlier runs on this kernel: a name a line, and behind it a number, or several
// where boots differ, each of them by one and the same leap.
func baseline(t *testing.T) map[string][]float64 {
	t.Helper()
	path := filepath.Join("testdata", kernelSeries(t)+".txt")
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: no counts to hold these against: make bench-vm UPDATE=yes writes them", path)
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string][]float64{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			t.Fatalf("%s: line %q: want a name and numbers", path, lines.Text())
		}
		for _, field := range fields[1:] {
			n, err := strconv.ParseFloat(field, 64)
			if err != nil {
				t.Fatalf("%s: line %q: %v", path, lines.Text(), err)
			}
			out[fields[0]] = append(out[fields[0]], n)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// compare says where a program takes more instructions than it did, and which is new or gone; and where one
// takes fewer.
func compare(was map[string][]float64, is map[string]float64) (worse, better []string) {
	for _, name := range slices.Sorted(maps.Keys(is)) {
		n := is[name]
		if len(was[name]) == 0 {
			worse = append(worse, fmt.Sprintf("%s: %.0f instructions, and nothing to hold them against", name, n))
			continue
		}
		old := slices.MinFunc(was[name], func(a, b float64) int { return cmp.Compare(math.Abs(n-a), math.Abs(n-b)) })
		slack := max(toleranceLeast, old*tolerance)
		switch {
		case n > old+slack:
			worse = append(worse, fmt.Sprintf("%s: %.0f instructions, %.0f more than before; allowed are %.0f more", name, n, n-old, slack))
		case n < old-slack:
			better = append(better, fmt.Sprintf("%s: %.0f instructions, %.0f fewer than before: make bench-vm UPDATE=yes keeps it so", name, n, old-n))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		if _, there := is[name]; !there {
			worse = append(worse, name+": did not run")
		}
	}
	return worse, better
}

// TestCompare needs no virtual machine: what is more, new or gone is told, and what is within the slack is not.
func TestCompare(t *testing.T) {
	was := map[string][]float64{"same": {500}, "slack": {100}, "slower": {1000}, "small": {100}, "faster": {1000}, "gone": {10},
		"either": {1000, 1200}, "neither": {1000, 1200}}
	is := map[string]float64{"same": 500, "slack": 108, "slower": 1031, "small": 109, "faster": 900, "new": 10,
		"either": 1210, "neither": 1090}
	worse, better := compare(was, is)
	var got []string
	for _, line := range append(worse, better...) {
		name, _, _ := strings.Cut(line, ":")
		got = append(got, name)
	}
	if want := []string{"neither", "new", "slower", "small", "gone", "faster"}; !slices.Equal(got, want) {
		t.Errorf("told are %v, want %v", got, want)
	}
}
