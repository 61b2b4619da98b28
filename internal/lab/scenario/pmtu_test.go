// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xfrmscope/internal/lab/tunnel"
)

// The tunnels of these tests carry AES-GCM with an ICV of 16 octets over IPv4: an SA adds 20 octets of
// IP header, 8 of ESP, 8 of IV, 2 of trailer and 16 of ICV, and what it seals is a multiple of 4.
const (
	linkMTU   = 1500
	narrow    = 1400
	innerMTU  = 1446 // through linkMTU, with an outer header of IPv4
	innerMTU6 = 1426 // the same of IPv6
	squeezed  = 1346 // through narrow

	// silentPort has a socket that takes what comes, so that nobody is told of a closed port.
	silentPort = 9
)

// pmtuBench is a tunnel between hosts across a router, with xfrmscope on gateway B and traffic from the
// host behind B to the host behind A.
type pmtuBench struct {
	*bench
	sa       tunnel.SA
	from, to *tunnel.Namespace
	counters map[*tunnel.Namespace]map[string]int64
}

func openPMTU(t *testing.T, o tunnel.Options) *pmtuBench {
	t.Helper()
	o.Hosts, o.Router = true, true
	p := &pmtuBench{counters: map[*tunnel.Namespace]map[string]int64{}}
	p.bench = open(t, o, nil)
	p.sa = p.tunnel.BtoA[0]
	p.from, p.to = p.sa.From.Inside(), p.sa.To.Inside()
	p.takeAll()
	for _, ns := range []*tunnel.Namespace{p.from, p.to, p.tunnel.A.Namespace, p.tunnel.B.Namespace, p.tunnel.Path} {
		p.counters[ns] = snmp(t, ns)
	}
	return p
}

// takeAll opens the silent port of every SA's receiver.
func (p *pmtuBench) takeAll() {
	p.t.Helper()
	for _, sa := range append(slices.Clone(p.tunnel.AtoB), p.tunnel.BtoA...) {
		p.must(sa.To.Inside().Do(func() error {
			conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(sa.Dst, silentPort)))
			if err == nil {
				p.closing("silent port", conn.Close)
			}
			return err
		}))
	}
}

// rose is how far a counter of a namespace moved since the bench was opened.
func (p *pmtuBench) rose(ns *tunnel.Namespace, counter string) int64 {
	p.t.Helper()
	return snmp(p.t, ns)[counter] - p.counters[ns][counter]
}

// snmp reads a namespace's protocol counters, with a reader that is not the one under test.
func snmp(t *testing.T, ns *tunnel.Namespace) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	err := ns.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			return err
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		for i := 0; i+1 < len(lines); i += 2 {
			names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
			for j := 1; j < len(names); j++ {
				n, err := strconv.ParseInt(values[j], 10, 64)
				if err != nil {
					return err
				}
				out[strings.TrimSuffix(names[0], ":")+"."+names[j]] = n
			}
		}
		if text, err = os.ReadFile("/proc/thread-self/net/snmp6"); err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if out[fields[0]], err = strconv.ParseInt(fields[1], 10, 64); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("read protocol counters of %s: %v", ns.Name, err)
	}
	return out
}

// inside runs a program in a namespace.
func inside(ns *tunnel.Namespace, args ...string) error {
	return ns.Do(func() error {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("run %s in %s: %w: %s", strings.Join(args, " "), ns.Name, err, out)
		}
		return nil
	})
}

// narrowPath gives the link from the router to gateway A a smaller MTU.
func (p *pmtuBench) narrowPath() {
	p.t.Helper()
	p.must(p.tunnel.Path.IP(fmt.Sprintf("link set %s mtu %d", tunnel.PathA, narrow)))
}

// nft sets up rules in a namespace.
func (p *pmtuBench) nft(ns *tunnel.Namespace, lines ...string) {
	p.t.Helper()
	p.must(inside(ns, "nft", strings.Join(lines, "\n")))
}

