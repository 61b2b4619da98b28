// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOptionsRefuse(t *testing.T) {
	rows := []struct {
		options Options
		want    string
	}{
		{Options{Family: 5}, "neither 4 nor 6"},
		{Options{Mode: "beet"}, "neither tunnel nor transport"},
		{Options{Pairs: -1}, "SA pairs"},
		{Options{Mode: TransportMode, Pairs: 2}, "one SA pair"},
		{Options{Mode: TransportMode, Hosts: true}, "need tunnel mode"},
		{Options{NoReplay: true, ReplayWindow: 32}, "at once"},
		{Options{NoReplay: true, ESN: true}, "ESN needs"},
		{Options{ReplayWindow: 4097}, "above the kernel's"},
		{Options{Windows: []uint32{4097}}, "above the kernel's"},
		{Options{Windows: []uint32{64, 64}}, "2 windows for 1"},
	}
	for _, row := range rows {
		if _, err := row.options.normalize(); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("normalize(%+v) = %v, want an error with %q", row.options, err, row.want)
		}
	}
	got, err := Options{Pairs: 2, Windows: []uint32{64}}.normalize()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]uint32{64, 32}, []uint32{got.window(0), got.window(1)}); diff != "" {
		t.Errorf("windows of the pairs (-want +got):\n%s", diff)
	}
}

func TestParseCounters(t *testing.T) {
	// As iproute2 6.1 prints it, without what the reader does not use.
	out := "src 192.0.2.1 dst 192.0.2.2\n\tproto esp spi 0xa2b00001(2729443329) reqid 1(0x00000001) mode tunnel\n" +
		"\tlifetime current:\n\t  25200(bytes), 90(packets)\n\t  add 2026-01-01 00:00:00 use 2026-01-01 00:00:01\n" +
		"\tstats:\n\t  replay-window 3 replay 4 failed 5\n"
	got, err := parseCounters(out)
	if err != nil {
		t.Fatal(err)
	}
	want := SACounters{Packets: 90, Bytes: 25200, ReplayLate: 3, ReplayDuplicate: 4, IntegrityFailed: 5}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := parseCounters("something else"); err == nil {
		t.Error("a form that the reader does not know is no error")
	}
}

func TestLinkPattern(t *testing.T) {
	out := "2: wan@if2: <BROADCAST> mtu 1500\n    link/ether 02:00:00:00:00:01\n" +
		"    RX:  bytes packets errors dropped  missed   mcast           \n         876      11      0       2       0       0 \n" +
		"    TX:  bytes packets errors dropped carrier collsns           \n         516       7      0       1       0       0 \n"
	got := linkPattern.FindStringSubmatch(out)
	if diff := cmp.Diff([]string{"11", "2", "7", "1"}, got[1:]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
