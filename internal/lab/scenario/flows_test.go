// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/traffic"
	"xfrmscope/internal/lab/tunnel"
)

// flowList is the report's account of TCP inside the tunnels.
type flowList struct {
	Seen      int64            `json:"seen"`
	Forgotten int64            `json:"forgotten"`
	Packets   map[string]int64 `json:"packets"`
	List      []tcpFlow        `json:"list"`
}

type tcpFlow struct {
	Ends        [2]flowEnd `json:"ends"`
	Connections int64      `json:"connections"`
	Closed      bool       `json:"closed"`
}

type flowEnd struct {
	Addr  netip.Addr `json:"addr"`
	Port  uint16     `json:"port"`
	Local bool       `json:"local"`
	SA    *struct {
		SPI       string `json:"spi"`
		Direction string `json:"direction"`
	} `json:"sa"`
	Packets         int64 `json:"packets"`
	Payload         int64 `json:"payload_bytes"`
	Segments        int64 `json:"segments"`
	Retransmissions int64 `json:"retransmissions"`
	Reordered       int64 `json:"reordered"`
	Gaps            int64 `json:"gaps"`
	Limited         int64 `json:"window_limited"`
	Probes          int64 `json:"window_probes"`
	Window          *struct {
		Max   int64 `json:"max"`
		Scale *int  `json:"scale"`
	} `json:"window"`
	Zero struct {
		Episodes  int64 `json:"episodes"`
		TotalUS   int64 `json:"total_us"`
		LongestUS int64 `json:"longest_us"`
		OpenUS    int64 `json:"open_us"`
		Newest    []struct {
			Start    time.Time `json:"start"`
			LastedUS int64     `json:"lasted_us"`
		} `json:"newest"`
	} `json:"zero_window"`
	RTT *struct {
		Samples       int64 `json:"samples"`
		MinUS         int64 `json:"min_us"`
		MeanUS        int64 `json:"mean_us"`
		SmoothedMaxUS int64 `json:"smoothed_max_us"`
	} `json:"rtt"`
}

// flow picks a connection and turns it so that the sender comes first.
func (o observation) flow(t *testing.T, c *traffic.TCP) (sender, reader flowEnd) {
	t.Helper()
	if o.report.Flows == nil {
		t.Fatal("the report has no flows")
	}
	for _, f := range o.report.Flows.List {
		for i := range f.Ends {
			if netip.AddrPortFrom(f.Ends[i].Addr, f.Ends[i].Port) == c.Client() && netip.AddrPortFrom(f.Ends[1-i].Addr, f.Ends[1-i].Port) == c.Server() {
				return f.Ends[i], f.Ends[1-i]
			}
		}
	}
	t.Fatalf("the report has no flow %s to %s", c.Client(), c.Server())
	return
}

// tcpCounters are the kernel's own, of the namespace's sockets (/proc/net/netstat, TcpExt).
func tcpCounters(t *testing.T, ns *tunnel.Namespace) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	if err := ns.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/netstat")
		if err != nil {
			return err
		}
		lines := strings.Split(string(text), "\n")
		for i := 0; i+1 < len(lines); i += 2 {
			names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
			if len(names) == 0 || names[0] != "TcpExt:" {
				continue
			}
			for k := 1; k < len(names); k++ {
				if out[names[k]], err = strconv.ParseInt(values[k], 10, 64); err != nil {
					return err
				}
			}
		}
		return nil
	}); err != nil {
		t.Fatal(fmt.Errorf("read TCP counters: %w", err))
	}
	return out
}

// connect opens a connection through an SA pair, from A's side to B's.
func (b *bench) connect(pair int, port uint16, receive, send int) *traffic.TCP {
	b.t.Helper()
	c, err := traffic.OpenTCP(traffic.TCPEnds{
		From: b.tunnel.A.Inside().Do, To: b.tunnel.B.Inside().Do, Src: b.tunnel.A.Inner[pair], Dst: b.tunnel.B.Inner[pair],
		Port: port, ReceiveBuffer: receive, SendBuffer: send,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.closing("connection", c.Close)
	return c
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// TestReceiveWindow runs four connections of forwarded TCP, each through its own SA pair: a reader that
// stops, a lossy path, a reader that stops for a moment at the end, and a sender with little to say.
func TestReceiveWindow(t *testing.T) {
	tunnel.Need(t)
	const (
		stalls = 3
		stall  = 1500 * time.Millisecond
		lossy  = tunnel.FirstSPIAtoB + 1
	)
	b := open(t, tunnel.Options{Hosts: true, Pairs: 4}, []inject.Rule{
		{SPI: lossy, Action: inject.Drop, Seqs: inject.Every(40, 4000, 30)},
	})
	before := tcpCounters(t, b.tunnel.B.Inside())

	stalled := b.connect(0, 5001, 32<<10, 0)
	done := make(chan error, 1)
	go func() { _, err := stalled.WriteFor(12 * time.Second); done <- err }()
	for range stalls {
		got := stalled.Received()
		b.must(stalled.Await(got+50<<10, patience))
		stalled.Pause()
		time.Sleep(stall)
		stalled.Resume()
	}
	b.must(<-done)

	slow := b.connect(1, 5002, 0, 0)
	b.must(slow.Write(600 << 10))
	b.must(slow.Await(600<<10, patience))

	brief := b.connect(2, 5003, 32<<10, 0)
	brief.Pause()
	go func() { _, err := brief.WriteFor(time.Second); done <- err }()
	time.Sleep(700 * time.Millisecond)
	brief.Resume()
	b.must(<-done)

	idle := b.connect(3, 5004, 0, 0)
	for range 10 {
		b.must(idle.Write(200))
		time.Sleep(100 * time.Millisecond)
	}
	o := b.finish()
	after := tcpCounters(t, b.tunnel.B.Inside())
	for _, c := range []*traffic.TCP{stalled, slow, brief, idle} {
		s, r := o.flow(t, c)
		x, _ := json.Marshal(s)
		y, _ := json.Marshal(r)
		t.Logf("%s\n%s\nreceived %d", x, y, c.Received())
	}
	for _, n := range []string{"TCPToZeroWindowAdv", "TCPFromZeroWindowAdv", "TCPWantZeroWindowAdv", "TCPZeroWindowDrop"} {
		t.Logf("%s %d", n, after[n]-before[n])
	}
	t.Logf("%v forgot %d seen %d; retrans truth %d", o.report.Flows.Packets, o.report.Flows.Forgotten, o.report.Flows.Seen, b.path.Truth(inject.AtoB, lossy).Lost())
	t.Logf("self %+v", o.report.Self)
	o.checkFindings(t)
}
