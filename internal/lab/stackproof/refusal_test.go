// SPDX-License-Identifier: Apache-2.0

package stackproof

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/bpfobj"
)

// refusals reads the table of refused flows, a line a flow.
func (w *Watch) refusals() ([]string, error) {
	var key bpfobj.RefusalKey
	var perCPU []bpfobj.Refusal
	out := []string{}
	it := w.coll.Maps["refusals"].Iterate()
	for it.Next(&key, &perCPU) {
		var packets, largest uint64
		for _, r := range perCPU {
			packets += r.Packets
			largest = max(largest, r.Largest)
		}
		// Places are enum site_kind: 1 delivery to a socket, 2 forwarding. How much of a packet is
		// left on its way to a socket differs between kernels.
		if key.Place == 1 {
			largest = 0
		}
		out = append(out, fmt.Sprintf("%s place %d %s > %s proto %d ports %d %d spi %#x: %d of %d bytes at most",
			w.causes[key.Cause], key.Place, netip.AddrFrom16(key.Src).Unmap(), netip.AddrFrom16(key.Dst).Unmap(),
			key.Proto, key.Sport, key.Dport, key.Spi, packets, largest))
	}
	slices.Sort(out)
	return out, it.Err()
}

// A refused flow is taken down with what finds its policy again, over both families; packets of the
// same flow with other ephemeral ports are one row.
func TestRefusedFlows(t *testing.T) {
	if os.Geteuid() != 0 {
		need(t, errors.New("needs root"))
	}
	from, router := router(t)
	check(t, from.IP("addr add 2001:db8::1/64 dev v0 nodad", "route add 2001:db8:ffff::/48 via 2001:db8::2"))
	check(t, router.Sysctl("ipv6/conf/all/forwarding", "1"))
	check(t, router.IP("addr add 2001:db8::2/64 dev v1 nodad", "addr add fd00::1/64 dev v2 nodad",
		"neigh replace fd00::2 lladdr 02:00:00:00:00:01 nud permanent dev v2", "route add 2001:db8:ffff::/48 via fd00::2",
		"xfrm policy add src 0.0.0.0/0 dst 198.51.100.0/25 dir fwd action block",
		"xfrm policy add src 0.0.0.0/0 dst 198.51.100.128/25 dir out action block",
		"xfrm policy add src 0.0.0.0/0 dst 192.0.2.2/32 proto 17 dir in action block",
		"xfrm policy add src ::/0 dst 2001:db8:ffff::/64 dir fwd action block",
		"xfrm policy add src ::/0 dst 2001:db8:ffff:1::/64 dir out action block",
		"xfrm policy add src ::/0 dst 2001:db8::2/128 proto 17 dir in action block"))
	b := watch(t, router, Setup{NoAudit: true})
	for _, to := range []string{"198.51.100.1:9", "198.51.100.200:9000", "192.0.2.2:9", "[2001:db8:ffff::1]:9", "[2001:db8:ffff:1::1]:9000", "[2001:db8::2]:9"} {
		for range 2 { // two sockets, two ephemeral ports
			send(t, dial(t, from, to), 5)
		}
	}
	check(t, ping(from.Do, "198.51.100.1", 3))
	b.agree()
	got, err := b.watch.refusals()
	check(t, err)
	want := []string{
		"out_pol_block place 2 192.0.2.1 > 198.51.100.200 proto 17 ports 0 9000 spi 0x0: 10 of 38 bytes at most",
		"out_pol_block place 2 2001:db8::1 > 2001:db8:ffff:1::1 proto 17 ports 0 9000 spi 0x0: 10 of 58 bytes at most",
		"pol_block place 1 192.0.2.1 > 192.0.2.2 proto 17 ports 0 9 spi 0x0: 10 of 0 bytes at most",
		"pol_block place 1 2001:db8::1 > 2001:db8::2 proto 17 ports 0 9 spi 0x0: 10 of 0 bytes at most",
		"pol_block place 2 192.0.2.1 > 198.51.100.1 proto 1 ports 8 0 spi 0x0: 3 of 28 bytes at most",
		"pol_block place 2 192.0.2.1 > 198.51.100.1 proto 17 ports 0 9 spi 0x0: 10 of 38 bytes at most",
		"pol_block place 2 2001:db8::1 > 2001:db8:ffff::1 proto 17 ports 0 9 spi 0x0: 10 of 58 bytes at most",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("refused flows (-want +got):\n%s", diff)
	}
}

// ping sends echo requests without data.
func ping(inside Inside, to string, count int) error {
	return inside(func() error {
		conn, err := net.Dial("ip4:icmp", to)
		if err != nil {
			return err
		}
		defer conn.Close()
		for seq := range count {
			// RFC 792: type 8, code 0, checksum, identifier, number. The sum of 16-bit words is 0xffff.
			request := []byte{8, 0, 0, 0, 0x12, 0x34, 0, byte(seq)}
			sum := ^(uint16(0x0800) + 0x1234 + uint16(seq))
			request[2], request[3] = byte(sum>>8), byte(sum)
			if _, err := conn.Write(request); err != nil {
				return err
			}
		}
		return nil
	})
}
