// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/verdict"
)

// A finding triggers when it was not there at the look before, also where another one explains it.
func TestCaptureTriggers(t *testing.T) {
	spi, dst := ledger.SPI(0x1001), netip.MustParseAddr("192.0.2.2")
	duplicates := verdict.Finding{ID: verdict.DuplicatePackets, Subject: verdict.Subject{SPI: &spi, Dst: &dst, ReqID: 7}}
	outer := verdict.Finding{ID: "path-loss", Explains: []verdict.Finding{duplicates}}
	looks := [][]verdict.Finding{nil, {outer}, {outer}, nil, {duplicates}}
	for _, c := range []struct {
		triggers, want []string
	}{
		{[]string{"duplicate-packets"}, []string{
			"finding duplicate-packets 0x00001001 to 192.0.2.2 reqid 7", "finding duplicate-packets 0x00001001 to 192.0.2.2 reqid 7"}},
		{[]string{"any-finding"}, []string{"finding path-loss", "finding duplicate-packets 0x00001001 to 192.0.2.2 reqid 7",
			"finding duplicate-packets 0x00001001 to 192.0.2.2 reqid 7"}},
		{[]string{"drop", "replay-window-zero"}, nil},
	} {
		o := captureFlags{triggers: c.triggers}
		var got []string
		known := map[string]bool{}
		for _, list := range looks {
			known = o.findings(func(why string) { got = append(got, why) }, list, known)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", c.triggers, diff)
		}
	}
}

func TestByteSize(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "1500": 1500, "64KiB": 65536, "100MiB": 100 << 20, "2GiB": 2 << 30, "10MB": 1e7, "3B": 3, "500M": 5e8, "2G": 2e9, "7k": 7000} {
		var b byteSize
		if err := b.Set(text); err != nil || int64(b) != want {
			t.Errorf("%s: %d, %v", text, b, err)
		}
		var again byteSize
		if err := again.Set(b.String()); err != nil || again != b {
			t.Errorf("%s is written as %s, which is read as %d, %v", text, b.String(), again, err)
		}
	}
	for _, text := range []string{"", "-1", "1.5MiB", "MiB", "9223372036854775807KiB", "1 MiB", "1TiB"} {
		var b byteSize
		if err := b.Set(text); err == nil {
			t.Errorf("%q is taken for %d", text, b)
		}
	}
}
