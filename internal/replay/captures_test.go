// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/ledger"
)

// truth is what an independent reading of a capture says, in the form of truth/NAME.json.
type truth struct {
	Packets uint64 `json:"packets"`
	SAs     []struct {
		Src        string `json:"src"`
		Dst        string `json:"dst"`
		SPI        string `json:"spi"`
		Encap      string `json:"encap"` // "esp" or "udp"
		Packets    uint64 `json:"packets"`
		First      uint64 `json:"first_seq"`
		Highest    uint64 `json:"highest_seq"`
		Unique     uint64 `json:"unique"`
		Duplicates uint64 `json:"duplicates"`
		Missing    uint64 `json:"missing"`
		GapEvents  uint64 `json:"gap_events"`
		OutOfOrder uint64 `json:"out_of_order"`
		ExtentMax  uint64 `json:"reorder_extent_max"`
	} `json:"sas"`
	IKE struct {
		Messages uint64 `json:"messages"`
	} `json:"ike"`
	Keepalives []struct {
		Packets uint64 `json:"packets"`
	} `json:"natt_keepalives"`
	Fragments map[string]uint64 `json:"fragments"`
	Other     map[string]uint64 `json:"other"`
}

// counts is the part of truth and result that has to be equal.
type counts struct {
	Packets, IKE, Keepalives, FragFirst, FragLater, ESPShort uint64
	SAs                                                      map[string]string
}

func (tr truth) counts() counts {
	c := counts{Packets: tr.Packets, IKE: tr.IKE.Messages, ESPShort: tr.Other["esp_short"], SAs: map[string]string{}}
	for _, k := range tr.Keepalives {
		c.Keepalives += k.Packets
	}
	c.FragFirst = tr.Fragments["v4_first"] + tr.Fragments["v6_first"]
	c.FragLater = tr.Fragments["v4_later"] + tr.Fragments["v6_later"]
	for _, s := range tr.SAs {
		encap := map[string]ledger.Encap{"esp": ledger.EncapNone, "udp": ledger.EncapUDP}[s.Encap]
		key := fmt.Sprintf("%s > %s %s %s", s.Src, s.Dst, s.SPI, encap)
		c.SAs[key] = saLine(s.Packets, s.First, s.Highest, s.Unique, s.Duplicates, s.Missing, s.GapEvents, s.OutOfOrder, s.ExtentMax)
	}
	return c
}

func saLine(packets, first, highest, unique, duplicates, missing, gaps, late, extent uint64) string {
	return fmt.Sprintf("packets %d first %d highest %d unique %d duplicates %d missing %d gaps %d late %d extent %d",
		packets, first, highest, unique, duplicates, missing, gaps, late, extent)
}

func (r *Result) counts() counts {
	class, aside := r.End.Packets.Classes[ledger.Unknown], r.End.Packets.Asides[ledger.Unknown]
	c := counts{
		Packets: r.Packets, IKE: class["ike"], Keepalives: class["keepalive"], FragFirst: aside["frag_first"],
		FragLater: class["frag_later"], ESPShort: class["esp_short"], SAs: map[string]string{},
	}
	for _, s := range r.End.Wire {
		key := fmt.Sprintf("%s > %s %s %s", s.Src, s.Key.Dst, s.Key.SPI, s.Encap)
		c.SAs[key] = saLine(s.Packets, s.FirstSeq, s.HighestSeq, s.Unique, s.Duplicates, s.Missing, s.GapEvents, s.Late, s.ExtentMax)
	}
	return c
}

// TestCaptures compares each capture in the folder XFRMSCOPE_CAPTURES with its truth table, and all of
// them through the driver with all of them packet by packet.
func TestCaptures(t *testing.T) {
	dir := os.Getenv("XFRMSCOPE_CAPTURES")
	if dir == "" {
		t.Skip("no folder of captures with truth tables is named by XFRMSCOPE_CAPTURES")
	}
	needBPF(t)
	tables, err := filepath.Glob(filepath.Join(dir, "truth", "*.json"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("no truth tables in %s: %v", dir, err)
	}
	var files []string
	sas := 0
	for _, table := range tables {
		b, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		var want truth
		if err := json.Unmarshal(b, &want); err != nil {
			t.Fatalf("%s: %v", table, err)
		}
		name := filepath.Base(table[:len(table)-len(".json")])
		file := filepath.Join(dir, name)
		files = append(files, file)
		t.Run(name, func(t *testing.T) {
			got := runFiles(t, false, Options{}, file)
			if diff := cmp.Diff(want.counts(), got.counts()); diff != "" {
				t.Errorf("(-truth +got):\n%s\nclasses %v", diff, sorted(got))
			}
			sas += len(got.End.Wire)
		})
	}
	t.Logf("%d captures, %d SAs", len(files), sas)
	batch, single := runFiles(t, false, Options{}, files...), runFiles(t, true, Options{}, files...)
	if diff := cmp.Diff(single.End, batch.End, compareAddr); diff != "" {
		t.Errorf("all captures (-packet by packet +driver):\n%s", diff)
	}
}

func sorted(r *Result) (out []string) {
	for dir, classes := range r.End.Packets.Classes {
		for _, name := range slices.Sorted(maps.Keys(classes)) {
			out = append(out, fmt.Sprintf("%s %s %d", dir, name, classes[name]))
		}
	}
	return out
}

// runFiles runs captures, through the driver or packet by packet.
func runFiles(t testing.TB, single bool, opts Options, files ...string) *Result {
	t.Helper()
	w, err := open(opts, []way{{lockfree: true, driver: !single}, {driver: !single}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	res, err := w.run(context.Background(), files, opts)
	if err != nil {
		t.Fatal(err)
	}
	return res
}
