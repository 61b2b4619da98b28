// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/lab/schematest"
)

func traceSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	return schematest.Strict(t, "trace.schema.json")
}

// record is an event as the ring has it.
func record(e bpfobj.Event) []byte {
	return bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&e)), rawEventSize))
}

// TestTraceKinds has one event of every kind that the objects know, and holds its line and its JSON against
// what is published.
func TestTraceKinds(t *testing.T) {
	n, err := LoadNames()
	if err != nil {
		t.Fatal(err)
	}
	kind := func(name string) uint8 { return uint8(slices.Index(n.Event, name)) }
	v4 := func(last byte) (a [16]uint8) {
		copy(a[10:], []byte{0xff, 0xff, 192, 0, 2, last})
		return a
	}
	at := bpfobj.Event{TimeNs: 1500, Src: v4(1), Dst: v4(2), Family: 4, Cpu: 3, Ifindex: 2}
	sa := at
	sa.Spi, sa.Seq, sa.Top = 7, bpfobj.SeqBias+100, bpfobj.SeqBias+90
	with := func(base bpfobj.Event, change func(*bpfobj.Event)) bpfobj.Event {
		change(&base)
		return base
	}
	told := v4(9)
	rows := map[string]struct {
		raw  bpfobj.Event
		line string
	}{
		KindSANew:     {sa, "T sa_new    in  spi=0x00000007 192.0.2.1 > 192.0.2.2 seq=100 dev=wan cpu=3"},
		KindGap:       {with(sa, func(e *bpfobj.Event) { e.Value = 9 }), "T gap       in  spi=0x00000007 192.0.2.1 > 192.0.2.2 seq=100 skipped=9 after=90 dev=wan cpu=3"},
		KindDuplicate: {with(sa, func(e *bpfobj.Event) { e.Value = 9 }), "T duplicate in  spi=0x00000007 192.0.2.1 > 192.0.2.2 seq=100 below=9 top=90 dev=wan cpu=3"},
		KindLate: {with(sa, func(e *bpfobj.Event) { e.Value, e.Extent, e.Reqid = 9, 4, 5 }),
			"T late      in  spi=0x00000007 192.0.2.1 > 192.0.2.2 seq=100 below=9 extent=4 top=90 reqid=5 dev=wan cpu=3"},
		KindStale:   {with(sa, func(e *bpfobj.Event) { e.Value = -9000 }), "T stale     in  spi=0x00000007 192.0.2.1 > 192.0.2.2 seq=100 distance=-9000 top=90 dev=wan cpu=3"},
		KindRestart: {with(sa, func(e *bpfobj.Event) { e.Dir = 1 }), "T restart   out spi=0x00000007 192.0.2.1 > 192.0.2.2 seq=100 top=90 dev=wan cpu=3"},
		KindJump:    {with(sa, func(e *bpfobj.Event) { e.Value = 9 }), "T jump      in  spi=0x00000007 192.0.2.1 > 192.0.2.2 seq=100 skipped=9 after=90 dev=wan cpu=3"},
		KindRebind: {with(sa, func(e *bpfobj.Event) { e.Sport, e.Dport, e.Value = 4501, 4500, 1<<32|4500<<16|4500 }),
			"T rebind    in  spi=0x00000007 192.0.2.1:4501 > 192.0.2.2:4500 seq=100 old_sport=4500 old_dport=4500 old_encap=udp dev=wan cpu=3"},
		KindMark: {sa, "T mark      in  spi=0x00000007 192.0.2.1 > 192.0.2.2 seq=100 dev=wan cpu=3"},
		KindIKE: {with(at, func(e *bpfobj.Event) {
			e.Sport, e.Dport, e.Seq, e.Top, e.Value, e.Extent, e.ReplayWindow = 500, 500, 1, 2, 3, 0x20<<24|34<<16|8<<8|33, 90
		}), "T ike       in  192.0.2.1:500 > 192.0.2.2:500 v2.0 exchange=34 flags=0x08 id=3 spi=0000000000000001/0000000000000002 length=90 dev=wan cpu=3"},
		KindXfrmDrop: {with(at, func(e *bpfobj.Event) {
			e.Spi, e.Seq, e.Top, e.Value, e.ReplayWindow, e.Mib, e.Reason, e.Location, e.Stack, e.Cause = 7, 10, 90, 80, 32, 4, 5, 0x10, 1, 2
		}), "T xfrm_drop in  spi=0x00000007 192.0.2.1 > 192.0.2.2 seq=10 cause=replay_late top=90 below=80 replay_window=32 counter=C4 reason=R5 at=nf_hook_slow+0x10 dev=wan cpu=3\n    a+0x1\n    b+0x2"},
		KindHostDrop: {with(at, func(e *bpfobj.Event) {
			e.Spi, e.Value, e.Cause, e.Extent, e.Reason, e.Location, e.Reqid = 7, 120, 1, 3, 5, 0x10, 6
		}), "T host_drop in  spi=0x00000007 192.0.2.1 > 192.0.2.2 stage=after_decap place=netfilter bytes=120 reason=R5 at=nf_hook_slow+0x10 hook=forward reqid=6 dev=wan cpu=3"},
		KindPMTU: {with(at, func(e *bpfobj.Event) {
			e.Dir, e.Spi, e.Value, e.Extent, e.Cause = 1, 7, 1400, 1500, 2
			e.Seq, e.Top = binary.NativeEndian.Uint64(told[:]), binary.NativeEndian.Uint64(told[8:])
		}), "T pmtu      out spi=0x00000007 192.0.2.1 > 192.0.2.2 what=told mtu=1400 bytes=1500 reporter=192.0.2.9 dev=wan cpu=3"},
	}
	tr := Translate{
		Location: func(uint64) string { return "nf_hook_slow+0x10" }, Interface: func(uint32) string { return "wan" },
		Reason: func(uint32) string { return "R5" }, Counter: func(uint32) string { return "C4" },
		Stack: func(id uint32, location uint64) []string {
			if id != 0 || location != 0x10 {
				t.Errorf("stack %d of %#x", id, location)
			}
			return []string{"a+0x1", "b+0x2"}
		},
	}
	schema := traceSchema(t)
	for _, name := range n.Event {
		row, ok := rows[name]
		if !ok {
			t.Errorf("no event of kind %s", name)
			continue
		}
		row.raw.Kind = kind(name)
		for _, names := range []Translate{tr, {}} {
			e, err := n.decodeEvent(record(row.raw), clock{time.Unix(0, 0)}, names)
			if err != nil {
				t.Fatal(err)
			}
			if names.Reason != nil {
				if diff := cmp.Diff(row.line, e.Line("T")); diff != "" {
					t.Errorf("%s (-want +got):\n%s", name, diff)
				}
			}
			b, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(doc); err != nil {
				t.Errorf("%s: %s: %v", name, b, err)
			}
		}
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(`{"time":"2026-01-01T00:00:00Z","mono_ns":1,"kind":"nonsense","direction":"in","spi":"0x00000001","src":"::","dst":"::","seq":1,"cpu":0}`))
	if err != nil {
		t.Fatal(err)
	}
	if schema.Validate(doc) == nil {
		t.Error("a kind that there is not passes the schema")
	}
}
