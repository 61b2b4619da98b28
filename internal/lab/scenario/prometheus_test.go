// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"xfrmscope/deploy"
	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/tunnel"
)

// prometheus is a server that scrapes the gateways of a test.
type prometheus struct {
	t    *testing.T
	url  string
	cmd  *exec.Cmd
	log  bytes.Buffer
	done chan struct{}

	began time.Time
}

const (
	serveA, serveB   = "127.0.0.1:9477", "127.0.0.1:9478"
	prometheusListen = "127.0.0.1:9490"
)

var (
	lookback = regexp.MustCompile(`(\[|offset )\d+m`)
	waiting  = regexp.MustCompile(`for: \d+m`)
)

// startPrometheus starts the server with the rules that users get, on a faster clock: `window`, in which there are four scrapes, takes
// the place of the minutes over which the rules look back.
func startPrometheus(t *testing.T, window time.Duration, targets ...string) *prometheus {
	t.Helper()
	pace := int(window.Seconds() / 4)
	t.Logf("a scrape every %d s", pace)
	path := os.Getenv("XFRMSCOPE_PROMETHEUS")
	if path == "" {
		var err error
		if path, err = exec.LookPath("prometheus"); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	for _, name := range []string{"xfrmscope.rules.yml", "xfrmscope.alerts.yml"} {
		raw, err := deploy.Files.ReadFile("prometheus/" + name)
		if err != nil {
			t.Fatal(err)
		}
		fast := waiting.ReplaceAll(lookback.ReplaceAll(raw, fmt.Appendf(nil, "${1}%ds", 4*pace)), []byte("for: 1s"))
		if bytes.Equal(fast, raw) {
			t.Fatalf("%s has no window to shorten", name)
		}
		must(t, os.WriteFile(filepath.Join(dir, name), fast, 0o644))
	}
	must(t, os.WriteFile(filepath.Join(dir, "prometheus.yml"), fmt.Appendf(nil, `
global: {scrape_interval: %[1]ds, scrape_timeout: %[1]ds, evaluation_interval: %[2]ds}
rule_files: [xfrmscope.rules.yml, xfrmscope.alerts.yml]
scrape_configs:
  - job_name: xfrmscope
    static_configs: [{targets: [%[3]s]}]
`, pace, pace*2/3, strings.Join(targets, ", ")), 0o644))
	p := &prometheus{t: t, url: "http://" + prometheusListen, done: make(chan struct{}), began: time.Now()}
	p.cmd = exec.Command(path, "--config.file", filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path", filepath.Join(dir, "data"),
		"--web.listen-address", prometheusListen, "--log.level", "warn")
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	must(t, p.cmd.Start())
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		<-p.done
		if t.Failed() {
			t.Logf("prometheus:\n%s", p.log.Bytes())
		}
	})
	return p
}

// sample is one series of the answer to a query.
type sample struct {
	Metric map[string]string
	Value  [2]any
}

func (s sample) number(t *testing.T) float64 {
	t.Helper()
	text, _ := s.Value[1].(string)
	n, err := strconv.ParseFloat(text, 64)
	must(t, err)
	return n
}

// ask has the server evaluate a query now. ok is false while it does not answer.
func (p *prometheus) ask(query string) (out []sample, ok bool) {
	p.t.Helper()
	resp, err := http.Get(p.url + "/api/v1/query?" + url.Values{"query": {query}}.Encode())
	if err != nil {
		return nil, false
	}
	defer resp.Body.Close()
	var answer struct {
		Status string
		Error  string
		Data   struct{ Result []sample }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode == http.StatusServiceUnavailable {
		return nil, false
	}
	if answer.Status != "success" {
		p.t.Fatalf("query %s: %s", query, answer.Error)
	}
	return answer.Data.Result, true
}

// await waits until a query has an answer, which is its first series' value.
func (p *prometheus) await(query string) float64 {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Second) {
		if got, ok := p.ask(query); ok && len(got) > 0 {
			p.t.Logf("%s: %s", time.Since(p.began).Round(100*time.Millisecond), query)
			return got[0].number(p.t)
		}
		select {
		case <-p.done:
			p.t.Fatalf("prometheus ended: %v\n%s", p.cmd.ProcessState, p.log.Bytes())
		default:
		}
		if time.Now().After(deadline) {
			p.explain()
			p.t.Fatalf("no answer to %s within %s", query, patience)
		}
	}
}

