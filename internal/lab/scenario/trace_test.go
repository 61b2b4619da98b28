// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/packet"
	"xfrmscope/internal/lab/tunnel"
)

// traceEvent is what these tests read of a line of `trace --json`.
type traceEvent struct {
	Kind      string   `json:"kind"`
	Direction string   `json:"direction"`
	SPI       string   `json:"spi"`
	ReqID     uint32   `json:"reqid"`
	Seq       int64    `json:"seq"`
	Value     int64    `json:"value"`
	Cause     string   `json:"cause"`
	Location  string   `json:"location"`
	Stack     []string `json:"stack"`
	What      string   `json:"what"`
	MTU       int      `json:"mtu"`
	Bytes     int      `json:"bytes"`
	Src       string   `json:"src"`
	Dst       string   `json:"dst"`
}

func traceEvents(t *testing.T, x *tool) (events []traceEvent) {
	t.Helper()
	for _, line := range bytes.Split(bytes.TrimSpace(x.stdout.Bytes()), []byte("\n")) {
		var e traceEvent
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		valid(t, "trace", line)
		events = append(events, e)
	}
	return events
}

// TestTraceFilters asks for one reqid at a rate that the events of the other SA would use up at once, and
// demands every event of the one, drops with their stacks included, none of the other, and none withheld:
// what is not wanted is turned away in the kernel. An SA that the gateway gets meanwhile, with the same
// reqid, is followed.
func TestTraceFilters(t *testing.T) {
	tunnel.Need(t)
	const gaps, rate = 12, 40
	spi, other := uint32(tunnel.FirstSPIAtoB), uint32(tunnel.FirstSPIAtoB+1)
	b := raise(t, tunnel.Options{Pairs: 2}, func(*tunnel.Tunnel) error { return nil }, []inject.Rule{
		{Action: inject.Drop, Seqs: inject.Every(10, 10+5*(gaps-1), 5), SPI: spi},
		{Action: inject.Corrupt, Seqs: []uint32{101, 102, 103}, SPI: spi},
		{Action: inject.Drop, Seqs: inject.Every(2, 200, 2), SPI: other},
	})
	x := launch(t, b.tunnel.B, "trace", "--json", "--no-inner", "--stack", "--rate", fmt.Sprint(rate), "--reqid", fmt.Sprint(b.tunnel.AtoB[0].ReqID),
		"--kind", "gap,xfrm_drop", "--direction", "in")
	b.send(b.tunnel.AtoB[1], 200)
	b.send(b.tunnel.AtoB[0], 120)
	b.settle()
	// A new SA, of which crafted packets come until the end: when the gateway notices it is its own affair.
	const added = 0x00c0ffee
	a, to := b.tunnel.A, b.tunnel.B.Outer.String()
	if err := b.tunnel.B.IP(fmt.Sprintf("xfrm state add src %s dst %s proto esp spi %#x reqid %d mode tunnel aead rfc4106(gcm(aes)) 0x%040x 128",
		a.Outer, to, added, b.tunnel.AtoB[0].ReqID, 1)); err != nil {
		t.Fatal(err)
	}
	frame := packet.Eth().IPv4(a.Outer.String(), to).ESP(added, 1, 80).Frame()
	for i := range uint32(20) {
		if err := a.Do(func() error { return sendIPv4(frame.Seq(1 + 3*i).Data[14:]) }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.settle()
	x.end(t)

	events := traceEvents(t, x)
	got := map[string]int{}
	for _, e := range events {
		if e.ReqID != b.tunnel.AtoB[0].ReqID || e.Direction != "in" {
			t.Errorf("unwanted: %+v", e)
		}
		got[e.SPI+" "+e.Kind+" "+e.Cause]++
		if e.Kind == "xfrm_drop" && (len(e.Stack) < 4 || e.Stack[0] != e.Location || !strings.HasPrefix(e.Location, "xfrm_input")) {
			t.Errorf("drop without its stack: %+v", e)
		}
	}
	diff(t, "events of the wanted SA", []int{gaps, 3}, []int{got[name(spi)+" gap "], got[name(spi)+" xfrm_drop integrity_failed"]})
	if n := got[name(added)+" gap "]; n == 0 {
		t.Errorf("no gap of the SA that was added: %v", got)
	}
	for key := range got {
		if strings.HasPrefix(key, name(other)) {
			t.Errorf("events of the other SA: %v", got)
		}
	}
	if !strings.Contains(x.stderr.String(), "; 0 withheld by the rate limit, 0 lost") {
		t.Errorf("losses: %s", x.stderr.Bytes())
	}
	if t.Failed() {
		t.Logf("%s\n%s", x.stdout.Bytes(), x.stderr.Bytes())
	}
}

// sendIPv4 sends one IPv4 packet from the calling thread's network namespace.
func sendIPv4(p []byte) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var to unix.SockaddrInet4
	copy(to.Addr[:], p[16:20])
	return unix.Sendto(fd, p, 0, &to)
}

// sendUDP sends datagrams from the calling thread's network namespace.
func sendUDP(from netip.Addr, to netip.AddrPort, count int) error {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)))
	if err != nil {
		return err
	}
	defer conn.Close()
	for range count {
		if _, err := conn.WriteToUDPAddrPort(make([]byte, 100), to); err != nil {
			return err
		}
	}
	return nil
}

