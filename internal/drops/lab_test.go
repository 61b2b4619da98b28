// SPDX-License-Identifier: Apache-2.0

package drops

import (
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xfrmscope/internal/probe"
)

// enter moves the test's thread into a new network namespace, which ends with the thread: a router between
// 10.1.0.0/24 at `in`, whose other end is `far`, and nothing, with a loopback.
func enter(t testing.TB) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread is given up with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("make a network namespace: %v", err)
		}
		t.Skipf("make a network namespace (needs root): %v", err)
	}
	sysctl(t, "ipv6/conf/all/disable_ipv6", "1")
	sysctl(t, "ipv6/conf/default/disable_ipv6", "1")
	sysctl(t, "ipv4/ip_forward", "1")
	run(t, "ip", "link", "add", "in", "type", "veth", "peer", "name", "far")
	for _, link := range []string{"lo", "far", "in"} {
		run(t, "ip", "link", "set", link, "up")
	}
	run(t, "ip", "addr", "add", "10.1.0.1/24", "dev", "in")
	run(t, "ip", "neigh", "add", "10.1.0.2", "lladdr", "02:00:00:00:00:02", "dev", "in")
	run(t, "ip", "route", "add", "unreachable", "10.2.0.0/24")
	sysctl(t, "ipv6/conf/lo/disable_ipv6", "0")
}

// sysctl sets one of the calling thread's network namespace.
func sysctl(t testing.TB, name, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

// asked is what the kernel said of itself, once for all tests.
var asked *probe.Kernel

func open(t testing.TB, o Options) *Session {
	t.Helper()
	if asked == nil {
		k, err := probe.AskKernel()
		if err != nil {
			t.Fatal(err)
		}
		asked = k
	}
	s, err := Open(asked, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// await detaches once that many packets were counted, or none came for a while, and reports.
func await(t *testing.T, s *Session, packets uint64) ([]Row, Total) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, total, err := s.Report(); err != nil {
			t.Fatal(err)
		} else if total.Packets >= packets {
			break
		}
	}
	if err := s.Detach(); err != nil {
		t.Fatal(err)
	}
	rows, total, err := s.Report()
	if err != nil {
		t.Fatal(err)
	}
	return rows, total
}

// udp sends datagrams to a port, from a socket that does not hear what becomes of them.
func udp(t testing.TB, to string, count int) {
	t.Helper()
	addr, err := net.ResolveUDPAddr("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: addr.IP})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range count {
		if _, err := conn.WriteToUDP(make([]byte, 32), addr); err != nil {
			t.Fatal(err)
		}
	}
}

// raw sends an IPv4 packet of its own making through the routes.
func raw(t testing.TB, p []byte, count int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var to unix.SockaddrInet4
	copy(to.Addr[:], p[16:20])
	for range count {
		if err := unix.Sendto(fd, p, 0, &to); err != nil {
			t.Fatal(err)
		}
	}
}

// arrive puts an IPv4 packet on the wire in front of the device `in`.
func arrive(t testing.TB, p []byte, count int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	far, err := net.InterfaceByName("far")
	if err != nil {
		t.Fatal(err)
	}
	in, err := net.InterfaceByName("in")
	if err != nil {
		t.Fatal(err)
	}
	frame := append(append(append([]byte{}, in.HardwareAddr...), far.HardwareAddr...), 0x08, 0x00)
	frame = append(frame, p...)
	for range count {
		if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: far.Index}); err != nil {
			t.Fatal(err)
		}
	}
}

// ipv4 makes a packet with eight bytes of transport header and a payload.
func ipv4(src, dst string, ttl, proto byte, transport []byte) []byte {
	p := make([]byte, 20, 60)
	p[0], p[8], p[9] = 0x45, ttl, proto
	copy(p[12:], net.ParseIP(src).To4())
	copy(p[16:], net.ParseIP(dst).To4())
	p = append(p, transport...)
	p = append(p, make([]byte, 32)...)
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum))
	return p
}

// icmpError is a message that no ICMP error may answer (RFC 1122 section 3.2.2).
var icmpError = []byte{3, 1, 0, 0, 0, 0, 0, 0}

// esp is an ESP header.
func esp(spi, seq uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, spi), seq)
}

// udpHeader is one for 32 bytes of payload, with a checksum.
func udpHeader(sport, dport, checksum uint16) []byte {
	var b []byte
	for _, v := range []uint16{sport, dport, 40, checksum} {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return b
}
