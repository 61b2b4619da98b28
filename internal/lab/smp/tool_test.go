// SPDX-License-Identifier: Apache-2.0

package smp

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"xfrmscope/internal/lab/tunnel"
)

// document is what the tests read of the report, spelled out anew from the schema.
type document struct {
	SAs      []sa `json:"sas"`
	Findings []struct {
		ID       string `json:"id"`
		Severity string `json:"severity"`
		Subject  struct {
			SPI string `json:"spi"`
		} `json:"subject"`
	} `json:"findings"`
	Host struct {
		CPUs []cpu `json:"cpus"`
	} `json:"host"`
}

type sa struct {
	SPI       string           `json:"spi"`
	Direction string           `json:"direction"`
	CPUs      map[string]int64 `json:"cpus"`
	Ledger    bins             `json:"ledger"`
}

type bins struct {
	Arrivals     int64 `json:"arrivals"`
	Duplicates   int64 `json:"duplicates"`
	LostOnPath   int64 `json:"lost_on_path"`
	LostInHost   int64 `json:"lost_in_host"`
	XfrmDropped  int64 `json:"xfrm_dropped"`
	Decapsulated int64 `json:"decapsulated"`
	InnerDropped int64 `json:"inner_dropped"`
	Delivered    int64 `json:"delivered"`
	Unattributed int64 `json:"unattributed"`
}

type cpu struct {
	ID             int     `json:"id"`
	BusyPercent    float64 `json:"busy_percent"`
	SoftirqPercent float64 `json:"softirq_percent"`
	Dropped        int64   `json:"dropped"`
}

func (d document) cpu(t *testing.T, id int) cpu {
	t.Helper()
	i := slices.IndexFunc(d.Host.CPUs, func(c cpu) bool { return c.ID == id })
	if i < 0 {
		t.Fatalf("the report has no processor %d: %+v", id, d.Host.CPUs)
	}
	return d.Host.CPUs[i]
}

// tool is a running xfrmscope.
type tool struct {
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	done           chan struct{}
}

// startTool starts `xfrmscope diagnose` on a gateway and waits until it says that it is ready. It watches
// by tc: there a packet is on the processor that decrypts it, whereas a driver's XDP program comes before
// RPS.
func startTool(t *testing.T, g *tunnel.Gateway) *tool {
	t.Helper()
	program := os.Getenv("XFRMSCOPE_BIN")
	if program == "" {
		program = filepath.Join("..", "..", "..", "bin", "xfrmscope")
	}
	ready := filepath.Join(t.TempDir(), "ready")
	x := &tool{done: make(chan struct{}), cmd: exec.Command(program, "diagnose", "--json", "--netns", g.Name,
		"--interface", tunnel.WAN, "--mode", "tc", "--ready-file", ready, "--for", "10m")}
	x.cmd.Stdout, x.cmd.Stderr = &x.stdout, &x.stderr
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(x.done)
		_ = x.cmd.Wait() // the exit status is read from ProcessState: a finding is no failure
	}()
	t.Cleanup(func() {
		if err := x.cmd.Process.Kill(); err == nil || errors.Is(err, os.ErrProcessDone) {
			<-x.done
		}
	})
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(ready); err == nil {
			return x
		}
		select {
		case <-x.done:
			t.Fatalf("xfrmscope ended before it was ready: %v\n%s", x.cmd.ProcessState, x.stderr.Bytes())
		default:
		}
	}
	t.Fatalf("xfrmscope was not ready within %s\n%s", patience, x.stderr.Bytes())
	return nil
}

// finish asks for the report with SIGINT, as a user does, and reads it.
func (x *tool) finish(t *testing.T) (document, int) {
	t.Helper()
	if err := x.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatalf("interrupt xfrmscope: %v\n%s", err, x.stderr.Bytes())
	}
	select {
	case <-x.done:
	case <-time.After(patience):
		t.Fatalf("xfrmscope did not end within %s of SIGINT", patience)
	}
	exit := x.cmd.ProcessState.ExitCode()
	if exit != 0 && exit != 1 {
		t.Fatalf("xfrmscope: %v\n%s", x.cmd.ProcessState, x.stderr.Bytes())
	}
	var d document
	if err := json.Unmarshal(x.stdout.Bytes(), &d); err != nil {
		t.Fatalf("read report: %v\n%s\n%s", err, x.stdout.Bytes(), x.stderr.Bytes())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("report:\n%s\n%s", x.stdout.Bytes(), x.stderr.Bytes())
		}
	})
	return d, exit
}
