// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/lab/tunnel"
)

// planted are keys that this test gave to the kernel, and looks for everywhere else.
type planted struct {
	keys  [][]byte
	forms map[string][]byte // what a part of a key may look like, by what it is
}

// window is how many bytes of a key are looked for at a time. Windows lie side by side, so whatever holds twice as
// many bytes of a key in a row, less one, holds one of them.
const window = 8

// draw makes a key and keeps it in mind.
func (p *planted) draw(t *testing.T, size int) string {
	t.Helper()
	key := make([]byte, size)
	if _, err := rand.Read(key); err != nil {
		t.Fatal(err)
	}
	p.keys = append(p.keys, key)
	if p.forms == nil {
		p.forms = map[string][]byte{}
	}
	for at := 0; at+window <= size; at += window {
		part, of := key[at:at+window], fmt.Sprintf("%d bytes of key %d from byte %d", window, len(p.keys), at)
		p.forms[of] = part
		p.forms[of+", hexadecimal"] = []byte(hex.EncodeToString(part))
		p.forms[of+", upper case"] = []byte(strings.ToUpper(hex.EncodeToString(part)))
		p.forms[of+", spaced"] = fmt.Appendf(nil, "% x", part)
		p.forms[of+", decimal"] = []byte(strings.Trim(fmt.Sprint(part), "[]"))
	}
	p.forms[fmt.Sprintf("key %d, base64", len(p.keys))] = []byte(base64.RawStdEncoding.EncodeToString(key[:size/3*3]))
	return "0x" + hex.EncodeToString(key)
}

// in finds parts of keys, in any form. There are many forms and much memory, so it is read once, and looked at more closely
// only where two bytes begin one of them.
func (p *planted) in(b []byte) (found []string) {
	var begins [1 << 16]bool
	byBegin := map[uint16][]string{}
	for what, form := range p.forms {
		k := uint16(form[0]) | uint16(form[1])<<8
		begins[k] = true
		byBegin[k] = append(byBegin[k], what)
	}
	// Most memory was never written to. A form that begins in it ends less than 256 bytes further.
	zeros := make([]byte, 4096)
	for i := 0; i+1 < len(b); i++ {
		if b[i] == 0 && bytes.HasPrefix(b[i:], zeros) {
			i += len(zeros) - 256
			continue
		}
		k := uint16(b[i]) | uint16(b[i+1])<<8
		if !begins[k] {
			continue
		}
		for _, what := range byBegin[k] {
			if bytes.HasPrefix(b[i:], p.forms[what]) {
				found = append(found, what)
			}
		}
	}
	return found
}

// clean demands that there is no part of a key.
func (p *planted) clean(t *testing.T, where string, b []byte) {
	t.Helper()
	if len(b) == 0 {
		t.Errorf("%s is empty: nothing was searched", where)
	}
	for _, what := range p.in(b) {
		t.Errorf("%s holds %s", where, what)
	}
}

// halt stops a child and waits until it stands still, all its threads: the signal alone has only been sent. A program
// that has just been started may still be on its way into memory, and where its stack was when its memory was listed,
// it need not be when it is read.
func halt(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var state unix.Siginfo
	for {
		switch err := unix.Waitid(unix.P_PID, pid, &state, unix.WSTOPPED, nil); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			t.Fatalf("wait until process %d stands still: %v", pid, err)
		default:
			return
		}
	}
}

// memory searches all that a process can read of its own memory, while it stands still.
func (p *planted) memory(t *testing.T, pid int) (found []string, searched int64) {
	t.Helper()
	halt(t, pid)
	defer func() {
		if err := unix.Kill(pid, unix.SIGCONT); err != nil {
			t.Error(err)
		}
	}()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	const step, overlap = 4 << 20, 256
	buf := make([]byte, step+overlap)
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if mode[0] != 'r' || strings.Contains(line, "[v") { // vdso and its kind cannot be read this way
			continue
		}
		for at := from; at < to; at += step {
			n, err := mem.ReadAt(buf[:min(to-at, step+overlap)], int64(at))
			if err != nil && !errors.Is(err, unix.EIO) && !errors.Is(err, io.EOF) { // maps of BPF, and files that are shorter
				t.Fatalf("read memory at %x: %v", at, err)
			}
			searched += int64(min(n, step))
			for _, what := range p.in(buf[:n]) {
				found = append(found, fmt.Sprintf("%s in %s", what, strings.TrimSpace(line)))
			}
		}
	}
	return found, searched
}

