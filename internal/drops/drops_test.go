// SPDX-License-Identifier: Apache-2.0

package drops

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/kernel"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/probe"
)

// cut is what of a row a test demands.
type cut struct {
	Packets                             uint64
	Reason, Function, Device, Proto, SA string
	Example                             string
}

func cuts(rows []Row) []cut {
	out := []cut{}
	for _, r := range rows {
		out = append(out, cut{r.Packets, r.Reason, r.Function, r.Interface, r.Protocol, r.SA.text(), r.Example.text(r.Protocol)})
	}
	return out
}

func find(t *testing.T, rows []Row, reason, device, protocol string) Row {
	t.Helper()
	var found []Row
	for _, r := range rows {
		if r.Reason == reason && r.Interface == device && r.Protocol == protocol {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d rows of %s at %s with reason %s among %+v", len(found), protocol, device, reason, cuts(rows))
	}
	return found[0]
}

// TestKnownDrops provokes drops of every layer, so many of each, and demands just these.
func TestKnownDrops(t *testing.T) {
	enter(t)
	listener, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4242})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	s := open(t, Options{})

	udp(t, "127.0.0.1:4242", 50) // delivered
	udp(t, "127.0.0.1:9999", 5)
	udp(t, "[::1]:9999", 4)
	raw(t, ipv4("127.0.0.1", "127.0.0.1", 64, unix.IPPROTO_UDP, udpHeader(1, 4242, 1)), 6)                  // checksum
	raw(t, ipv4("127.0.0.1", "127.0.0.1", 64, unix.IPPROTO_ESP, esp(0xc0ffee01, 1)), 7)                     // no such SA
	raw(t, ipv4("127.0.0.1", "127.0.0.1", 64, 253, make([]byte, 8)), 3)                                     // nobody's protocol
	arrive(t, ipv4("10.1.0.2", "10.1.0.3", 1, unix.IPPROTO_ICMP, icmpError), 8)                             // TTL ends
	arrive(t, ipv4("10.1.0.2", "10.2.0.3", 64, unix.IPPROTO_ICMP, icmpError), 9)                            // unreachable
	arrive(t, append([]byte{0x45, 1}, ipv4("10.1.0.2", "10.1.0.1", 64, 17, udpHeader(1, 2, 0))[2:]...), 10) // header checksum
	const sent = 5 + 4 + 6 + 7 + 3 + 8 + 9 + 10
	rows, total := await(t, s, sent)
	if total.Packets != sent || len(total.Lost) != 0 {
		t.Errorf("%d packets, %v lost, want %d and nothing: %+v", total.Packets, total.Lost, sent, cuts(rows))
	}
	for _, want := range []struct {
		reason, device, protocol string
		packets                  uint64
		function, sa, dst        string
	}{
		{"UDP_CSUM", "lo", "UDP", 6, "__udp4_lib_rcv", "", "127.0.0.1:4242"},
		{"IP_NOPROTO", "lo", "ESP", 7, "ip_", "0xc0ffee01,127.0.0.1,in", "127.0.0.1"},
		{"IP_NOPROTO", "lo", "proto_253", 3, "ip_", "", "127.0.0.1"},
		{"IP_INHDR", "in", "ICMP", 8, "ip_forward", "", "10.1.0.3"},
		{"IP_CSUM", "in", "UDP", 10, "ip_rcv_core", "", "10.1.0.1:2"},
	} {
		r := find(t, rows, want.reason, want.device, want.protocol)
		if r.Packets != want.packets || !strings.HasPrefix(r.Function, want.function) || r.SA.text() != want.sa {
			t.Errorf("%s: %d packets at %s, SA %s, want %+v", want.reason, r.Packets, r.Location, r.SA.text(), want)
		}
		if got := endpoint(r.Example.Dst, r.Example.DstPort); got != want.dst {
			t.Errorf("%s: example goes to %s, want %s", want.reason, got, want.dst)
		}
	}
	// A drop at the same place by another family is another function.
	got := map[string]uint64{}
	for _, r := range rows {
		if r.Reason == "NO_SOCKET" {
			got[r.Function] += r.Packets
		}
		if r.Example.Dst == netip.MustParseAddr("10.2.0.3") && (r.Packets != 9 || r.Function != "ip_error" || r.Interface != "in") {
			t.Errorf("unreachable: %+v", cuts([]Row{r}))
		}
	}
	if diff := cmp.Diff(map[string]uint64{"__udp4_lib_rcv": 5, "__udp6_lib_rcv": 4}, got); diff != "" {
		t.Errorf("NO_SOCKET by function (-want +got):\n%s", diff)
	}
}

