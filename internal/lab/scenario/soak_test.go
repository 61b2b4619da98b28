// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/tunnel"
)

const (
	// soaking in the environment says how long TestSoak goes on; see `make soak`. It runs only when it is asked for.
	soaking   = "XFRMSCOPE_SOAK"
	soakShort = 20 * time.Second
	// settling is how long a process may grow until what it keeps is what it will ever keep: until all slots of its table
	// (4,096) have been in use, and unknown SPIs have filled theirs and been let go of.
	settling = 8 * time.Minute
	soakAt   = "127.0.0.1:9479"
	load     = 3 * burst // packets of each SA in each round
	// invented SPIs a second, a packet each: as many as the tables have room for in some seven minutes
	strangers = 10
)

// figures are the series of one scrape, by name and labels as they stand.
type figures map[string]float64

// scrape gives nil where serve says that a snapshot takes too long, as it may on a machine that has other things to do.
func scrape(t *testing.T) figures {
	t.Helper()
	answer, err := http.Get("http://" + soakAt + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode == http.StatusInternalServerError && strings.Contains(string(text), context.DeadlineExceeded.Error()) {
		return nil
	}
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("scrape: %s\n%s", answer.Status, text)
	}
	f := figures{}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(line, "#") || !ok {
			continue
		}
		// A label's value may hold spaces; the number does not.
		if i := strings.LastIndexByte(strings.TrimSpace(line), ' '); i > 0 {
			name, value = strings.TrimSpace(line)[:i], strings.TrimSpace(line)[i+1:]
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("scrape: %q: %v", line, err)
		}
		f[name] = n
	}
	return f
}

// sum adds up the series of a name that have all of the labels.
func (f figures) sum(name string, labels ...string) (n int64) {
	for series, v := range f {
		if series != name && !strings.HasPrefix(series, name+"{") {
			continue
		}
		if !slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(series, l) }) {
			n += int64(v)
		}
	}
	return n
}

// TestSoak has `serve` watch tunnels under load without a pause, scraped every second: one direction is policed now and
// then, so that it loses packets, and packets of ever new SPIs come in between. In the end every counter is exact.
// Once it has settled, what the process itself holds has not grown; of what it maps it touches ever more, but it maps no more.
func TestSoak(t *testing.T) {
	tunnel.Need(t)
	length := soakShort
	if text := os.Getenv(soaking); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	b := raise(t, tunnel.Options{Pairs: 2, ReplayWindow: 128}, func(*tunnel.Tunnel) error { return nil }, nil)
	serve := launch(t, b.tunnel.B, "serve", "--listen", soakAt, "--window", "1m")
	policed, clear, back := b.tunnel.AtoB[0], b.tunnel.AtoB[1], b.tunnel.BtoA[0]
	began, scraped := time.Now(), time.Time{}
	var held []memory // of the process, once a scrape
	told, late := time.Duration(0), 0
	rounds, foreign := 0, 0
	for ; time.Since(began) < length; rounds++ {
		rate := 0.0
		if rounds%5 == 3 {
			rate = 20
		}
		b.path.Police(inject.AtoB, policed.SPI, rate)
		b.send(policed, load)
		b.send(clear, load)
		b.send(back, load)
		for ; foreign < int(time.Since(began).Seconds()*strangers); foreign++ {
			b.path.Send(inject.AtoB, inject.Crafted{SrcMAC: b.tunnel.A.MAC, DstMAC: b.tunnel.B.MAC, Src: b.tunnel.A.Outer, Dst: b.tunnel.B.Outer,
				SPI: 0x5a000000 + uint32(foreign), Seq: 1, Payload: bytes.Repeat([]byte{0x5a}, 120)})
		}
		if time.Since(scraped) >= time.Second {
			scraped = time.Now()
			f := scrape(t)
			if f["xfrmscope_up"] != 1 {
				late++
				t.Logf("%s: no snapshot", time.Since(began).Round(time.Second))
				continue
			}
			m, err := memoryOf(serve.cmd.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			m.at, m.took, m.goal = time.Since(began), f["xfrmscope_snapshot_duration_seconds"], f["go_memstats_next_gc_bytes"]
			if held = append(held, m); m.at >= told {
				told = m.at.Truncate(time.Minute) + time.Minute
				t.Log(m)
			}
		}
	}
	// The last packets of an SA tell of the losses before them.
	b.path.Police(inject.AtoB, policed.SPI, 0)
	b.send(policed, 1)
	b.settle()
	time.Sleep(horizon + time.Second) // and a snapshot may be a second old
	got := scrape(t)
	if got["xfrmscope_up"] != 1 {
		t.Fatal("the last snapshot took too long")
	}

	for _, s := range []tunnel.SA{policed, clear} {
		truth := b.path.Truth(inject.AtoB, s.SPI)
		distinct, repeated := b.flows[s.SPI].Delivered()
		lost, arrived := int64(truth.Lost()), int64(len(truth.Out))
		diff(t, "delivered datagrams of "+name(s.SPI), []int64{arrived, 0}, []int64{int64(distinct), int64(repeated)})
		label := `reqid="` + strconv.Itoa(int(s.ReqID)) + `"`
		want, have := map[string]int64{}, map[string]int64{}
		for what, n := range map[string]int64{"sent": arrived + lost, "lost_on_path": lost, "unique": arrived, "arrivals": arrived,
			"decapsulated": arrived, "delivered": arrived, "duplicates": 0, "stale": 0, "xfrm_dropped": 0, "lost_in_host": 0} {
			want[what], have[what] = n, got.sum("xfrmscope_"+what+"_packets_total", label, `direction="in"`)
		}
		have["unattributed"], want["unattributed"] = got.sum("xfrmscope_unattributed_packets", label, `direction="in"`), 0
		diff(t, "counters of "+name(s.SPI), want, have)
		t.Logf("%s: %d packets, of which %d were lost", name(s.SPI), arrived+lost, lost)
	}
	if b.path.Truth(inject.AtoB, policed.SPI).Lost() == 0 {
		t.Error("invalid run: nothing was lost")
	}
	sent := int64(len(b.path.Truth(inject.BtoA, back.SPI).In))
	label := `reqid="` + strconv.Itoa(int(back.ReqID)) + `"`
	diff(t, "offered, encapsulated and sent", []int64{sent, sent, sent}, []int64{
		got.sum("xfrmscope_offered_packets_total", label), got.sum("xfrmscope_encapsulated_packets_total", label), got.sum("xfrmscope_on_wire_packets_total", label),
	})
	full := got.sum("xfrmscope_lost_total", `cause="unknown_table_full"`)
	diff(t, "packets of unknown SPIs", []int64{int64(foreign), int64(foreign)},
		[]int64{got.sum("xfrmscope_unknown_spi_packets_total") + full, got.sum("xfrmscope_xfrm_in_no_states_packets_total")})
	t.Logf("%d rounds in %s; %d packets of as many unknown SPIs, %d beyond the table", rounds, time.Since(began).Round(time.Second), foreign, full)
	if exit := serve.end(t); exit != 0 {
		t.Errorf("serve ended with %d:\n%s", exit, serve.stderr.Bytes())
	}
	b.checkLink()
	if late > len(held)/100 {
		t.Errorf("%d of %d scrapes found no snapshot:\n%s", late, late+len(held), serve.stderr.Bytes())
	}
	flat(t, held, settling)
}
