// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/reader"
)

// TestStamp shows the same three moments in each of the four ways.
func TestStamp(t *testing.T) {
	first := time.Date(2026, 1, 2, 3, 4, 5, 123456789, time.FixedZone("", 3600))
	for mode, want := range map[timeMode][]string{
		timeAbs:   {"2026-01-02T03:04:05.123456+01:00", "2026-01-02T03:04:06.623456+01:00", "2026-01-02T03:04:06.623446+01:00"},
		timeRel:   {"+0.000000", "+1.500000", "+1.499990"},
		timeDelta: {"+0.000000", "+1.500000", "-0.000010"},
		timeUnix:  {"1767319445.123456", "1767319446.623456", "1767319446.623446"},
	} {
		s := stamper{mode: mode}
		var got []string
		for _, after := range []time.Duration{0, 1500 * time.Millisecond, 1500*time.Millisecond - 10*time.Microsecond} {
			got = append(got, s.stamp(first.Add(after)))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", mode, diff)
		}
	}
	if err := new(timeMode).Set("later"); err == nil {
		t.Error("a mode that there is not is taken")
	}
}

// TestReqIDs knows an SA by destination and SPI, and a packet that is not encrypted yet by the SPI alone
// where that is enough.
func TestReqIDs(t *testing.T) {
	told := 0
	r := newReqIDs(func(sas []ledger.SADEntry) error { told += len(sas); return nil })
	dst := func(s string) netip.Addr { return netip.MustParseAddr(s) }
	for _, sa := range []struct {
		dst        string
		spi, reqid uint32
	}{{"192.0.2.1", 1, 5}, {"192.0.2.2", 1, 6}, {"192.0.2.1", 2, 7}} {
		r.add(ledger.SADEntry{Key: ledger.SAKey{Dst: dst(sa.dst), SPI: ledger.SPI(sa.spi)}, ReqID: sa.reqid})
	}
	for _, row := range []struct {
		kind string
		dst  string
		spi  ledger.SPI
		want uint32
	}{
		{reader.KindGap, "192.0.2.1", 1, 5}, {reader.KindGap, "192.0.2.2", 1, 6}, {reader.KindGap, "192.0.2.2", 2, 0}, {reader.KindGap, "192.0.2.1", 0, 0},
		{reader.KindPMTU, "10.0.0.1", 2, 7}, {reader.KindPMTU, "10.0.0.1", 1, 0}, {reader.KindPMTU, "10.0.0.1", 3, 0},
	} {
		if got := r.of(reader.Event{Kind: row.kind, Dst: dst(row.dst), SPI: row.spi}); got != row.want {
			t.Errorf("%s to %s, SPI %s: reqid %d, want %d", row.kind, row.dst, row.spi, got, row.want)
		}
	}
	if told != 3 || r.err() != nil {
		t.Errorf("told of %d SAs, %v", told, r.err())
	}
}
