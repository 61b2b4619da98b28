// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/tunnel"
)

// dropRow is what these tests read of a row of `drops --json`.
type dropRow struct {
	Type     string   `json:"type"`
	Packets  int      `json:"packets"`
	Reason   string   `json:"reason"`
	Location string   `json:"location"`
	Function string   `json:"function"`
	Device   string   `json:"interface"`
	Protocol string   `json:"protocol"`
	Counter  string   `json:"counter"`
	Cause    string   `json:"cause"`
	Stack    []string `json:"stack"`
	SA       *struct {
		SPI   string `json:"spi"`
		Known string `json:"known_by"`
	} `json:"sa"`
}

func dropRows(t *testing.T, x *tool) (rows []dropRow) {
	t.Helper()
	for _, line := range bytes.Split(bytes.TrimSpace(x.stdout.Bytes()), []byte("\n")) {
		var r dropRow
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		valid(t, "drops", line)
		rows = append(rows, r)
	}
	return rows
}

// TestDrops injects ESP that xfrm refuses in three ways, so many packets of each, and demands them from
// `drops` by function, SA and counter. Rows of one cause can be several: by offset, reason and stack.
func TestDrops(t *testing.T) {
	tunnel.Need(t)
	spi := uint32(tunnel.FirstSPIAtoB)
	b := raise(t, tunnel.Options{Pairs: 2}, func(*tunnel.Tunnel) error { return nil }, []inject.Rule{
		{Action: inject.Delay, After: 100, Seqs: []uint32{50, 51, 52, 53}, SPI: spi},
		{Action: inject.Corrupt, Seqs: []uint32{200, 201, 202, 203, 204, 205}, SPI: spi},
		{Action: inject.Duplicate, Seqs: []uint32{210, 211, 212}, SPI: spi},
	})
	x := launch(t, b.tunnel.B, "drops", "--json", "--top", "0", "--stack")
	b.send(b.tunnel.AtoB[0], 250)
	b.settle()
	// Without its SA the receiver does not know the SPI.
	unknown := b.tunnel.AtoB[1]
	if err := unknown.Delete(b.tunnel.B); err != nil {
		t.Fatal(err)
	}
	b.send(unknown, 40)
	b.settle()
	time.Sleep(calm)
	x.end(t)

	moved := b.moved()
	diff(t, "counters of the kernel", map[string]int64{"XfrmInStateSeqError": 7, "XfrmInStateProtoError": 6, "XfrmInNoStates": 40}, moved)
	rows := dropRows(t, x)
	got := map[string]int{}
	for _, r := range rows {
		if r.Counter == "" {
			continue
		}
		if r.SA == nil || r.Protocol != "ESP" || r.Device != tunnel.WAN || !strings.Contains(r.Location, "+0x") {
			t.Errorf("row: %+v", r)
			continue
		}
		if r.Function != "xfrm_input" && r.Function != "xfrm_input_resume" && r.Cause != "no_state" {
			t.Errorf("%s is dropped by %s", r.Cause, r.Location)
		}
		if !slices.ContainsFunc(r.Stack, func(f string) bool {
			return strings.HasPrefix(f, "ip_local_deliver") || strings.HasPrefix(f, "ip_protocol_deliver_rcu")
		}) &&
			r.Cause != "integrity_failed" {
			t.Errorf("stack of %s: %q", r.Cause, r.Stack)
		}
		got[r.Counter+" "+r.Cause+" "+r.SA.SPI] += r.Packets
	}
	diff(t, "drops by counter, cause and SPI", map[string]int{
		"XfrmInStateSeqError replay_late " + name(spi):        4,
		"XfrmInStateSeqError replay_duplicate " + name(spi):   3,
		"XfrmInStateProtoError integrity_failed " + name(spi): 6,
		"XfrmInNoStates no_state " + name(unknown.SPI):        40,
	}, got)
	if t.Failed() {
		t.Logf("%s\n%s", x.stdout.Bytes(), x.stderr.Bytes())
	}
}
