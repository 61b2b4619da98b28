// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// memory is what a process holds at one moment, in bytes: pages of its own, pages of what it maps (the program itself,
// the kernel's tables and rings), and the size of all that it maps, whether touched or not.
type memory struct {
	at                  time.Duration
	own, mapped, extent int64
	goal                float64 // of its garbage collector: twice what was in use when that last ran
	took                float64 // seconds for a snapshot
}

func (m memory) String() string {
	return fmt.Sprintf("%s: own %.1f MB (collected at %.1f), mapped %.1f of %.1f MB; a snapshot took %.2f s", m.at.Round(time.Second),
		float64(m.own)/1e6, m.goal/1e6, float64(m.mapped)/1e6, float64(m.extent)/1e6, m.took)
}

// memoryOf reads the memory of a process.
func memoryOf(pid int) (m memory, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, err
	}
	found := 0
	for line := range strings.Lines(string(status)) {
		name, text, _ := strings.Cut(line, ":")
		into := map[string]*int64{"RssAnon": &m.own, "RssFile": &m.mapped, "RssShmem": &m.mapped}[name]
		if into == nil {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 10, 64)
		if err != nil {
			return m, fmt.Errorf("status: %q: %w", line, err)
		}
		*into += n << 10
		found++
	}
	if found != 3 {
		return m, fmt.Errorf("status: %d of the three kinds of pages", found)
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return m, err
	}
	m.extent, err = extent(maps)
	return m, err
}

// extent adds up the sizes of the mappings of /proc/PID/maps that are of a file, a table or a ring.
func extent(maps []byte) (sum int64, err error) {
	for lines := bufio.NewScanner(bytes.NewReader(maps)); lines.Scan(); {
		f := strings.Fields(lines.Text()) // from-to, rights, offset, device, inode, path
		if len(f) < 6 || !strings.HasPrefix(f[5], "/") && !strings.HasPrefix(f[5], "anon_inode:") {
			continue
		}
		var from, to int64
		if _, err := fmt.Sscanf(f[0], "%x-%x", &from, &to); err != nil {
			return 0, fmt.Errorf("maps: %q: %w", lines.Text(), err)
		}
		sum += to - from
	}
	return sum, nil
}

// flat demands that a process that has settled holds no more than before, and that it maps no more than when it began.
func flat(t *testing.T, all []memory, settling time.Duration) {
	t.Helper()
	first, last := all[0], all[len(all)-1]
	for _, m := range all {
		if m.mapped > first.extent || m.extent != first.extent {
			t.Errorf("after %s %d bytes of %d mapped ones are in memory; at the beginning, %d were mapped", m.at, m.mapped, m.extent, first.extent)
			break
		}
	}
	if last.at < 2*settling {
		return // too short to tell
	}
	from := slices.IndexFunc(all, func(m memory) bool { return m.at >= settling })
	middle := from + (len(all)-from)/2
	before, after := most(all[from:middle]), most(all[middle:])
	t.Logf("settled: its own memory is at most %.1f MB in the first half, %.1f MB in the second", float64(before)/1e6, float64(after)/1e6)
	if after > before+before/20+1e6 {
		t.Errorf("the process grows: at most %d bytes of its own in the first half of what followed, %d in the second", before, after)
	}
}

func most(all []memory) (n int64) {
	for _, m := range all {
		n = max(n, m.own)
	}
	return n
}

// TestMemoryOf maps pages and touches half of them: they are mapped, and that half is in memory.
func TestMemoryOf(t *testing.T) {
	const size = 32 << 20
	read := func() memory {
		t.Helper()
		m, err := memoryOf(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	fd, err := unix.MemfdCreate("pages", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, size); err != nil {
		t.Fatal(err)
	}
	before := read()
	pages, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(pages)
	mapped := read()
	for i := 0; i < size/2; i += os.Getpagesize() {
		pages[i] = 1
	}
	touched := read()
	if n := mapped.extent - before.extent; n != size || touched.extent != mapped.extent {
		t.Errorf("%d bytes more are mapped, want %d; %d once touched", n, size, touched.extent-before.extent)
	}
	// The program's own pages come in as it runs.
	if n := touched.mapped - mapped.mapped; n < size/2 || n > size*3/4 {
		t.Errorf("%d bytes more are in memory, want %d", n, size/2)
	}
}
