// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"xfrmscope/internal/lab/terminal"
)

// TestWatchInTerminal drives watch in a real terminal: what is sent appears, keys and sizes are followed,
// and the terminal is left as it was.
func TestWatchInTerminal(t *testing.T) {
	terminal.Need(t)
	ns := terminalNamespace(t)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	term := terminal.Open(t, 120, 40, fmt.Sprintf(`export LANG=C.UTF-8; cd %s; stty -g >before; echo what was there before
sh -c 'echo $$ >pid; exec %s watch --netns %s --interface wan --stats --ready-file ready'
echo exit $?; stty -g >after.new; mv after.new after; exec sleep 600`, dir, watchProgram(t), ns))
	awaitWatchFile(t, at("ready"))
	term.Await("no SAs: none", "nothing found")

	// Of the numbers 1 to 20, 4 and 5 never come; 9 comes after 11, 15 twice.
	sendESP(t, ns, 1, 2, 3, 6, 7, 8, 10, 11, 9, 12, 13, 14, 15, 15, 16, 17, 18, 19, 20)
	screen := term.Await(`\?0xc0ffee01 in +192\.0\.2\.1 +- +- +\S+ +\S+ +10% +2 +1 `, "lost 2 ")
	for i, l := range strings.Split(strings.TrimRight(screen, "\n"), "\n") {
		if n := len([]rune(l)); n > 120 {
			t.Errorf("line %d has %d columns", i, n)
		}
	}
	// The cost is in view, and the memory is what the kernel says of the maps that the process holds.
	memory := float64(heldByMaps(t, strings.TrimSpace(watchFile(t, at("pid"))))) / (1 << 20)
	term.Await(fmt.Sprintf(`cost +\d+ ns/run +BPF [\d.]+ %% +CPU [\d.]+ %% +maps %.1f MiB +events lost 0 withheld 0`, memory))

	term.Tmux("resize-window", "-t", "w", "-x", "80", "-y", "24")
	screen = term.Await(`(?m)^enter SA .* c cost$`, `0xc0ffee01 in +192\.0\.2\.1 `, `(?m)^nothing found$`)
	if strings.Contains(screen, "BIT/S") {
		t.Errorf("a column is shown at 80 that does not fit:\n%s", screen)
	}

	term.Keys("Enter")
	term.Await(`SA 0xc0ffee01 in +192\.0\.2\.1 > 192\.0\.2\.2`, `sent by the peer +20`, `- lost on the path +2`, `= unique +18  1 late`, `\+ duplicates +1`, `= arrived +19`)
	term.Keys("End")
	term.Await(`duplicate 192\.0\.2\.1 > 192\.0\.2\.2 seq=15`, `gap +192\.0\.2\.1 > 192\.0\.2\.2 seq=6 skipped=2`)
	term.Keys("c")
	term.Await("PROGRAM +NS PER RUN +RUNS", `(xdp|tc)_ingress +\d+ +\d+`)
	term.Keys("?")
	term.Await("sort by the column to the left")
	term.Keys("Escape")
	term.Await("PROGRAM")
	term.Keys("Escape")
	term.Await("SA 0xc0ffee01")
	term.Keys("Escape")
	term.Await("enter SA")

	term.Keys("p")
	term.Await("PAUSED")
	sendESP(t, ns, 21, 22, 23)
	term.Keys("p")
	// Two of 23: all that was sent has been counted before the account begins anew.
	term.Await(`every 1s`, `in +192\.0\.2\.1 +\S+ +8\.7% +2 +1 `)
	term.Keys("r")
	// Without an entry in the SA database there is nothing to show of it until its next packet.
	term.Await("no SAs: none", "over the time since the reset")
	sendESP(t, ns, 24, 26)
	term.Await(`in +192\.0\.2\.1 +\S+ +33% +1 +0 `)

	term.Keys("q")
	screen = term.Await(`exit 0`, `watched 1 SA for .*: 1 packets? lost`)
	if !strings.Contains(screen, "what was there before") || strings.Contains(screen, "SPI") {
		t.Errorf("what was on the screen before is not there again:\n%s", screen)
	}
	awaitWatchFile(t, at("after"))
	if before, after := watchFile(t, at("before")), watchFile(t, at("after")); before != after || before == "" {
		t.Errorf("the terminal's settings were %q and are %q", before, after)
	}
	if flags := term.Tmux("display-message", "-p", "-t", "w", "#{alternate_on} #{cursor_flag}"); strings.TrimSpace(flags) != "0 1" {
		t.Errorf("alternate screen and cursor are %q", flags)
	}
}

