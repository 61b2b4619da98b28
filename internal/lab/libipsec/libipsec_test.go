// SPDX-License-Identifier: Apache-2.0

package libipsec

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"xfrmscope/internal/lab/tunnel"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestAgainstStrongSwan runs an IKEv2 tunnel through two rekeys of the CHILD_SA and demands that
// xfrmscope and the capture agree on every SA, every packet and every class.
func TestAgainstStrongSwan(t *testing.T) {
	if os.Geteuid() != 0 {
		unable(t, "network namespaces need root")
	}
	for _, mode := range []string{"auto", "tc"} {
		t.Run(mode, func(t *testing.T) { againstStrongSwan(t, mode) })
	}
}

func againstStrongSwan(t *testing.T, mode string) {
	left, right := pair(t)
	captured := startCapture(t, right)
	observed := startDiagnose(t, right, mode)
	left.start(t, right)
	right.start(t, left)

	left.swanctl(t, "--initiate", "--child", "child")
	sent := left.ping(t, right, 40)
	for range 2 {
		left.swanctl(t, "--rekey", "--child", "child")
		time.Sleep(500 * time.Millisecond) // the responder begins to use the new SA when the old one is deleted
		sent += left.ping(t, right, 25)
	}
	const keepalives = 3
	for range keepalives {
		must(t, left.Do(func() error { return keepalive(left, right) }))
	}
	time.Sleep(1500 * time.Millisecond) // the reorder horizon, and the delete of the last old SA

	got := observed.finish(t)
	want := captured.finish(t, right)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("xfrmscope against tshark (-tshark +xfrmscope):\n%s", diff)
	}
	// The comparison is worth something only if what the test did is in it.
	if n := len(want.Streams); n != 6 {
		t.Errorf("the capture has %d SAs, want 6: three generations in two directions: %v", n, want.Streams)
	}
	if n := want.Classes["in"]["esp_udp"]; n < 90 || n > int64(sent) {
		t.Errorf("the capture has %d inbound ESP packets, %d pings were sent and 90 answered", n, sent)
	}
	if n := want.Classes["in"]["keepalive"]; n != keepalives {
		t.Errorf("the capture has %d keepalives, %d were sent", n, keepalives)
	}
	if want.Classes["in"]["ike"] < 4 || want.Classes["out"]["ike"] < 4 {
		t.Errorf("the capture has too little IKE for an exchange and two rekeys: %v", want.Classes)
	}
}

// keepalive sends the NAT keepalive of RFC 3948 section 2.3 from the port that the daemon holds;
// the daemons themselves send none, since there is no NAT. It runs inside the sender's namespace.
func keepalive(from, to *peer) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	datagram := []byte{0, 0, 0, 0, 0, 9, 0, 0, 0xff}
	binary.BigEndian.PutUint16(datagram[0:], 4500)
	binary.BigEndian.PutUint16(datagram[2:], 4500)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: from.Outer.As4()}); err != nil {
		return err
	}
	return unix.Sendto(fd, datagram, 0, &unix.SockaddrInet4{Addr: to.Outer.As4()})
}

// diagnose is a running xfrmscope.
type diagnose struct {
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	done           chan struct{}
}

func startDiagnose(t *testing.T, p *peer, mode string) *diagnose {
	t.Helper()
	ready := filepath.Join(p.Dir, "ready")
	d := &diagnose{done: make(chan struct{})}
	d.cmd = exec.Command(program(t), "diagnose", "--json", "--netns", p.Namespace.Name, "--interface", tunnel.WAN,
		"--mode", mode, "--ready-file", ready, "--for", "5m")
	d.cmd.Stdout, d.cmd.Stderr = &d.stdout, &d.stderr
	must(t, d.cmd.Start())
	go func() {
		defer close(d.done)
		_ = d.cmd.Wait() // the status is read from ProcessState
	}()
	t.Cleanup(func() {
		select {
		case <-d.done:
		default:
			if err := d.cmd.Process.Kill(); err != nil {
				t.Errorf("end xfrmscope: %v", err)
			}
			<-d.done
		}
	})
	waitFor(t, "xfrmscope", func() bool {
		select {
		case <-d.done:
			t.Fatalf("xfrmscope ended before it was ready: %v\n%s", d.cmd.ProcessState, d.stderr.Bytes())
		default:
		}
		_, err := os.Stat(ready)
		return err == nil
	})
	return d
}

// finish ends the run and sorts the report as the capture is sorted. That nothing is missing, late
// or repeated on a path without faults is part of the comparison.
func (d *diagnose) finish(t *testing.T) tally {
	t.Helper()
	must(t, d.cmd.Process.Signal(os.Interrupt))
	select {
	case <-d.done:
	case <-time.After(patience):
		t.Fatal("xfrmscope did not end after SIGINT")
	}
	var report struct {
		SAs []struct {
			SPI, Direction, Dst, Encap string
			Wire                       *struct {
				Packets    int64  `json:"packets"`
				Unique     int64  `json:"unique"`
				FirstSeq   uint64 `json:"first_seq"`
				HighestSeq uint64 `json:"highest_seq"`
				Duplicates int64  `json:"duplicates"`
				Late       int64  `json:"late"`
				Missing    int64  `json:"missing"`
			} `json:"wire"`
		} `json:"sas"`
		Packets struct {
			Classes map[string]map[string]int64 `json:"classes"`
		} `json:"packets"`
		Self struct {
			EventsLost      int64 `json:"events_lost"`
			TableFull       int64 `json:"table_full"`
			RecursionMisses int64 `json:"recursion_misses"`
		} `json:"self"`
	}
	if err := json.Unmarshal(d.stdout.Bytes(), &report); err != nil {
		t.Fatalf("read report: %v\n%s\n%s", err, d.stdout.Bytes(), d.stderr.Bytes())
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("report:\n%s\n%s", d.stdout.Bytes(), d.stderr.Bytes())
		}
	})
	if s := report.Self; s.EventsLost != 0 || s.TableFull != 0 || s.RecursionMisses != 0 {
		t.Errorf("xfrmscope lost something itself: %+v", s)
	}
	n := tally{Streams: map[string]stream{}, Classes: map[string]map[string]int64{}}
	for _, sa := range report.SAs {
		w := sa.Wire
		if w == nil || sa.Encap != "udp" {
			t.Errorf("SA %s %s to %s: encap %q, wire %+v: want UDP, seen on the wire", sa.SPI, sa.Direction, sa.Dst, sa.Encap, w)
			continue
		}
		if w.Duplicates != 0 || w.Late != 0 || w.Missing != 0 {
			t.Errorf("SA %s: faults on a path without any: %+v", sa.SPI, w)
		}
		n.Streams[sa.Direction+" "+sa.SPI] = stream{Packets: w.Packets, Unique: w.Unique, First: w.FirstSeq, Highest: w.HighestSeq}
	}
	for direction, classes := range report.Packets.Classes {
		n.Classes[direction] = map[string]int64{}
		for class, count := range classes {
			// What is no IPsec was not asked of tshark either.
			if count != 0 && !strings.HasPrefix(class, "not_") {
				n.Classes[direction][class] = count
			}
		}
	}
	return n
}

// program finds the program under test.
func program(t *testing.T) string {
	t.Helper()
	for _, path := range []string{os.Getenv("XFRMSCOPE_BIN"), filepath.Join("..", "..", "..", "bin", "xfrmscope")} {
		if info, err := os.Stat(path); path != "" && err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	unable(t, "no xfrmscope binary: run make build or set XFRMSCOPE_BIN")
	return ""
}
