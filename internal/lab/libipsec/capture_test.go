// SPDX-License-Identifier: Apache-2.0

package libipsec

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"xfrmscope/internal/lab/tunnel"
)

// stream is one SA in one direction, as a capture shows it.
type stream struct {
	Packets, Unique int64
	First, Highest  uint64
}

// tally is what a capture of one interface holds of IPsec, by direction.
type tally struct {
	Streams map[string]stream           // by "direction spi"
	Classes map[string]map[string]int64 // by direction, then class
}

// capture is a dumpcap at work: independent of xfrmscope in every line of its code.
type capture struct {
	cmd  *exec.Cmd
	file string

	mu     sync.Mutex
	stderr bytes.Buffer
}

// Write collects what dumpcap says while the test reads it.
func (c *capture) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stderr.Write(b)
}

func (c *capture) said(text string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Contains(c.stderr.String(), text)
}

func startCapture(t *testing.T, p *peer) *capture {
	t.Helper()
	c := &capture{file: filepath.Join(p.Dir, "wan.pcapng")}
	c.cmd = exec.Command(lookup(t, "dumpcap"), "-q", "-i", tunnel.WAN, "-w", c.file)
	c.cmd.Stderr = c
	must(t, p.Do(c.cmd.Start))
	t.Cleanup(func() {
		if c.cmd.ProcessState == nil {
			// The test failed before it read the capture.
			if err := c.cmd.Process.Kill(); err != nil {
				t.Errorf("end dumpcap: %v", err)
			}
			_ = c.cmd.Wait() // it was killed: its status says that and nothing else
		}
	})
	waitFor(t, "dumpcap", func() bool { return c.said("File:") })
	return c
}

// finish ends the capture, makes sure that it is whole, and has tshark read it.
func (c *capture) finish(t *testing.T, p *peer) tally {
	t.Helper()
	must(t, c.cmd.Process.Signal(os.Interrupt))
	if err := c.cmd.Wait(); err != nil {
		t.Fatalf("dumpcap: %v\n%s", err, c.stderr.Bytes())
	}
	if !c.said("/0 (") {
		t.Fatalf("invalid run: dumpcap lost packets, or reports in a form that this test does not know:\n%s", c.stderr.Bytes())
	}
	fields := []string{"ip.src", "frame.protocols", "esp.spi", "esp.sequence", "udpencap.nat_keepalive"}
	args := []string{"-r", c.file, "-Y", "udp.port == 500 || udp.port == 4500", "-T", "fields"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	cmd := exec.Command(lookup(t, "tshark"), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v\n%s", err, stderr.Bytes())
	}
	return read(t, p, out, len(fields))
}

// read counts tshark's lines.
func read(t *testing.T, p *peer, out []byte, fields int) tally {
	t.Helper()
	n := tally{Streams: map[string]stream{}, Classes: map[string]map[string]int64{"in": {}, "out": {}}}
	seen := map[string]bool{}
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		f := strings.Split(lines.Text(), "\t")
		if len(f) != fields {
			t.Fatalf("tshark printed %d fields, want %d: %q", len(f), fields, lines.Text())
		}
		direction := "in"
		if f[0] == p.Outer.String() {
			direction = "out"
		}
		class := "other"
		switch {
		case f[2] != "":
			class = "esp_udp"
			seq, err := strconv.ParseUint(f[3], 10, 32)
			must(t, err)
			key := direction + " " + f[2]
			s := n.Streams[key]
			if s.Packets++; s.Packets == 1 {
				s.First = seq
			}
			if id := key + " " + f[3]; !seen[id] {
				seen[id] = true
				s.Unique++
			}
			s.Highest = max(s.Highest, seq)
			n.Streams[key] = s
		case strings.Contains(f[1], "isakmp"):
			class = "ike"
		case f[4] != "":
			class = "keepalive"
		}
		n.Classes[direction][class]++
	}
	must(t, lines.Err())
	return n
}