// TestTraceTooBig sends what does not fit the tunnel, and what a firewall refuses, and demands both as events.
func TestTraceTooBig(t *testing.T) {
	tunnel.Need(t)
	const big, refused = 7, 5
	p := &pmtuBench{bench: raise(t, tunnel.Options{Hosts: true, Router: true}, func(*tunnel.Tunnel) error { return nil }, nil)}
	p.nft(p.tunnel.B.Namespace, "add table ip t", "add chain ip t f { type filter hook forward priority 0; }",
		fmt.Sprintf("add rule ip t f ip daddr %s udp dport 7777 drop", p.tunnel.AtoB[0].Dst))
	x := launch(t, p.tunnel.B, "trace", "--json", "--no-inner", "--kind", "pmtu,host_drop")
	p.datagrams(p.tunnel.BtoA[0], linkMTU, big, true, 5*time.Millisecond)
	sa := p.tunnel.AtoB[0]
	if err := sa.From.Inside().Do(func() error { return sendUDP(sa.Src, netip.AddrPortFrom(sa.Dst, 7777), refused) }); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * calm)
	x.end(t)

	events := traceEvents(t, x)
	tooBig, dropped := 0, 0
	for _, e := range events {
		switch {
		case e.Kind == "pmtu" && e.What == "tell_sender" && e.SPI == name(p.tunnel.BtoA[0].SPI) && e.MTU == innerMTU && e.Bytes == linkMTU:
			tooBig++
		case e.Kind == "host_drop" && e.SPI == name(sa.SPI) && (strings.HasPrefix(e.Location, "nf_hook_slow+0x") || strings.HasPrefix(e.Location, "nft_do_chain+0x")):
			dropped++
		}
	}
	diff(t, "packets too big, packets refused", []int{big, refused}, []int{tooBig, dropped})
	if i := slices.IndexFunc(events, func(e traceEvent) bool { return e.Kind != "pmtu" && e.Kind != "host_drop" }); i >= 0 {
		t.Errorf("unwanted: %+v", events[i])
	}
	if t.Failed() {
		t.Logf("%s\n%s", x.stdout.Bytes(), x.stderr.Bytes())
	}
}

