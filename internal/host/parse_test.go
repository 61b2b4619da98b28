// SPDX-License-Identifier: Apache-2.0

package host

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/ledger"
)

func TestParsePairs(t *testing.T) {
	got := map[string]uint64{}
	text := "Ip: Forwarding ReasmFails\nIp: 1 17\nTcp: MaxConn RetransSegs\nTcp: -1 5\nTcpExt: TCPToZeroWindowAdv\nTcpExt: 3\n"
	if err := parsePairs(got, []byte(text)); err != nil {
		t.Fatal(err)
	}
	want := map[string]uint64{"Ip.ReasmFails": 17, "Tcp.RetransSegs": 5, "TcpExt.TCPToZeroWindowAdv": 3}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"Ip: A B\nIp: 1\n", "Ip: A\nTcp: 1\n", "Ip: A\nIp: x\n"} {
		if err := parsePairs(map[string]uint64{}, []byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestParseSnmp6(t *testing.T) {
	got := map[string]uint64{}
	text := "Ip6ReasmFails   4\nIcmp6InPktTooBigs\t2\nUdp6RcvbufErrors 1\nUdpLite6InErrors 9\n"
	if err := parseSnmp6(got, []byte(text)); err != nil {
		t.Fatal(err)
	}
	want := map[string]uint64{"Ip6.ReasmFails": 4, "Icmp6.InPktTooBigs": 2, "Udp6.RcvbufErrors": 1, "UdpLite6.InErrors": 9}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if err := parseSnmp6(map[string]uint64{}, []byte("Ip6ReasmFails\n")); err == nil {
		t.Error("a name without a number was taken")
	}
}

func TestParseCPUs(t *testing.T) {
	cpus, err := parseStat([]byte("cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 10 1 20 300 5 2 40 3 4 0\ncpu2 1 1 1 1 1 1 1 1 0 0\nintr 5\nsoftirq 7\n"))
	if err != nil {
		t.Fatal(err)
	}
	// CPU 1 is offline. The second line of the newer form is of CPU 2 by its thirteenth column.
	newer := "0000000a 00000002 00000003 0 0 0 0 0 0 00000004 00000001 0 00000000\n0000000b 0 0 0 0 0 0 0 0 0 0 0 00000002\n"
	want := []ledger.CPU{
		{ID: 0, Total: 381, Softirq: 40, Idle: 305, Processed: 10, Dropped: 2, Squeezed: 3, RPS: 4, FlowLimit: 1},
		{ID: 2, Total: 8, Softirq: 1, Idle: 2, Processed: 11},
	}
	if err := parseSoftnet(cpus, []byte(newer)); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, cpus); d != "" {
		t.Error(d)
	}
	older := "0000000a 00000002 00000003 0 0 0 0 0 0 00000004 00000001\n0000000b 0 0 0 0 0 0 0 0 0 0\n"
	if err := parseSoftnet(cpus, []byte(older)); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, cpus); d != "" {
		t.Error(d)
	}
	if err := parseSoftnet(cpus, []byte("0000000a 1\n")); err == nil {
		t.Error("a line of two columns was taken")
	}
	if _, err := parseStat([]byte("cpu0 1 2 3\n")); err == nil {
		t.Error("a line of three columns was taken")
	}
}

func TestLossy(t *testing.T) {
	for name, want := range map[string]bool{
		"rx_missed_errors": true, "rx_no_buffer_count": true, "rx_discards_phy": true, "rx_out_of_buffer": true,
		"port.rx_dropped": true, "rx_fifo_errors": true, "rx_queue_0_drops": true, "rx_nodesc_drop_cnt": true,
		"rx_packets": false, "tx_bytes": false, "rx_queue_0_packets": false, "multicast": false,
	} {
		if got := lossy.MatchString(name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
