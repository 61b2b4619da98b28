// SPDX-License-Identifier: Apache-2.0

package stackproof

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/lab/tunnel"
)

// attempt sends datagrams of which the kernel refuses some; it says how many it took.
func attempt(conn *net.UDPConn, count int) (taken int) {
	for range count {
		if _, err := conn.Write(make([]byte, 64)); err == nil {
			taken++
		}
		time.Sleep(200 * time.Microsecond)
	}
	return taken
}

// An SA without ESN may not wrap: RFC 4303 section 3.3.3.
func TestSequenceNumbersExhausted(t *testing.T) {
	tunnel.Need(t)
	for _, family := range []int{4, 6} {
		t.Run(fmt.Sprintf("IPv%d", family), func(t *testing.T) {
			tun, err := tunnel.Build(tunnel.Options{Family: family, LastSeq: 0xffffffff - 12})
			check(t, err)
			t.Cleanup(func() { closing(t, tun.Close) })
			sa := tun.AtoB[0]
			conn := dial(t, tun.A.Namespace, net.JoinHostPort(sa.Dst.String(), "9000"))
			b := watch(t, tun.A.Namespace, Setup{})
			attempt(conn, 30)
			got := b.agree()
			if len(got.SAs) != 1 || got.SAs[0].SPI != sa.SPI || got.SAs[0].Dir != 1 || len(got.Residue) > 0 {
				t.Fatalf("SAs %+v, residue %v", got.SAs, got.Residue)
			}
			if diff := cmp.Diff(map[string]uint64{"out_seq_error": 18}, got.SAs[0].Causes); diff != "" {
				t.Errorf("causes (-want +got):\n%s", diff)
			}
			events, err := b.watch.Events()
			check(t, err)
			if len(events) != 18 || events[0].Top != 0xffffffff {
				t.Errorf("events: %+v", events)
			}
		})
	}
}

// The sender's own limit: the SA expires while local senders use it.
func TestOutboundHardLimit(t *testing.T) {
	tunnel.Need(t)
	from, _ := router(t)
	key := make([]byte, 20)
	_, err := rand.Read(key)
	check(t, err)
	check(t, from.IP(
		"xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x9001 mode transport aead rfc4106(gcm(aes)) 0x"+hex.EncodeToString(key)+" 128 limit packet-hard 5",
		"xfrm policy add src 192.0.2.1/32 dst 192.0.2.2/32 proto 17 dir out tmpl proto esp mode transport"))
	conn := dial(t, from, "192.0.2.2:9")
	b := watch(t, from, Setup{})
	attempt(conn, 10)
	got := b.agree()
	if len(got.SAs) != 1 || got.SAs[0].SPI != 0x9001 || got.SAs[0].Dir != 1 || got.SAs[0].Causes["out_expired"] == 0 {
		t.Errorf("SAs: %+v", got.SAs)
	}
	// Once the SA is gone the look-up fails, before there is a packet.
	for counter := range got.Residue {
		if counter != "XfrmOutNoStates" {
			t.Errorf("residue: %v", got.Residue)
		}
	}
}

// What is forwarded into a policy without an SA is dropped with the packet at hand.
func TestForwardedWithoutState(t *testing.T) {
	tunnel.Need(t)
	from, router := router(t)
	check(t, router.IP("xfrm policy add src 0.0.0.0/0 dst 198.51.100.0/24 dir out tmpl src 203.0.113.2 dst 203.0.113.1 proto esp mode tunnel"))
	conn := dial(t, from, "198.51.100.1:9")
	b := watch(t, router, Setup{})
	send(t, conn, 12)
	got := b.agree()
	var dropped uint64
	for _, sa := range got.SAs {
		for _, n := range sa.Causes {
			dropped += n
		}
	}
	if dropped != 12 || len(got.Residue) > 0 {
		t.Errorf("SAs %+v, residue %v", got.SAs, got.Residue)
	}
}
