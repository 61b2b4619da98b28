// SPDX-License-Identifier: Apache-2.0

package stackproof

import (
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"xfrmscope/internal/lab/tunnel"
)

// Drops on all CPUs at once, senders refused meanwhile, and the shadows synchronised without rest:
// still every unit of every counter must be accounted for once, and every packet by a packet.
func TestUnderLoad(t *testing.T) {
	if os.Geteuid() != 0 {
		need(t, errors.New("needs root"))
	}
	from, router := router(t)
	check(t, router.IP(
		"xfrm policy add src 0.0.0.0/0 dst 198.51.100.0/24 dir fwd action block",
		"xfrm policy add src 0.0.0.0/0 dst 192.0.2.2/32 proto 17 dport 9 dir in action block",
		"xfrm policy add src 0.0.0.0/0 dst 203.0.113.0/24 proto 17 dport 8 dir out action block",
		"xfrm policy add src 0.0.0.0/0 dst 192.0.2.2/32 proto 17 dport 10 dir in tmpl proto esp mode transport"))
	const packets, refusals = 4000, 500
	b := watch(t, router, Setup{NoAudit: true})
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for _, to := range []string{"198.51.100.1:9", "192.0.2.2:9", "192.0.2.2:10", "203.0.113.1:8"} {
		conn := dial(t, from, to)
		wg.Go(func() { flood(t, conn, packets) })
	}
	wg.Go(func() { beRefused(t, router, refusals) })
	var syncing sync.WaitGroup
	syncing.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
				if err := b.watch.Sync(); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	wg.Wait()
	close(stop)
	syncing.Wait()
	got, err := b.watch.Read()
	check(t, err)
	moved, attributed := b.moved(), got.ByCounter()
	t.Logf("kernel %v, SAs %+v, residue %v, lost %v", moved, got.SAs, got.Residue, got.Lost)
	for counter, n := range moved {
		if attributed[counter] != n {
			t.Errorf("%s: the kernel counted %d, attributed are %d", counter, n, attributed[counter])
		}
	}
	causes := map[string]uint64{}
	for _, sa := range got.SAs {
		for cause, n := range sa.Causes {
			causes[cause] += n
		}
	}
	if causes["pol_block"] != 2*packets || causes["tmpl_mismatch"] != packets {
		t.Errorf("dropped by packet: %v, want %d by block and %d by template", causes, 2*packets, packets)
	}
	// A refused sender has no packet, so its units are residue, and the forwarded ones are not.
	if causes["out_pol_block"] != packets || got.Residue["XfrmOutPolBlock"] != refusals {
		t.Errorf("out_pol_block %d, residue %d; want %d and %d", causes["out_pol_block"], got.Residue["XfrmOutPolBlock"], packets, refusals)
	}
	for what := range got.Lost {
		if what != "ring_full" && what != "suppressed" {
			t.Errorf("lost: %v", got.Lost)
		}
	}
}

func flood(t *testing.T, conn *net.UDPConn, count int) {
	for range count {
		if _, err := conn.Write([]byte("a datagram")); err != nil {
			t.Error(err)
			return
		}
	}
}

func beRefused(t *testing.T, ns *tunnel.Namespace, count int) {
	err := ns.Do(func() error {
		for range count {
			conn, err := net.Dial("udp", "203.0.113.1:8")
			if err == nil {
				return errors.Join(errors.New("the policy let the socket connect"), conn.Close())
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