// datagrams sends datagrams through an SA that make inner packets of a size, with or without the DF bit.
// With it the sender does as it is not told: what it hears of MTUs changes nothing.
func (p *pmtuBench) datagrams(sa tunnel.SA, inner, count int, df bool, gap time.Duration) {
	p.t.Helper()
	from, src, dst := sa.From.Inside(), sa.Src, sa.Dst
	header, discover, level, option := 28, unix.IP_PMTUDISC_DONT, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER
	if df {
		discover = unix.IP_PMTUDISC_PROBE
	}
	if dst.Is6() {
		header, level, option = 48, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER
	}
	err := from.Do(func() error {
		conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(src, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(dst, silentPort)))
		if err != nil {
			return err
		}
		defer conn.Close()
		raw, err := conn.SyscallConn()
		if err != nil {
			return err
		}
		var set error
		err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), level, option, discover) })
		if err = errors.Join(err, set); err != nil {
			return err
		}
		payload := make([]byte, inner-header)
		for i := range count {
			_, err := conn.Write(payload)
			// An ICMP error about an earlier one is reported once, in place of sending.
			for try := 0; try < 3 && (errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.ECONNREFUSED)); try++ {
				_, err = conn.Write(payload)
			}
			if err != nil {
				return fmt.Errorf("datagram %d: %w", i, err)
			}
			time.Sleep(gap)
		}
		return nil
	})
	if err != nil {
		p.t.Fatalf("send datagrams: %v", err)
	}
}

// transfer sends octets over TCP through an SA and returns how many arrived within the time.
func (p *pmtuBench) transfer(sa tunnel.SA, octets int, within time.Duration) int {
	p.t.Helper()
	return p.segments(sa, octets, 0, within)
}

// segments is transfer with a maximum segment size of its own, 0: the kernel's.
func (p *pmtuBench) segments(sa tunnel.SA, octets, mss int, within time.Duration) int {
	p.t.Helper()
	deadline := time.Now().Add(within)
	var listener net.Listener
	err := p.to.Do(func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(sa.Dst, 5201).String())
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	defer listener.Close()
	got := make(chan int, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			got <- 0
			return
		}
		defer conn.Close()
		_ = conn.SetReadDeadline(deadline)
		n, _ := io.Copy(io.Discard, conn)
		got <- int(n)
	}()
	err = p.from.Do(func() error {
		dialer := net.Dialer{Deadline: deadline, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(sa.Src, 0))}
		dialer.Control = func(_, _ string, raw syscall.RawConn) error {
			if mss == 0 {
				return nil
			}
			var set error
			err := raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, mss) })
			return errors.Join(err, set)
		}
		conn, err := dialer.Dial("tcp", listener.Addr().String())
		if err != nil {
			return err
		}
		// What a black hole holds back must not go on behind the report's back: reset at the end.
		if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
			return err
		}
		_ = conn.SetWriteDeadline(deadline)
		_, err = conn.Write(make([]byte, octets))
		if err == nil {
			err = conn.(*net.TCPConn).CloseWrite()
		}
		n := <-got
		got <- n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = nil
		}
		return errors.Join(err, conn.Close())
	})
	if err != nil {
		p.t.Fatalf("transfer: %v", err)
	}
	return <-got
}

// events picks those of a kind.
func (o observation) events(kind string) (out []pmtuEvent) {
	if o.report.PMTU == nil {
		return nil
	}
	for _, e := range o.report.PMTU.Events {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

// through picks those of packets that were to take an SA, or that were ESP of it.
func through(events []pmtuEvent, sa tunnel.SA) (out []pmtuEvent) {
	for _, e := range events {
		if e.SPI == name(sa.SPI) || e.SA != nil && e.SA.SPI == name(sa.SPI) {
			out = append(out, e)
		}
	}
	return out
}

func packetsOf(events []pmtuEvent) (n int64) {
	for _, e := range events {
		n += e.Packets
	}
	return n
}