// explain logs what the server has, for a test that failed.
func (p *prometheus) explain() {
	for _, q := range []string{
		"up", `{__name__=~"xfrmscope:.+"}`, "ALERTS", `{__name__=~"xfrmscope_(sent|unique|on_wire|lost_on_path|arrivals|offered)_packets_total"}`,
	} {
		got, _ := p.ask(q)
		for _, s := range got {
			p.t.Logf("%v = %v", s.Metric, s.Value[1])
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestPrometheusJoinsBothEnds has a real Prometheus scrape both gateways. Of 300 packets from A to B the path
// loses 30; B to A loses none. Joined by the rules, the two ends must say just that; the alert must fire, of
// this direction only, and clear once the path is mended.
func TestPrometheusJoinsBothEnds(t *testing.T) {
	tunnel.Need(t)
	const lostEvery, lostPackets = 10, 30
	b := raise(t, tunnel.Options{}, func(*tunnel.Tunnel) error { return nil }, []inject.Rule{
		{SPI: tunnel.FirstSPIAtoB, Action: inject.Drop, Seqs: inject.Every(5, packets, lostEvery)},
	})
	there, back := b.tunnel.AtoB[0], b.tunnel.BtoA[0]
	began := time.Now()
	a := launch(t, b.tunnel.A, "serve", "--listen", serveA)
	z := launch(t, b.tunnel.B, "serve", "--listen", serveB)
	// All packets have to pass within one window, and a slow machine takes its time for that as for starting.
	p := startPrometheus(t, max(12*time.Second, time.Since(began)), serveA, serveB)
	from, to := b.tunnel.A.Outer.String(), b.tunnel.B.Outer.String()
	way := fmt.Sprintf(`{from=%q, to=%q}`, from, to)
	wayBack := fmt.Sprintf(`{from=%q, to=%q}`, to, from)

	// The rules compare with what was one window ago.
	p.await(`count(xfrmscope_on_wire_packets_total == 0) == 2 and count(xfrmscope_sent_packets_total == 0) == 2`)
	p.await(`count(xfrmscope:path_loss:ratio5m or xfrmscope:path_sent_packets:increase5m == 0) == 2`)
	for range packets / burst {
		b.send(there, burst)
		b.send(back, burst)
	}
	b.settle()
	truth := b.path.Truth(inject.AtoB, there.SPI)
	if truth.Dropped != lostPackets || len(truth.In) != packets {
		t.Fatalf("invalid run: the injector dropped %d of %d packets", truth.Dropped, len(truth.In))
	}
	// The counters themselves, joined by the addresses: exact.
	sent := fmt.Sprintf(`sum(xfrmscope_on_wire_packets_total{local=%q, peer=%q})`, from, to)
	came := fmt.Sprintf(`sum(xfrmscope_unique_packets_total{local=%q, peer=%q})`, to, from)
	if n := p.await(fmt.Sprintf("%s - %s and %s == %d", sent, came, sent, packets)); n != lostPackets {
		// The two ends are scraped one after the other; once both have settled they must agree.
		p.await(fmt.Sprintf("%s - %s == %d", sent, came, lostPackets))
	}
	p.await(fmt.Sprintf(`sum(xfrmscope_lost_on_path_packets_total{local=%q}) == %d`, to, lostPackets))
	p.await(fmt.Sprintf(`sum(xfrmscope_delivered_packets_total{local=%q}) == %d`, to, packets-lostPackets))
	p.await(fmt.Sprintf(`sum(xfrmscope_delivered_packets_total{local=%q}) == %d`, from, packets))
	// The share by the rules, and of the other direction at the same time. What was true once is asked of the
	// server's own memory, so that it does not matter when this test gets to ask.
	lossy := p.await(fmt.Sprintf(`max_over_time((xfrmscope:path_loss:ratio5m%s and on () (xfrmscope:path_loss:ratio5m%s == 0)
		and on () xfrmscope:path_sent_packets:increase5m%s == %d and on () xfrmscope:path_arrived_packets:increase5m%s == %d)[3m:5s])`,
		way, wayBack, way, packets, way, packets-lostPackets))
	if want := float64(lostPackets) / packets; math.Abs(lossy-want) > 1e-9 {
		t.Errorf("by the rules %v of the packets are lost, injected were %v", lossy, want)
	}
	firing := func(alert, labels string) string {
		return fmt.Sprintf(`ALERTS{alertname=%q, alertstate="firing", %s}`, alert, labels)
	}
	p.await(fmt.Sprintf(`max_over_time((%s unless on () %s)[3m:5s])`,
		firing("XfrmscopePathLoss", fmt.Sprintf("from=%q, to=%q", from, to)), firing("XfrmscopePathLoss", fmt.Sprintf("from=%q", to))))
	p.await(fmt.Sprintf(`max_over_time((%s unless on () %s)[3m:5s])`,
		firing("XfrmscopeTunnelLoss", fmt.Sprintf("local=%q, peer=%q", to, from)), firing("XfrmscopeTunnelLoss", fmt.Sprintf("local=%q", from))))
	p.await(fmt.Sprintf(`max_over_time(xfrmscope_finding_active{id="path-loss", instance=%q}[3m]) == 1`, serveB))
	// Mended: the losses leave the window, and as many packets as are needed to judge come through.
	p.await(fmt.Sprintf(`xfrmscope:path_sent_packets:increase5m%s == 0`, way))
	b.send(there, packets/2)
	p.await(fmt.Sprintf(`xfrmscope:path_sent_packets:increase5m%s > 100 and xfrmscope:path_loss:ratio5m%s < 0.001`, way, way))
	p.await(`absent(ALERTS{alertname=~"XfrmscopePathLoss|XfrmscopeTunnelLoss"})`)

	for name, x := range map[string]*tool{"A": a, "B": z} {
		if exit := x.end(t); exit != 0 {
			t.Errorf("serve on %s ended with %d:\n%s", name, exit, x.stderr.Bytes())
		}
	}
}