// cleanMemory demands that a process which has done its work holds no part of a key. A dump may be under way at a first
// look, and is not at both of two that are seconds apart.
func (p *planted) cleanMemory(t *testing.T, name string, pid int) {
	t.Helper()
	found, searched := p.memory(t, pid)
	if len(found) > 0 {
		time.Sleep(3 * time.Second)
		found, searched = p.memory(t, pid)
	}
	t.Logf("%s: %d MB of memory searched", name, searched>>20)
	if searched < 10<<20 {
		t.Errorf("%s: only %d bytes of memory were readable", name, searched)
	}
	for _, what := range found {
		t.Errorf("%s holds %s", name, what)
	}
}

// plant adds SAs with keys in every attribute that the kernel has for them (XFRMA_ALG_AEAD, _CRYPT, _AUTH, _AUTH_TRUNC).
func (p *planted) plant(t *testing.T, b *bench, first uint32) {
	t.Helper()
	var lines []string
	for i, algorithms := range []string{
		"aead rfc4106(gcm(aes)) " + p.draw(t, 36) + " 128",
		"enc cbc(aes) " + p.draw(t, 32) + " auth hmac(sha1) " + p.draw(t, 20),
		"enc cbc(aes) " + p.draw(t, 16) + " auth-trunc hmac(sha256) " + p.draw(t, 32) + " 128",
	} {
		for j, ends := range [][2]fmt.Stringer{{b.tunnel.A.Outer, b.tunnel.B.Outer}, {b.tunnel.B.Outer, b.tunnel.A.Outer}} {
			lines = append(lines, fmt.Sprintf("xfrm state add src %s dst %s proto esp spi %#x reqid 99 mode tunnel replay-window 32 %s",
				ends[0], ends[1], first+uint32(2*i+j), algorithms))
		}
	}
	if err := b.tunnel.B.IP(lines...); err != nil {
		t.Fatal(err)
	}
}

// once runs a command of xfrmscope to its end and gives all that it printed.
func once(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(binary(t), args...)
	out, err := cmd.CombinedOutput()
	if exit := cmd.ProcessState.ExitCode(); exit != 0 && exit != 1 {
		t.Errorf("%v: %v\n%s", args, err, out)
	}
	return out
}

// TestMemorySearch finds a key in the memory of a process that has it in its environment, however soon it looks, and
// none in one that has not.
func TestMemorySearch(t *testing.T) {
	p := &planted{}
	p.draw(t, 36)
	for _, holds := range []bool{true, false} {
		holder := exec.Command("sleep", "600")
		if holds {
			holder.Env = append(os.Environ(), "KEY="+hex.EncodeToString(p.keys[0]))
		}
		if err := holder.Start(); err != nil {
			t.Fatal(err)
		}
		found, searched := p.memory(t, holder.Process.Pid)
		if err := holder.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = holder.Wait()
		if len(found) > 0 != holds || searched == 0 {
			t.Errorf("holds a key: %v; found %q in %d bytes of memory", holds, found, searched)
		}
	}
}