// TestWatchWithoutColour looks at what reaches a terminal under NO_COLOR, and that SIGTERM restores it.
func TestWatchWithoutColour(t *testing.T) {
	terminal.Need(t)
	ns := terminalNamespace(t)
	dir := t.TempDir()
	pid := filepath.Join(dir, "pid")
	term := terminal.Open(t, 80, 24, fmt.Sprintf(
		"export LANG=C.UTF-8 NO_COLOR=yes; sh -c 'echo $$ > %s; exec %s watch --netns %s --interface wan'; echo exit $?; exec sleep 600",
		pid, watchProgram(t), ns))
	term.Await("no SAs: none")
	sendESP(t, ns, 1, 2, 5, 6)
	term.Await(`in +192\.0\.2\.1 +\S+ +33% +2 `)
	coloured := regexp.MustCompile("\x1b\\[[0-9;]*(3[0-7]|4[0-7]|9[0-7]|10[0-7])[0-9;]*m")
	screen := term.Tmux("capture-pane", "-e", "-p", "-t", "w")
	if c := coloured.FindString(screen); c != "" {
		t.Errorf("a colour on the screen: %q", c)
	}
	if !regexp.MustCompile("\x1b\\[(0;)?7m[^\n]*0xc0ffee01").MatchString(screen) {
		t.Errorf("no row is marked:\n%q", screen)
	}
	if out, err := exec.Command("kill", "-TERM", strings.TrimSpace(watchFile(t, pid))).CombinedOutput(); err != nil {
		t.Fatalf("kill: %v: %s", err, out)
	}
	term.Await(`exit 0`, `watched 1 SA`)
	if flags := term.Tmux("display-message", "-p", "-t", "w", "#{alternate_on} #{cursor_flag}"); strings.TrimSpace(flags) != "0 1" {
		t.Errorf("alternate screen and cursor are %q", flags)
	}
}

func awaitWatchFile(t *testing.T, path string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
	}
	t.Fatalf("%s does not appear", path)
}

// watchProgram is this test's binary under the name that makes it xfrmscope (see TestMain).
func watchProgram(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "xfrmscope")
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// terminalNamespace makes a network namespace with a device "wan" that owns 192.0.2.2.
func terminalNamespace(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("xfrmscope-watch-%d-%d", os.Getpid(), time.Now().UnixNano())
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
			t.Logf("ip netns del %s: %v: %s", name, err, out)
		}
	})
	if err := buildNamespace(name); err != nil {
		t.Fatal(err)
	}
	return name
}

func sendESP(t *testing.T, namespace string, seqs ...uint32) {
	t.Helper()
	if err := espInto(namespace, seqs); err != nil {
		t.Fatal(err)
	}
}

func watchFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// heldByMaps sums the memory of the BPF maps that a process has open, each once, as /proc tells it.
func heldByMaps(t *testing.T, pid string) (sum int64) {
	t.Helper()
	files, err := filepath.Glob("/proc/" + pid + "/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // closed meanwhile
		}
		fields := map[string]string{}
		for l := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(l, ":"); ok {
				fields[k] = strings.TrimSpace(v)
			}
		}
		if id := fields["map_id"]; id != "" && !seen[id] {
			seen[id] = true
			n, err := strconv.ParseInt(fields["memlock"], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}