// TestFilters sends the same packets past each filter.
func TestFilters(t *testing.T) {
	enter(t)
	for name, row := range map[string]struct {
		o    Options
		want uint64
	}{
		"none":           {Options{}, 2 + 3 + 4 + 5},
		"interface":      {Options{Interfaces: []string{"absent", "in"}}, 5},
		"reason":         {Options{Reasons: []string{"no_socket"}}, 2 + 4},
		"reasons":        {Options{Reasons: []string{"NO_SOCKET", "IP_INHDR"}}, 2 + 4 + 5},
		"SPI":            {Options{SPIs: []ledger.SPI{0xc0ffee01}}, 3},
		"SPI in UDP":     {Options{SPIs: []ledger.SPI{0xc0ffee02}}, 4},
		"address":        {Options{Peers: []netip.Prefix{netip.MustParsePrefix("10.1.0.3/32")}}, 5},
		"prefix":         {Options{Peers: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/30")}}, 2 + 3 + 4},
		"IPv6 prefix":    {Options{Peers: []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}}, 0},
		"everything":     {Options{Peers: []netip.Prefix{netip.MustParsePrefix("::/0")}}, 2 + 3 + 4 + 5},
		"all that":       {Options{Reasons: []string{"IP_INHDR"}, Interfaces: []string{"in"}, Peers: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/9")}}, 5},
		"contradictions": {Options{Reasons: []string{"IP_INHDR"}, Interfaces: []string{"lo"}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			enter(t)
			s, all := open(t, row.o), open(t, Options{})
			udp(t, "127.0.0.1:9999", 2)
			raw(t, ipv4("127.0.0.1", "127.0.0.1", 64, unix.IPPROTO_ESP, esp(0xc0ffee01, 1)), 3)
			nat := ipv4("127.0.0.1", "127.0.0.1", 64, unix.IPPROTO_UDP, udpHeader(4500, 4500, 0))
			copy(nat[28:], esp(0xc0ffee02, 1))
			raw(t, nat, 4)
			arrive(t, ipv4("10.1.0.2", "10.1.0.3", 1, unix.IPPROTO_ICMP, icmpError), 5)
			if _, total := await(t, all, 14); total.Packets != 14 {
				t.Fatalf("%d packets without filters, want 14", total.Packets)
			}
			if rows, total := await(t, s, 0); total.Packets != row.want {
				t.Errorf("%d packets, want %d: %+v", total.Packets, row.want, cuts(rows))
			}
		})
	}
}

// TestNamespaces looks at one namespace, and at all.
func TestNamespaces(t *testing.T) {
	enter(t)
	mine := open(t, Options{Peers: []netip.Prefix{netip.MustParsePrefix("127.99.0.0/16")}})
	all := open(t, Options{AllNetns: true, Peers: []netip.Prefix{netip.MustParsePrefix("127.99.0.0/16")}})
	udp(t, "127.99.0.1:9999", 3)
	enter(t)
	udp(t, "127.99.0.1:9999", 4)
	rows, total := await(t, all, 7)
	spaces := map[string]uint64{}
	for _, r := range rows {
		spaces[r.Netns] += r.Packets
	}
	if total.Packets != 7 || len(spaces) != 2 || spaces[""] != 0 {
		t.Errorf("all namespaces: %d packets by namespace %v, want 3 and 4", total.Packets, spaces)
	}
	if _, total := await(t, mine, 3); total.Packets != 3 {
		t.Errorf("one namespace: %d packets, want 3", total.Packets)
	}
}

// TestFullTable has more SPIs than the table has room for.
func TestFullTable(t *testing.T) {
	enter(t)
	s := open(t, Options{})
	const spis = 5000
	for spi := range uint32(spis) {
		raw(t, ipv4("127.0.0.1", "127.0.0.1", 64, unix.IPPROTO_ESP, esp(0x1000+spi, 1)), 1)
	}
	rows, total := await(t, s, spis)
	var folded, named uint64
	for _, r := range rows {
		if r.Folded {
			folded += r.Packets
		} else {
			named += r.Packets
		}
	}
	if total.Packets != spis || folded+named != spis || folded != total.Lost["folded"] || folded < 900 || total.Lost["table_full"] != 0 {
		t.Errorf("%d packets: %d with SA, %d folded, lost %v, want %d in all and none lost", total.Packets, named, folded, total.Lost, spis)
	}
}

// TestFollow reads drops live, and loses count of none that the rate withholds.
func TestFollow(t *testing.T) {
	enter(t)
	s := open(t, Options{Follow: 10, Stacks: true})
	ctx, stop := context.WithCancel(context.Background())
	lines := make(chan Drop, 1000)
	ended := make(chan error, 1)
	go func() { ended <- s.Follow(ctx, func(d Drop) error { lines <- d; return nil }) }()
	udp(t, "127.0.0.1:9999", 300)
	first := <-lines
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, total, err := s.Report(); err != nil {
			t.Fatal(err)
		} else if total.Packets >= 300 {
			break
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	_, total, err := s.Report()
	if err != nil {
		t.Fatal(err)
	}
	seen := uint64(len(lines)) + 1
	if total.Packets != 300 || seen < 10 || seen+total.Lost["withheld"] != 300 {
		t.Errorf("%d packets, %d lines, %v, want 300 together", total.Packets, seen, total.Lost)
	}
	if first.Reason != "NO_SOCKET" || first.DstPort != 9999 || time.Since(first.Time) > time.Minute || time.Since(first.Time) < 0 {
		t.Errorf("first drop: %+v", first)
	}
	validate(t, schema(t), first)
	if len(first.Stack) < 5 || first.Stack[0] != first.Location || !strings.HasPrefix(first.Stack[1], "ip_protocol_deliver_rcu+0x") {
		t.Errorf("stack of the first drop: %q", first.Stack)
	}
	if line := first.Line("now"); !strings.HasPrefix(line, "now drop UDP 127.0.0.1:") || !strings.Contains(line, " reason=NO_SOCKET at=__udp4_lib_rcv+0x") {
		t.Errorf("line: %s", line)
	}
}

// TestHiddenSymbols takes the symbols away, as kptr_restrict does.
func TestHiddenSymbols(t *testing.T) {
	enter(t)
	k, err := probe.AskKernel()
	if err != nil {
		t.Fatal(err)
	}
	k.Symbols, k.SymbolsErr = nil, kernel.ErrSymbolsHidden
	s, err := Open(k, Options{Stacks: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	udp(t, "127.0.0.1:9999", 2)
	rows, total := await(t, s, 2)
	if len(total.Notes) == 0 || !strings.Contains(strings.Join(total.Notes, "\n"), "kptr_restrict") {
		t.Errorf("notes: %q", total.Notes)
	}
	if len(rows) == 0 || rows[0].Function != "" || !strings.HasPrefix(rows[0].Location, "0x") || !strings.HasPrefix(rows[0].Stack[0], "0x") {
		t.Errorf("rows: %+v", rows)
	}
}

// TestReasonErrors asks for reasons that there are not.
func TestReasonErrors(t *testing.T) {
	enter(t)
	open(t, Options{}) // asks the kernel
	_, err := Open(asked, Options{Reasons: []string{"socket"}})
	var reason *ReasonError
	if !errors.As(err, &reason) || !strings.Contains(err.Error(), "NO_SOCKET") {
		t.Errorf("reason socket: %v", err)
	}
	if err := (names{}).noReason("X"); !strings.Contains(err.Error(), "5.17") {
		t.Errorf("no reasons: %v", err)
	}
	if _, err := Open(asked, Options{Interfaces: []string{"a-name-that-is-too-long"}}); err == nil || !strings.Contains(err.Error(), "15 characters") {
		t.Errorf("long name: %v", err)
	}
}

// TestWrite renders rows of every kind.
func TestWrite(t *testing.T) {
	at := uint16(3)
	rows := []Row{
		{Packets: 30, Share: 75, What: What{Reason: "XFRM_POLICY", Location: "xfrm_input+0x1", Interface: "eth0", Protocol: "ESP", Counter: "XfrmInNoStates", Cause: "no_state",
			SA: &SA{SPI: 1, Dst: netip.MustParseAddr("192.0.2.1"), Proto: "ESP", Direction: ledger.In, Known: "header"}},
			Example: Packet{Src: netip.MustParseAddr("192.0.2.2"), Dst: netip.MustParseAddr("192.0.2.1"), Length: 120}},
		{Packets: 9, Share: 22.5, What: What{Location: "0x1234", NoNetns: true, Protocol: "ICMP", Stack: []string{"a+0x1", "b+0x2"}},
			Example: Packet{Src: netip.MustParseAddr("::1"), Dst: netip.MustParseAddr("::2"), Type: &at, Code: &at, Length: 60}},
	}
	total := Total{Packets: 40, Rows: 3, Shown: 2, NotShown: 1, Seconds: 2, Lost: map[string]uint64{"withheld": 1, "folded": 2}}
	var b bytes.Buffer
	if err := Write(&b, rows, total); err != nil {
		t.Fatal(err)
	}
	want := `40 packets dropped in 2.0 s, in 3 rows; the 2 with the most packets:

packets  share  reason       where           device           SA
     30  75.0%  XFRM_POLICY  xfrm_input+0x1  eth0             0x00000001,192.0.2.1,in
                e.g. ESP 192.0.2.2 > 192.0.2.1 len=120
                xfrm: XfrmInNoStates (no_state)
      9  22.5%  -            0x1234          none in unknown  -
                e.g. ICMP ::1 > ::2 type=3 code=3 len=60
                  a+0x1
                  b+0x2

1 packet in the other 1 row: --top 0 shows all.
2 packets: counted without SA and stack, the table was full
1 line: of --follow withheld by --rate; the rows have their packets
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
}

// TestNamesSteerNoTerminal: a device may have any name without slash, colon and blank (dev_valid_name).
func TestNamesSteerNoTerminal(t *testing.T) {
	what := What{Location: "0x1", Interface: "a\x1b[2J", Netns: "b\u009b2J\n", Protocol: "UDP"}
	var b bytes.Buffer
	if err := Write(&b, []Row{{Packets: 1, What: what}}, Total{Packets: 1, Rows: 1, Shown: 1}); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{b.String(), Drop{What: what}.Line("now")} {
		if !strings.Contains(text, "a?[2J") || !strings.Contains(text, "b?2J?") {
			t.Errorf("names are written as they are: %q", text)
		}
	}
}