// TestTraceMTU demands every kind of path MTU event, each as often as it was made to happen: what is cut, what
// the host behind the gateway is told, what does not become whole again, what a router says and what the route
// takes from it; and, of another gateway, what its own sockets are told.
func TestTraceMTU(t *testing.T) {
	tunnel.Need(t)
	const cut, big, torn, refused = 9, 7, 5, 3
	t.Run("forwarded", func(t *testing.T) {
		p := &pmtuBench{bench: raise(t, tunnel.Options{Hosts: true, Router: true}, func(*tunnel.Tunnel) error { return nil }, nil)}
		in, out := p.tunnel.AtoB[0], p.tunnel.BtoA[0]
		p.takeAll()
		p.must(p.tunnel.B.Sysctl("ipv4/ipfrag_time", "1"))
		x := launch(t, p.tunnel.B, "trace", "--json", "--no-inner", "--kind", "pmtu")
		// First, as long as the host has not been told of an MTU: it would cut them itself.
		p.datagrams(out, linkMTU, cut, false, 5*time.Millisecond)
		p.datagrams(out, linkMTU, big, true, 5*time.Millisecond)
		p.settle()
		// Of ESP in pieces only the first ones pass.
		p.nft(p.tunnel.Path, "add table ip torn", "add chain ip torn forward { type filter hook forward priority 0; }",
			"add rule ip torn forward ip protocol esp ip frag-off & 0x1fff != 0 counter drop")
		fails := snmp(t, p.tunnel.B.Namespace)["Ip.ReasmFails"]
		p.datagrams(in, linkMTU, torn, false, 5*time.Millisecond)
		for end := time.Now().Add(patience); snmp(t, p.tunnel.B.Namespace)["Ip.ReasmFails"] < fails+torn; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the pieces are still waited for")
			}
		}
		// The router says once what fits; from then on it is this gateway that does.
		p.narrowPath()
		p.datagrams(out, innerMTU, 1, true, 0)
		p.settle()
		p.datagrams(out, innerMTU, refused, true, 5*time.Millisecond)
		p.settle()
		x.checkMTU(t, map[string]int{
			"fragmented " + name(out.SPI): cut,
			fmt.Sprintf("tell_sender %s mtu=%d bytes=%d", name(out.SPI), innerMTU, linkMTU): big,
			"reasm_expired " + name(in.SPI):                                                  torn,
			fmt.Sprintf("told %s mtu=%d", name(out.SPI), narrow):                             1,
			fmt.Sprintf("applied to %s mtu=%d", p.tunnel.A.Outer, narrow):                    1,
			fmt.Sprintf("tell_sender %s mtu=%d bytes=%d", name(out.SPI), squeezed, innerMTU): refused,
		})
	})
	for family, fits := range map[int]int{4: innerMTU, 6: innerMTU6} {
		t.Run(fmt.Sprintf("sockets/IPv%d", family), func(t *testing.T) {
			p := &pmtuBench{bench: raise(t, tunnel.Options{Family: family, Router: true}, func(*tunnel.Tunnel) error { return nil }, nil)}
			out := p.tunnel.BtoA[0]
			x := launch(t, p.tunnel.B, "trace", "--json", "--no-inner", "--kind", "pmtu")
			p.offer(out, linkMTU, big)
			p.settle()
			x.checkMTU(t, map[string]int{fmt.Sprintf("tell_socket %s mtu=%d bytes=%d", name(out.SPI), fits, linkMTU): big})
		})
	}
}

// checkMTU ends a trace and demands exactly these path MTU events.
func (x *tool) checkMTU(t *testing.T, want map[string]int) {
	t.Helper()
	x.end(t)
	got := map[string]int{}
	for _, e := range traceEvents(t, x) {
		switch e.What {
		case "tell_sender", "tell_socket":
			got[fmt.Sprintf("%s %s mtu=%d bytes=%d", e.What, e.SPI, e.MTU, e.Bytes)]++
		case "fragmented", "reasm_expired":
			got[e.What+" "+e.SPI]++
		case "told":
			got[fmt.Sprintf("%s %s mtu=%d", e.What, e.SPI, e.MTU)]++
		case "applied":
			got[fmt.Sprintf("%s to %s mtu=%d", e.What, e.Dst, e.MTU)]++
		default:
			t.Errorf("unwanted: %+v", e)
		}
	}
	diff(t, "events", want, got)
	if !strings.Contains(x.stderr.String(), "; 0 withheld by the rate limit, 0 lost") {
		t.Errorf("losses: %s", x.stderr.Bytes())
	}
	if t.Failed() {
		t.Logf("%s\n%s", x.stdout.Bytes(), x.stderr.Bytes())
	}
}

// offer has a socket of a gateway send so many datagrams that must not be cut, each once: that they do not fit
// it is told at once.
func (p *pmtuBench) offer(sa tunnel.SA, inner, count int) {
	p.t.Helper()
	headers := 28
	if sa.Src.Is6() {
		headers = 48
	}
	p.must(sa.From.Do(func() error {
		conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(sa.Src, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(sa.Dst, silentPort)))
		if err != nil {
			return err
		}
		defer conn.Close()
		raw, err := conn.SyscallConn()
		if err != nil {
			return err
		}
		var set error
		err = raw.Control(func(fd uintptr) {
			if headers == 48 {
				set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
			} else {
				set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
			}
		})
		if err = errors.Join(err, set); err != nil {
			return err
		}
		for range count {
			if _, err := conn.Write(make([]byte, inner-headers)); !errors.Is(err, unix.EMSGSIZE) {
				return fmt.Errorf("%d octets: %v, want %v", inner, err, unix.EMSGSIZE)
			}
		}
		return nil
	}))
}
