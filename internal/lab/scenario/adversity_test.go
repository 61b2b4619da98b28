// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/tunnel"
)

// oneOfEach is a fault of each kind, on one SA, among the first 200 numbers.
func oneOfEach(spi uint32) []inject.Rule {
	var rules []inject.Rule
	for _, r := range mixed.rules {
		if r.Action == inject.Delay {
			r.Seqs = []uint32{60}
		}
		r.SPI = spi
		rules = append(rules, r)
	}
	return rules
}

// theirCauses is what xfrm drops of it.
var theirCauses = map[string]int64{"replay_duplicate": 2, "replay_late": 1, "integrity_failed": 1}

// checkEach judges a run with oneOfEach.
func (b *bench) checkEach(o observation) {
	b.t.Helper()
	s := b.tunnel.AtoB[0]
	b.checkOne(o, s, theirCauses)
	o.checkFindings(b.t, "duplicate-packets "+name(s.SPI), "integrity-failed "+name(s.SPI), "path-loss "+name(s.SPI),
		"replay-window-too-small "+name(s.SPI))
}

// TestReaderStopped stops xfrmscope by SIGSTOP while most of the packets and all of the faults pass, and sets the
// machine's clock meanwhile, an hour forward and two back. Counts are the kernel's work, and the ledger's time is a
// clock that nobody can set: when it goes on nothing may be missing.
func TestReaderStopped(t *testing.T) {
	tunnel.Need(t)
	step := func(d time.Duration) {
		t.Helper()
		now := unix.NsecToTimeval(time.Now().Add(d).UnixNano())
		if err := unix.Settimeofday(&now); err != nil {
			t.Fatalf("set the clock: %v", err)
		}
	}
	began := time.Now()
	b := open(t, tunnel.Options{}, oneOfEach(tunnel.FirstSPIAtoB))
	s := b.tunnel.AtoB[0]
	b.send(s, 10)
	b.settle()
	halt(t, b.tool.cmd.Process.Pid)
	b.send(s, 60)
	step(time.Hour)
	t.Cleanup(func() { step(time.Hour) })
	b.send(s, 180)
	b.settle()
	time.Sleep(2 * horizon) // so that it wakes up with all of its timers overdue
	if err := b.tool.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	b.send(s, 30)
	step(-2 * time.Hour)
	b.send(s, 20)
	o := b.finish()
	b.checkEach(o)
	if d := time.Duration(o.report.Source.DurationS * float64(time.Second)); d < horizon || d > time.Since(began) {
		t.Errorf("the report is about %s, the test took %s", d, time.Since(began))
	}
}

// TestTwoAtOnce has two observers on one device, who must not see each other, and one of whom leaves first.
func TestTwoAtOnce(t *testing.T) {
	tunnel.Need(t)
	b := open(t, tunnel.Options{}, oneOfEach(tunnel.FirstSPIAtoB))
	other := *b
	other.tool = startTool(t, b.tunnel.B)
	s, back := b.tunnel.AtoB[0], b.tunnel.BtoA[0]
	b.send(s, 250)
	b.send(back, 40)
	first := b.finish()
	b.checkEach(first)
	b.checkOut(first, back.SPI, 40)
	b.send(s, 50)
	b.send(back, 10)
	second := other.finish()
	other.checkEach(second)
	other.checkOut(second, back.SPI, 50)
}

// TestESPLoadedLate starts xfrmscope on a kernel that has not loaded ESP yet, as a gateway does that boots.
func TestESPLoadedLate(t *testing.T) {
	tunnel.Need(t)
	// SAs of tests before this one are let go of in the background.
	var out []byte
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if out, err = exec.Command("modprobe", "-r", "esp4").CombinedOutput(); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatalf("unload esp4: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("modprobe", "esp4").CombinedOutput(); err != nil {
			t.Errorf("load esp4: %v: %s", err, out)
		}
	})
	b := open(t, tunnel.Options{NoSAs: true}, oneOfEach(tunnel.FirstSPIAtoB))
	if loaded(t, "esp4") {
		t.Fatal("invalid run: something has loaded esp4 before the first SA")
	}
	if err := b.tunnel.AddSAs(); err != nil {
		t.Fatal(err)
	}
	if !loaded(t, "esp4") {
		t.Fatal("invalid run: the SAs work without esp4")
	}
	b.openFlows()
	s := b.tunnel.AtoB[0]
	b.send(s, 250)
	b.checkEach(b.finish())
}

func loaded(t *testing.T, module string) bool {
	t.Helper()
	out, err := exec.Command("lsmod").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains("\n"+string(out), "\n"+module+" ")
}

// TestOffloadedGRO has the kernel decrypt packets within GRO, before they are packets of the stack: native XDP comes even
// before that, and what xfrm drops there is told apart as ever.
func TestOffloadedGRO(t *testing.T) {
	tunnel.Need(t)
	b := open(t, tunnel.Options{}, oneOfEach(tunnel.FirstSPIAtoB), "--mode", "xdp")
	command(t, b.tunnel.B.Namespace, "modprobe esp4_offload")
	t.Cleanup(func() { command(t, b.tunnel.B.Namespace, "modprobe -r esp4_offload") })
	command(t, b.tunnel.B.Namespace, "ethtool -K "+tunnel.WAN+" gro on")
	s, back := b.tunnel.AtoB[0], b.tunnel.BtoA[0]
	b.send(s, 250)
	b.send(back, 50)
	o := b.finish()
	b.checkEach(o)
	b.checkOut(o, back.SPI, 50)
}

// TestWithoutAudit hides the functions that a kernel without CONFIG_AUDITSYSCALL does not have, by a symbol table that lacks
// them: no Debian kernel is built so. One that is has nothing to hide. Which SA xfrm dropped a packet of, and why, then follows from the drop itself, the counter that
// moved and the SA's own counters.
func TestWithoutAudit(t *testing.T) {
	tunnel.Need(t)
	const functions = "xfrm_audit_state_"
	hideSymbols(t, functions)
	b := open(t, tunnel.Options{}, oneOfEach(tunnel.FirstSPIAtoB))
	s, back := b.tunnel.AtoB[0], b.tunnel.BtoA[0]
	b.send(s, 250)
	b.send(back, 50)
	o := b.finish()
	b.checkEach(o)
	b.checkOut(o, back.SPI, 50)
	declined := 0
	for _, h := range o.report.Hooks {
		if !strings.HasPrefix(h.Name, functions) {
			continue
		}
		declined++
		if h.Attached || !strings.Contains(h.Why, "CONFIG_AUDITSYSCALL") || h.Costs == "" {
			t.Errorf("%s: attached %t, why %q, costs %q", h.Name, h.Attached, h.Why, h.Costs)
		}
	}
	if declined != 5 {
		t.Errorf("%d hooks on %s*, want 5", declined, functions)
	}
}

// hideSymbols has the kernel's symbol table lack what begins so, until the test ends.
func hideSymbols(t *testing.T, prefix string) {
	t.Helper()
	all, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	var shown []byte
	for line := range bytes.Lines(all) {
		if f := bytes.Fields(line); len(f) <= 2 || !bytes.HasPrefix(f[2], []byte(prefix)) {
			shown = append(shown, line...)
		}
	}
	table := filepath.Join(t.TempDir(), "kallsyms")
	if err := os.WriteFile(table, shown, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(table, "/proc/kallsyms", "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("hide symbols: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount("/proc/kallsyms", 0); err != nil {
			t.Errorf("show symbols again: %v", err)
		}
	})
}