// TestNoKeyAnywhere plants keys that are known, lets every command that reads SAs read them, and searches all that comes
// out: what is printed, what is written, also unpacked, and the memory of those that go on.
func TestNoKeyAnywhere(t *testing.T) {
	tunnel.Need(t)
	b := raise(t, tunnel.Options{}, func(*tunnel.Tunnel) error { return nil }, nil)
	p, dir, gw := &planted{}, t.TempDir(), b.tunnel.B
	p.plant(t, b, 0xbeef0001)

	// The search finds what is there: in what the kernel tells whoever may ask, and in a process (TestMemorySearch).
	listed, err := gw.Output("xfrm", "state")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.in([]byte(listed))) == 0 {
		t.Fatal("the kernel does not give the keys, so that nothing is proven by not finding them")
	}
	const listen = "127.0.0.1:9477"
	file := func(name string) string { return filepath.Join(dir, name) }
	running := map[string]*tool{}
	for name, args := range map[string][]string{
		"diagnose": {"diagnose", "--json", "--for", "10m", "--no-inner"},
		"watch":    {"watch", "--no-inner", "--plain", "--interval", "1h", "--window", "0"},
		"trace":    {"trace", "--json", "--no-inner"},
		"record":   {"record", "-o", file("run.xsr"), "--interval", "1h", "--no-inner"},
		"capture":  {"capture", "-w", file("all.pcapng"), "--full", "--no-inner"},
		"serve":    {"serve", "--listen", listen, "--interval", "1h", "--window", "2h", "--no-inner"},
	} {
		running[name] = launch(t, gw, args...)
	}
	// The kernel announces new SAs with their keys.
	p.plant(t, b, 0xbeef1001)
	b.send(b.tunnel.AtoB[0], 50)
	b.settle()
	for _, path := range []string{"/metrics", "/", "/-/ready"} {
		resp, err := http.Get("http://" + listen + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d, %v", path, resp.StatusCode, err)
		}
		p.clean(t, "serve "+path, body)
	}
	for name, x := range running {
		p.cleanMemory(t, name, x.cmd.Process.Pid)
	}
	for name, x := range running {
		x.end(t)
		p.clean(t, name, append(x.stdout.Bytes(), x.stderr.Bytes()...))
	}
	junit, tap, report := file("j.xml"), file("t.tap"), file("r.json")
	for _, args := range [][]string{
		{"diagnose", "--netns", gw.Name, "--for", "1s"},
		{"check", "--netns", gw.Name, "--duration", "1s", "--expect", "true", "--junit", junit, "--tap", tap, "--report", report},
		{"drops", "--netns", gw.Name, "--for", "1s"}, {"drops", "--netns", gw.Name, "--for", "1s", "--json"},
		{"doctor", "--netns", gw.Name}, {"doctor", "--netns", gw.Name, "--json"},
		{"report", file("run.xsr")}, {"report", file("run.xsr"), "--json"},
		{"report", file("run.xsr"), "--format", "markdown"}, {"report", file("run.xsr"), "--format", "html"},
		{"read", file("all.pcapng")}, {"read", file("all.pcapng"), "--json"},
	} {
		p.clean(t, strings.Join(args, " "), once(t, args...))
	}
	for _, path := range []string{file("run.xsr"), file("all.pcapng"), junit, tap, report} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		p.clean(t, path, text)
	}
	f, err := os.Open(file("run.xsr"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	unpacked, err := io.ReadAll(z)
	if err != nil || !bytes.Contains(unpacked, []byte("rfc4106(gcm(aes))")) {
		t.Errorf("the recording was not unpacked, or does not know the SAs: %d bytes, %v", len(unpacked), err)
	}
	p.clean(t, "the recording, unpacked", unpacked)
}

// TestNoCore lets processes abort that may dump core: one that holds nothing does, xfrmscope does not.
func TestNoCore(t *testing.T) {
	tunnel.Need(t)
	b := raise(t, tunnel.Options{}, func(*tunnel.Tunnel) error { return nil }, nil)
	dir := t.TempDir()
	machineSetting(t, "kernel/core_pattern", filepath.Join(dir, "core.%p"))
	ready := filepath.Join(dir, "ready")
	abort := func(script string, args ...string) (core bool) {
		cmd := exec.Command("sh", append([]string{"-c", "ulimit -c unlimited; " + script, "sh"}, args...)...)
		cmd.Env = append(os.Environ(), "GOTRACEBACK=crash")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
			if _, err := os.Stat(ready); err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s is not ready", script)
			}
		}
		if err := cmd.Process.Signal(unix.SIGABRT); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if status := cmd.ProcessState.Sys().(interface{ Signaled() bool }); !status.Signaled() {
			t.Errorf("%s: %v, want it aborted", script, cmd.ProcessState)
		}
		if err := os.Remove(ready); err != nil {
			t.Fatal(err)
		}
		cores, err := filepath.Glob(filepath.Join(dir, "core.*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(cores) > 0
	}
	if abort(`exec "$1" diagnose --netns "$2" --for 10m --ready-file "$3"`, binary(t), b.tunnel.B.Name, ready) {
		t.Error("xfrmscope dumped core")
	}
	if !abort(`touch "$1"; exec sleep 600`, ready) {
		t.Error("a process that may dump core did not: nothing is proven")
	}
}
