// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"xfrmscope/internal/lab/traffic"
	"xfrmscope/internal/lab/tunnel"
)

// tcpCounters are the kernel's own, of the namespace's sockets (Tcp of /proc/net/snmp, TcpExt of /proc/net/netstat).
func tcpCounters(t *testing.T, ns *tunnel.Namespace) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	if err := ns.Do(func() error {
		for file, group := range map[string]string{"snmp": "Tcp:", "netstat": "TcpExt:"} {
			text, err := os.ReadFile("/proc/thread-self/net/" + file)
			if err != nil {
				return err
			}
			lines := strings.Split(string(text), "\n")
			for i := 0; i+1 < len(lines); i += 2 {
				names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
				if len(names) == 0 || names[0] != group {
					continue
				}
				for k := 1; k < len(names); k++ {
					if out[names[k]], err = strconv.ParseInt(values[k], 10, 64); err != nil {
						return err
					}
				}
			}
		}
		return nil
	}); err != nil {
		t.Fatal(fmt.Errorf("read TCP counters: %w", err))
	}
	return out
}

// zeroWindows are the times that the sockets of a namespace closed and opened their windows.
func zeroWindows(t *testing.T, ns *tunnel.Namespace) [2]int64 {
	t.Helper()
	c := tcpCounters(t, ns)
	return [2]int64{c["TCPToZeroWindowAdv"], c["TCPFromZeroWindowAdv"]}
}

const (
	// stallSlack is what a buffer takes to fill and an acknowledgement to pass, on a machine with other work.
	stallSlack = 500 * time.Millisecond
	// stallsListed is how many episodes of an end are kept with their times.
	stallsListed = 8
)

// stalls are what a reader did to its sender, by its own clock and its kernel's counters.
type stalls struct {
	pauses   []time.Duration
	episodes int64 // windows of zero, more than the pauses where the reader was late by itself
}

// stall stops a reader so often and for so long at least, while the sender has more to send than it takes.
// The reader's sockets live in the namespace `at`, whose kernel counts what they advertise.
func (b *bench) stall(c *traffic.TCP, at *tunnel.Namespace, times int, each time.Duration) (s stalls) {
	b.t.Helper()
	before, had := zeroWindows(b.t, at), c.Received()
	var enough atomic.Bool
	sent, done := int64(0), make(chan error, 1)
	go func() {
		for !enough.Load() {
			n, err := c.WriteFor(100 * time.Millisecond)
			if sent += n; err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for range times {
		b.must(c.Await(c.Received()+50<<10, patience))
		began := time.Now()
		c.Pause()
		time.Sleep(each)
		c.Resume()
		s.pauses = append(s.pauses, time.Since(began))
	}
	enough.Store(true)
	b.must(<-done)
	b.must(c.Await(had+sent, patience))
	now := zeroWindows(b.t, at)
	begun, over := now[0]-before[0], now[1]-before[1]
	// Where memory was short a window is closed without being counted (ICSK_ACK_NOMEM); each that opens is counted.
	if begun > over || over < int64(times) || over > stallsListed {
		b.t.Fatalf("invalid run: by the reader's kernel %d windows of zero began and %d are over, of %d pauses", begun, over, times)
	}
	s.episodes = over
	return s
}

// checkStall demands that the report has the episodes that the reader's kernel counted, and among them one
// for each pause, as long as it.
func checkStall(t *testing.T, sender, reader flowEnd, s stalls) {
	t.Helper()
	diff(t, "zero-window episodes", s.episodes, reader.Zero.Episodes)
	diff(t, "episodes listed", s.episodes, int64(len(reader.Zero.Newest)))
	sum, pauses := int64(0), s.pauses
	for _, z := range reader.Zero.Newest {
		sum += z.LastedUS
		lasted := time.Duration(z.LastedUS) * time.Microsecond
		if len(pauses) > 0 && lasted <= pauses[0]+stallSlack && lasted >= pauses[0]-min(stallSlack, pauses[0]/2) {
			pauses = pauses[1:]
		} else if lasted > stallSlack/2 {
			t.Errorf("an episode lasted %s, the reader paused for %s", lasted, s.pauses)
		}
		if ago := time.Since(z.Start); ago < lasted || ago > 2*patience {
			t.Errorf("an episode of %s began %s ago", lasted, ago)
		}
	}
	if len(pauses) > 0 {
		t.Errorf("no episode of its length for the pauses of %s, the last of %s", pauses, s.pauses)
	}
	// Each is rounded down to a microsecond by itself.
	if d := reader.Zero.TotalUS - sum; d < 0 || d > s.episodes || reader.Zero.OpenUS != 0 {
		t.Errorf("total %d µs, the episodes add up to %d, still open %d", reader.Zero.TotalUS, sum, reader.Zero.OpenUS)
	}
	if s.pauses[0] >= time.Second && sender.Probes == 0 || sender.Zero.Episodes != 0 || reader.Retransmissions != 0 {
		t.Errorf("%d probes by the sender, whose own window was zero %d times; the reader repeated %d", sender.Probes, sender.Zero.Episodes, reader.Retransmissions)
	}
}
