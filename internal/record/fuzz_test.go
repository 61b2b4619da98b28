// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/record"
	"xfrmscope/internal/report"
)

// FuzzFile reads files that anybody may have made. It must come to an end without a panic and without taking
// memory out of proportion, and what it hands out must make a report.
func FuzzFile(f *testing.F) {
	whole := write(f, record.Options{}, sampleRows()...)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte("xfrmscope"))
	f.Fuzz(func(t *testing.T, b []byte) { readAll(t, b) })
}

// FuzzRecords reads records that anybody may have written, behind a header that is good.
func FuzzRecords(f *testing.F) {
	for _, text := range []string{
		`{"snapshot":{"Wire":[1,{"0":{"Packets":5,"Key":{"Dst":"::1","SPI":"0x1"}}}]}}` + "\n" + `{"snapshot":{"Wire":[2,[-1,1,0,1],{"1":{"Packets":-5}}]}}`,
		`{"snapshot":{"Policies":[1,{"0":{"Selector":{"Src":"10.0.0.0/8"}}}],"IKE":{"Peers":[1,{}]},"XfrmStat":[{"a":1},["b"]]}}`,
		`{"event":{"kind":"gap","time":"2026-01-01T00:00:00Z"}}` + "\n" + `{"hooks":[{"name":"x"}]}` + "\n" + `{"end":{"why":"time"}}`,
		`{"snapshot":{"Flows":{"Flows":[3,{"2":{"Ends":{"0":{"Scale":7}}}}]},"Host":{"Links":[1,{"0":{"Counters":[{"rx":9}]}}]},"Later":[{"a":null}]}}`,
	} {
		f.Add([]byte(text))
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		f.Fatal(err)
	}
	head := write(f, record.Options{})
	f.Fuzz(func(t *testing.T, b []byte) {
		readAll(t, z.EncodeAll(append(bytes.Clone(b), '\n'), bytes.Clone(head)))
	})
}

func sampleRows() []ledger.Snapshot {
	return []ledger.Snapshot{
		{At: time.Unix(1, 0), Wire: []ledger.WireSA{{Packets: 1, GapHist: []uint64{0, 1}}}, XfrmStat: map[string]uint64{"a": 1}},
		{At: time.Unix(2, 0), Wire: []ledger.WireSA{{Packets: 2}, {Packets: 1}}, XfrmStat: map[string]uint64{}},
	}
}

func readAll(t *testing.T, b []byte) {
	if len(b) > 1<<16 {
		t.Skip("longer files only take longer")
	}
	r, err := record.NewReader(bytes.NewReader(b))
	if err != nil {
		return
	}
	defer r.Close()
	l := ledger.New(ledger.Source{Kind: ledger.KindRecording})
	for range 1000 {
		rec, err := r.Next()
		if err != nil {
			if again, second := r.Next(); second != err || again.Snapshot != nil {
				t.Errorf("after %v comes %+v, %v", err, again, second)
			}
			break
		}
		if rec.Snapshot != nil {
			l.Observe(*rec.Snapshot)
		}
	}
	d := report.New(l.Report())
	if err := d.WriteText(io.Discard); err != nil {
		t.Error(err)
	}
	if err := d.WriteHTML(io.Discard, nil); err != nil {
		t.Error(err)
	}
}
