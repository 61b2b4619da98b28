// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/tunnel"
)

// TestWatch holds the last lines of `watch --plain` against what was injected on the path: every bin of an
// SA with one fault of each kind, of one that is healthy, and of an outbound one.
func TestWatch(t *testing.T) {
	tunnel.Need(t)
	const sent = packets
	spi := uint32(tunnel.FirstSPIAtoB)
	var rules []inject.Rule
	for _, r := range mixed.rules {
		r.SPI = spi
		rules = append(rules, r)
	}
	b := raise(t, tunnel.Options{Pairs: 2}, func(*tunnel.Tunnel) error { return nil }, rules)
	x := launch(t, b.tunnel.B, "watch", "--plain", "--interval", "500ms")
	for range sent / burst {
		for _, sa := range []tunnel.SA{b.tunnel.AtoB[0], b.tunnel.AtoB[1], b.tunnel.BtoA[0]} {
			b.send(sa, burst)
		}
	}
	b.settle()
	time.Sleep(horizon)
	diff(t, "exit status", 1, x.end(t))

	f := mixed.faults
	dropped := int64(0)
	for _, n := range f.causes {
		dropped += n
	}
	want := map[string]string{
		name(b.tunnel.AtoB[0].SPI): fmt.Sprintf("in alive sent=%d lost=%d loss=%.3f late=%d xfrm=%d host=0 inner=0 unattributed=0",
			sent, f.lost, 100*float64(f.lost)/float64(sent), f.late, dropped),
		name(b.tunnel.AtoB[1].SPI): fmt.Sprintf("in alive sent=%d lost=0 loss=0.000 late=0 xfrm=0 host=0 inner=0 unattributed=0", sent),
		name(b.tunnel.BtoA[0].SPI): fmt.Sprintf("out alive sent=%d lost=0 loss=0.000 late=- xfrm=0 host=0 inner=- unattributed=0", sent),
		name(b.tunnel.BtoA[1].SPI): "out alive sent=0 lost=0 loss=- late=- xfrm=0 host=0 inner=- unattributed=0",
	}
	got, looks := map[string]string{}, 0
	for line := range strings.Lines(x.stdout.String()) {
		switch fields := strings.Fields(line); {
		case strings.HasPrefix(line, "#"):
			if strings.Contains(line, " sas=4 ") {
				looks++
			}
			if strings.Contains(line, "map_bytes=?") {
				t.Errorf("the memory of the maps is not known: %s", line)
			}
		case len(fields) != 18:
			t.Errorf("%d fields in a line: %s", len(fields), line)
		default:
			got[fields[1]] = fmt.Sprintf("%s %s sent=%s lost=%s loss=%s late=%s xfrm=%s host=%s inner=%s unattributed=%s", fields[2], fields[7],
				fields[10], fields[11], fields[12], fields[13], fields[14], fields[15], fields[16], fields[17])
		}
	}
	diff(t, "last lines", want, got)
	if looks < 3 {
		t.Errorf("%d looks in a run of several seconds", looks)
	}
	for _, id := range mixed.findings {
		if !strings.Contains(x.stdout.String(), " "+id+": ") {
			t.Errorf("no line says that %s began", id)
		}
	}
	if t.Failed() {
		t.Logf("%s\n%s", x.stdout.Bytes(), x.stderr.Bytes())
	}
}
