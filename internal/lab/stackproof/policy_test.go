// SPDX-License-Identifier: Apache-2.0

package stackproof

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/lab/tunnel"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// need ends a test that this machine does not allow: skipped for a developer, failed in CI.
func need(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("CI must be able to run this: %v", err)
	}
	t.Skip(err)
}

// dial opens a UDP socket inside a namespace.
func dial(t *testing.T, ns *tunnel.Namespace, to string) *net.UDPConn {
	t.Helper()
	var conn net.Conn
	check(t, ns.Do(func() (err error) {
		conn, err = net.Dial("udp", to)
		return err
	}))
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.UDPConn)
}

func send(t *testing.T, conn *net.UDPConn, count int) {
	t.Helper()
	for range count {
		if _, err := conn.Write([]byte("a datagram")); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
	}
}

// Policies need no ESP, so this much of the proof runs on any kernel.
func TestPolicyDrops(t *testing.T) {
	if os.Geteuid() != 0 {
		need(t, errors.New("needs root"))
	}
	for _, tc := range []struct {
		name   string
		policy []string
		to     string
		want   map[string]uint64
	}{
		{"forward block", []string{"xfrm policy add src 0.0.0.0/0 dst 198.51.100.0/24 dir fwd action block"}, "198.51.100.1:9", map[string]uint64{"pol_block": 20}},
		{"out block of a forwarded packet", []string{"xfrm policy add src 0.0.0.0/0 dst 198.51.100.0/24 dir out action block"}, "198.51.100.1:9", map[string]uint64{"out_pol_block": 20}},
		{"in block", []string{"xfrm policy add src 0.0.0.0/0 dst 192.0.2.2/32 proto 17 dir in action block"}, "192.0.2.2:9", map[string]uint64{"pol_block": 20}},
		{"plaintext where ESP is demanded", []string{"xfrm policy add src 0.0.0.0/0 dst 192.0.2.2/32 proto 17 dir in tmpl proto esp mode transport"}, "192.0.2.2:9", map[string]uint64{"tmpl_mismatch": 20}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			from, router := router(t)
			check(t, router.IP(tc.policy...))
			conn := dial(t, from, tc.to)
			b := watch(t, router, Setup{NoAudit: true})
			send(t, conn, 20)
			r := b.agree()
			if len(r.SAs) != 1 || r.SAs[0].SPI != 0 {
				t.Fatalf("SAs: %+v", r.SAs)
			}
			if diff := cmp.Diff(tc.want, r.SAs[0].Causes); diff != "" {
				t.Errorf("causes (-want +got):\n%s", diff)
			}
			if len(r.Residue) > 0 {
				t.Errorf("residue: %v", r.Residue)
			}
			events, err := b.watch.Events()
			check(t, err)
			if len(events) != 20 {
				t.Fatalf("%d events", len(events))
			}
			t.Logf("freed at %s, reason %s, %s", b.watch.Symbols.Name(events[0].Location), b.watch.Tables.ReasonName(events[0].Reason), b.watch.Tables.CounterName(events[0].Counter))
		})
	}
}

// A local sender that a policy refuses has no packet yet: the counter moves all the same, and must
// neither be laid at the door of another packet nor be forgotten.
func TestRefusedSendersBecomeResidue(t *testing.T) {
	if os.Geteuid() != 0 {
		need(t, errors.New("needs root"))
	}
	from, router := router(t)
	check(t, router.IP(
		"xfrm policy add src 0.0.0.0/0 dst 192.0.2.1/32 proto 17 dport 7 dir out action block",
		"xfrm policy add src 0.0.0.0/0 dst 198.51.100.0/24 dir fwd action block"))
	conn := dial(t, from, "198.51.100.1:9")
	short := dial(t, from, "203.0.113.1:9")
	raw, err := short.SyscallConn()
	check(t, err)
	check(t, raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, 1) }))
	check(t, err)
	b := watch(t, router, Setup{NoAudit: true})
	for range 10 {
		check(t, router.Do(func() error {
			refused, err := net.Dial("udp", "192.0.2.1:7")
			if err == nil {
				refused.Close()
				return errors.New("the policy let the socket connect")
			}
			return nil
		}))
		send(t, conn, 1)
		send(t, short, 1) // dies in ip_forward() of its TTL, where failed look-ups die too
	}
	r := b.agree()
	if diff := cmp.Diff(map[string]uint64{"XfrmOutPolBlock": 10}, r.Residue); diff != "" {
		t.Errorf("residue (-want +got):\n%s", diff)
	}
	for _, sa := range r.SAs {
		if sa.Causes["out_pol_block"] > 0 {
			t.Errorf("packets blamed for what a refused sender counted: %+v", sa)
		}
	}
}
