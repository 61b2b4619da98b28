// SPDX-License-Identifier: Apache-2.0

package drops

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"xfrmscope/internal/lab/schematest"
	"xfrmscope/internal/ledger"
)

func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	return schematest.Strict(t, "drops.schema.json")
}

func validate(t *testing.T, s *jsonschema.Schema, v any) {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(doc); err != nil {
		t.Errorf("%s: %v", b, err)
	}
}

// TestSchema holds objects with every field and with none to the published schema, and what the kernel gives.
func TestSchema(t *testing.T) {
	s := schema(t)
	code := uint16(4)
	full := What{
		Reason: "NO_SOCKET", Location: "f.part.0+0x1f [mod]", Function: "f.part.0", Interface: "eth0", Ifindex: 2, Protocol: "UDP", Netns: "blue",
		NoNetns: true, Counter: "XfrmInNoStates", Cause: "no_state", Folded: true, Stack: []string{"a+0x1"},
		SA: &SA{SPI: 7, Dst: netip.MustParseAddr("192.0.2.1"), Proto: "ESP", Direction: ledger.In, Known: "header"},
	}
	p := Packet{Src: netip.MustParseAddr("::1"), Dst: netip.MustParseAddr("::2"), SrcPort: 1, DstPort: 2, Type: &code, Code: &code, Length: 9}
	bare := What{Location: "0xffff", Protocol: "unknown"}
	for _, v := range []any{
		Drop{Type: KindDrop, Time: time.Now(), MonoNS: 1, CPU: 1, Packets: 1, What: full, Packet: p}, Drop{Type: KindDrop, What: bare},
		Row{Type: KindRow, Packets: 1, Bytes: 2, Share: 100, What: full, Example: p}, Row{Type: KindRow, What: bare},
		Total{Type: KindTotal, Reasons: map[string]uint64{"X": 1}, Notes: []string{"n"},
			Lost: map[string]uint64{"table_full": 1, "folded": 1, "ring_full": 1, "withheld": 1, "stack": 1}}, Total{Type: KindTotal},
	} {
		validate(t, s, v)
	}
	for cause := range lostText {
		if lostUnit[cause] == "" {
			t.Errorf("loss %s has no unit", cause)
		}
		validate(t, s, Total{Type: KindTotal, Lost: map[string]uint64{cause: 1}})
	}
	for name, bad := range map[string]any{
		"unknown field": map[string]any{"type": "total", "packets": 1, "rows": 0, "rows_shown": 0, "packets_not_shown": 0, "duration_s": 1, "more": 1},
		"unknown type":  map[string]any{"type": "else"},
		"unknown loss":  Total{Type: KindTotal, Lost: map[string]uint64{"nonsense": 1}},
	} {
		b, err := json.Marshal(bad)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if s.Validate(doc) == nil {
			t.Errorf("%s passes the schema", name)
		}
	}
	enter(t)
	session := open(t, Options{Stacks: true})
	udp(t, "127.0.0.1:9999", 2)
	arrive(t, ipv4("10.1.0.2", "10.1.0.3", 1, 1, icmpError), 1)
	rows, total := await(t, session, 3)
	if len(rows) < 2 {
		t.Errorf("%d rows, want two at least", len(rows))
	}
	for _, r := range rows {
		validate(t, s, r)
	}
	validate(t, s, total)
}
