// SPDX-License-Identifier: Apache-2.0

package icount

import (
	"bufio"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/traffic"
	"xfrmscope/internal/lab/tunnel"
)

// bpftrace runs a script of testdata for a gateway's namespace. bpftrace attaches everything before it starts
// the command that it is given, which makes the file and then waits for the end of its input.
func bpftrace(script string) func(*testing.T, string, *tunnel.Gateway) []string {
	return func(t *testing.T, dir string, g *tunnel.Gateway) []string {
		t.Helper()
		path, err := filepath.Abs(filepath.Join("testdata", script))
		if err != nil {
			t.Fatal(err)
		}
		var ns unix.Stat_t
		if err := unix.Stat("/run/netns/"+g.Name, &ns); err != nil {
			t.Fatal(err)
		}
		return []string{os.Getenv("XFRMSCOPE_BPFTRACE"), "-f", "json", "-c", "tee " + filepath.Join(dir, "ready"), path, strconv.FormatUint(ns.Ino, 10)}
	}
}

// TestBpftraceScripts holds the scripts against what was done to the packets: what they cost is nothing to compare
// with if they count wrongly.
func TestBpftraceScripts(t *testing.T) {
	tunnel.Need(t)
	for _, script := range []string{"esp.bt", "esp-stack.bt"} {
		t.Run(script, func(t *testing.T) {
			tun, err := tunnel.Build(tunnel.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer closed(t, tun)
			sa := tun.AtoB[0]
			path, err := inject.Open(inject.Path{A: tunnel.PathA, B: tunnel.PathB, Do: tun.Path.Do},
				inject.Rule{Direction: inject.AtoB, SPI: sa.SPI, Seqs: inject.Every(51, 60, 1), Action: inject.Drop},
				inject.Rule{Direction: inject.AtoB, SPI: sa.SPI, Seqs: inject.Every(81, 100, 1), Action: inject.Duplicate})
			if err != nil {
				t.Fatal(err)
			}
			defer closed(t, path)
			o := observer{name: script, ready: "ready", args: bpftrace(script)}
			run := o.start(t, tun.B)
			defer run.stop(t)
			for _, e := range []traffic.Ends{
				{From: tun.A.Do, To: tun.B.Do, Src: sa.Src, Dst: sa.Dst, Port: tunnel.Port},
				{From: tun.B.Do, To: tun.A.Do, Src: sa.Dst, Dst: sa.Src, Port: tunnel.Port},
			} {
				flow, err := traffic.Open(e)
				if err != nil {
					t.Fatal(err)
				}
				defer closed(t, flow)
				for range 4 {
					if err := errors.Join(flow.Send(chunk, 0), path.Quiet(50*time.Millisecond, patience)); err != nil {
						t.Fatal(err)
					}
				}
			}
			run.stop(t)
			printed := bpftraceMaps(t, contents(run.printed))
			spi, back := strconv.FormatUint(uint64(sa.SPI), 10), strconv.FormatUint(uint64(tun.BtoA[0].SPI), 10)
			for name, want := range map[string]map[string]uint64{
				"@packets": {spi: 210}, "@highest": {spi: 200}, "@skipped": {spi: 10}, "@late": {spi: 20}, "@replayed": {spi: 20}, "@sent": {back: 200},
				"@bad_icv": nil, "@unknown": nil,
			} {
				if !maps.Equal(printed[name], want) {
					t.Errorf("%s is %v, want %v", name, printed[name], want)
				}
			}
		})
	}
}

// counted holds against the kernel's count of an SA what bpftrace printed at its end.
func counted(t *testing.T, printed string, sa tunnel.SA, packets uint64) {
	t.Helper()
	got := bpftraceMaps(t, printed)
	spi := strconv.FormatUint(uint64(sa.SPI), 10)
	t.Logf("bpftrace counted %d packets of SPI %s up to number %d, %d skipped, %d late, and sent were %v; the kernel counted %d",
		got["@packets"][spi], spi, got["@highest"][spi], got["@skipped"][spi], got["@late"][spi], got["@sent"], packets)
	if n := got["@packets"][spi]; n < packets-packets/100 || n > packets+packets/100 {
		t.Errorf("bpftrace counted %d packets, the kernel %d", n, packets)
	}
	if len(got["@sent"]) != 1 {
		t.Errorf("bpftrace saw %d SPIs leave, want 1", len(got["@sent"]))
	}
}

// bpftraceMaps reads the maps that bpftrace prints with -f json: by name, the value of each key.
func bpftraceMaps(t *testing.T, printed string) map[string]map[string]uint64 {
	t.Helper()
	out := map[string]map[string]uint64{}
	lines := bufio.NewScanner(strings.NewReader(printed))
	for lines.Scan() {
		var line struct {
			Type string          `json:"type"`
			Data json.RawMessage `json:"data"`
		}
		if len(lines.Bytes()) == 0 {
			continue
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatalf("bpftrace printed %q: %v", lines.Text(), err)
		}
		if line.Type != "map" {
			continue
		}
		if err := json.Unmarshal(line.Data, &out); err != nil {
			t.Fatalf("bpftrace printed %q: %v", lines.Text(), err)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestBpftraceMaps needs no virtual machine.
func TestBpftraceMaps(t *testing.T) {
	got := bpftraceMaps(t, `{"type": "attached_probes", "data": {"probes": 5}}

{"type": "map", "data": {"@highest": {"4096": 12, "4097": 3}}}
{"type": "map", "data": {"@packets": {"4096": 11}}}
`)
	if got["@highest"]["4096"] != 12 || got["@highest"]["4097"] != 3 || got["@packets"]["4096"] != 11 || len(got) != 2 {
		t.Errorf("read as %v", got)
	}
}
