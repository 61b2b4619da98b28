// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// observer is a program that watches the gateway's device; without a command it is none, or one that does
// nothing.
type observer struct {
	name    string
	command func(l *lab, program, dir string) []string
	ready   string         // a file that appears in dir, or what standard error says, once it is attached
	seen    *regexp.Regexp // the packets that it saw, in what it says at its end; nil: it is asked
	empty   bool           // an XDP program that lets pass
}

// filter is what an operator gives tcpdump to see a gateway's IPsec.
const filter = "udp port 500 or udp port 4500 or esp"

// listen is where serve answers.
const listen = "127.0.0.1:19477"

func inside(l *lab, args ...string) []string {
	return append([]string{"nsenter", "--net=/run/netns/" + l.gateway.Name}, args...)
}

var observers = []observer{
	{name: "nothing"},
	{name: "tcpdump -w", command: func(l *lab, _, dir string) []string {
		return inside(l, "tcpdump", "-Z", "root", "-i", device, "-w", os.DevNull, filter)
	}, ready: "listening on", seen: regexp.MustCompile(`(\d+) packets captured`)},
	{name: "AF_PACKET, TPACKET_V3", command: func(l *lab, _, _ string) []string {
		self, err := os.Executable()
		if err != nil {
			panic(err) // Linux always tells
		}
		return inside(l, self, "-reader", device)
	}, ready: "reading", seen: regexp.MustCompile(`(\d+) packets read`)},
	{name: "empty XDP program", empty: true},
	{name: "serve, XDP", command: serve("xdp"), ready: "ready"},
	{name: "serve, TC", command: serve("tc"), ready: "ready"},
}

func serve(mode string) func(l *lab, program, dir string) []string {
	return func(l *lab, program, dir string) []string {
		return []string{program, "serve", "--netns", l.gateway.Name, "--interface", device, "--mode", mode,
			"--listen", listen, "--ready-file", filepath.Join(dir, "ready")}
	}
}

// watch is an observer at work; the zero value is none.
type watch struct {
	observer
	cmd  *exec.Cmd
	dir  string
	said *os.File
	done chan error
	link link.Link // of an empty program

	began, ended time.Duration // until it was attached, and until it was gone
}

// start runs the observer on its CPU and waits until it sees packets.
func (o observer) start(l *lab, program string) (w *watch, err error) {
	w = &watch{observer: o}
	if o.empty {
		return w, l.gateway.Do(func() (err error) {
			w.link, err = attach(device, asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()})
			return err
		})
	}
	if o.command == nil {
		return w, nil
	}
	if w.dir, err = os.MkdirTemp("", "vethbench"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(w.dir))
		}
	}()
	if w.said, err = os.Create(filepath.Join(w.dir, "said")); err != nil {
		return nil, err
	}
	from := time.Now()
	args := append([]string{"taskset", "-c", strconv.Itoa(toolCPU)}, o.command(l, program, w.dir)...)
	w.cmd = exec.Command(args[0], args[1:]...)
	w.cmd.Stdout, w.cmd.Stderr = w.said, w.said
	if err := w.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", o.name, err)
	}
	w.done = make(chan error, 1)
	go func() { w.done <- w.cmd.Wait() }()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		_, file := os.Stat(filepath.Join(w.dir, o.ready))
		if file == nil || strings.Contains(w.words(), o.ready) {
			w.began = time.Since(from)
			return w, nil
		}
		select {
		case err := <-w.done:
			return nil, fmt.Errorf("%s ended before it was ready: %w\n%s", o.name, err, w.words())
		default:
		}
	}
	return nil, errors.Join(fmt.Errorf("%s was not ready within %s\n%s", o.name, patience, w.words()), w.kill())
}

func (w *watch) words() string {
	b, err := os.ReadFile(w.said.Name())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// cpuTime is what all threads of the observer have used.
func (w *watch) cpuTime() (time.Duration, error) {
	if w.cmd == nil {
		return 0, nil
	}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", w.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has ended
		}
		var ns int64
		if err == nil {
			_, err = fmt.Sscan(string(b), &ns)
		}
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", task, err)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

// resident is the memory that the observer has in use, in bytes.
func (w *watch) resident() (float64, error) {
	if w.cmd == nil {
		return 0, nil
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	var kib float64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		return 0, fmt.Errorf("read the memory of %s: %w", w.name, err)
	}
	return kib * 1024, nil
}

// settled waits until the observer has worked off what it was given, and says what it has used.
func (w *watch) settled() (time.Duration, error) {
	const look, still = 100 * time.Millisecond, time.Millisecond
	before, err := w.cpuTime()
	if w.cmd == nil || err != nil {
		return 0, err
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		time.Sleep(look)
		now, err := w.cpuTime()
		if err != nil {
			return 0, err
		}
		if now-before < still {
			return now, nil
		}
		before = now
	}
	return before, nil
}

// finish ends the observer and says how many packets it saw.
func (w *watch) finish(packets int) (int, error) {
	if w.cmd == nil {
		return packets, w.kill()
	}
	seen, err := 0, error(nil)
	// What serve answers may be some seconds old.
	for deadline := time.Now().Add(patience / 4); w.seen == nil && seen < packets && err == nil && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		seen, err = scrape()
	}
	from := time.Now()
	if err := w.cmd.Process.Signal(os.Interrupt); err != nil {
		return 0, fmt.Errorf("interrupt %s: %w", w.name, err)
	}
	<-w.done // the exit status of serve says whether it found something
	w.ended = time.Since(from)
	if w.seen != nil {
		m := w.seen.FindStringSubmatch(w.words())
		if m == nil {
			return 0, fmt.Errorf("%s does not say what it saw:\n%s", w.name, w.words())
		}
		seen, err = strconv.Atoi(m[1])
	}
	return seen, errors.Join(err, w.said.Close(), os.RemoveAll(w.dir))
}

// kill ends an observer whose round has failed.
func (w *watch) kill() error {
	if w.link != nil {
		return w.link.Close()
	}
	if w.cmd == nil {
		return nil
	}
	if err := w.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-w.done
	return errors.Join(w.said.Close(), os.RemoveAll(w.dir))
}

// arrivals are packets of SAs that the kernel has, strangers all others: this gateway has no SAs.
var arrivals = regexp.MustCompile(`(?m)^xfrmscope_(?:arrivals|stranger)_packets_total(?:\{[^}]*\})? (\S+)$`)

// scrape asks serve how many packets arrived.
func scrape() (int, error) {
	client := http.Client{Timeout: patience}
	resp, err := client.Get("http://" + listen + "/metrics")
	if err != nil {
		return 0, err
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return 0, err
	}
	sum := 0.0
	for _, m := range arrivals.FindAllStringSubmatch(string(body), -1) {
		n, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return int(sum), nil
}
