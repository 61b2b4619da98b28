// SPDX-License-Identifier: Apache-2.0

package mtu

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"xfrmscope/internal/ledger"
)

// world is a gateway at hostA with a network behind it.
func world(policies ...ledger.Policy) World {
	sa := gcm()
	return World{
		SAs: []ledger.SADEntry{sa}, Policies: policies, Local: []netip.Addr{hostA, innerA},
		Route: func(dst, src netip.Addr) (Route, error) {
			if dst == netip.MustParseAddr("203.0.113.9") {
				return Route{}, errors.New("no route")
			}
			if !src.IsValid() {
				src = hostA
			}
			return Route{Src: src, Device: "wan", Index: 2, DeviceMTU: 1500, MTU: 1500}, nil
		},
	}
}

func TestPlan(t *testing.T) {
	network := policy("10.1.0.0/16", "10.2.0.0/16")
	single := policy("10.1.0.1/32", "10.2.0.1/32")
	bypass := ledger.Policy{Dir: "out", Action: "allow", Priority: 1, Selector: ledger.Selector{Dst: netip.PrefixFrom(innerB, 32)}}
	network.Priority, single.Priority = 10, 10
	everything := policy("0.0.0.0/0", "0.0.0.0/0")
	block := ledger.Policy{Dir: "out", Action: "block", Selector: ledger.Selector{Dst: netip.PrefixFrom(far, 32)}}
	transport := policy("192.0.2.1/32", "198.51.100.2/32")
	transport.Templates[0].Mode = "transport"
	onlyTCP := single
	onlyTCP.Selector.Proto = 6
	toPort := single
	toPort.Selector.Proto, toPort.Selector.DstPort, toPort.Selector.DstMask = protoUDP, 9000, 0xffff
	marked, ofInterface := single, single
	marked.MarkValue, marked.MarkMask = 1, 1
	ofInterface.IfID = 7
	incoming := single
	incoming.Dir = "in"
	stranger := netip.MustParseAddr("203.0.113.1")

	for _, row := range []struct {
		name       string
		request    Request
		world      World
		out, in    string // "src>dst", or words of why not
		gateway    string
		wantsError string
	}{
		{name: "gateway, networks behind", request: Request{Peer: far}, world: world(network), out: "192.0.2.1>198.51.100.2", in: "its policies are for 10.2.0.0/16 from 10.1.0.0/16", gateway: "198.51.100.2"},
		{name: "gateway, one host behind", request: Request{Peer: far}, world: world(single), out: "192.0.2.1>198.51.100.2", in: "10.1.0.1>10.2.0.1", gateway: "198.51.100.2"},
		{name: "gateway, inside told", request: Request{Peer: far, Inside: innerB}, world: world(network), out: "192.0.2.1>198.51.100.2", in: "10.1.0.1>10.2.0.1", gateway: "198.51.100.2"},
		{name: "address behind", request: Request{Peer: innerB}, world: world(network), out: "192.0.2.1>198.51.100.2", in: "10.1.0.1>10.2.0.1", gateway: "198.51.100.2"},
		{name: "address behind, bypassed", request: Request{Peer: innerB}, world: world(network, bypass), out: "192.0.2.1>10.2.0.1", in: "no SA and no policy"},
		{name: "other protocol", request: Request{Peer: innerB}, world: world(onlyTCP), out: "192.0.2.1>10.2.0.1", in: "no SA and no policy"},
		{name: "one port, echo", request: Request{Peer: innerB}, world: world(toPort), out: "192.0.2.1>10.2.0.1", in: "no SA and no policy"},
		{name: "one port, UDP", request: Request{Peer: innerB, UDP: 9000}, world: world(toPort), out: "192.0.2.1>198.51.100.2", in: "10.1.0.1>10.2.0.1", gateway: "198.51.100.2"},
		{name: "mark", request: Request{Peer: innerB}, world: world(marked), out: "192.0.2.1>10.2.0.1", in: "no SA and no policy"},
		{name: "another interface", request: Request{Peer: innerB}, world: world(ofInterface), out: "192.0.2.1>10.2.0.1", in: "no SA and no policy"},
		{name: "policy in", request: Request{Peer: innerB}, world: world(incoming), out: "192.0.2.1>10.2.0.1", in: "no SA and no policy"},
		{name: "everything", request: Request{Peer: far, Inside: innerB}, world: world(everything), out: "takes packets to 198.51.100.2 through the SA", in: "192.0.2.1>10.2.0.1", gateway: "198.51.100.2"},
		{name: "transport", request: Request{Peer: far}, world: func() World {
			w := world(transport)
			w.SAs[0].Mode = "transport"
			return w
		}(), out: "takes packets to 198.51.100.2 through the SA", in: "192.0.2.1>198.51.100.2", gateway: "198.51.100.2"},
		{name: "blocked", request: Request{Peer: far}, world: world(block), out: "blocks it", in: "give --inside", gateway: "198.51.100.2"},
		{name: "no SA yet", request: Request{Peer: innerB}, world: func() World {
			w := world(network)
			w.SAs = nil
			return w
		}(), out: "192.0.2.1>198.51.100.2", in: "bring the tunnel up first", gateway: "198.51.100.2"},
		{name: "unread", request: Request{Peer: far}, world: func() World {
			w := world()
			w.SAs, w.Unread = nil, errors.New("no netlink")
			return w
		}(), out: "192.0.2.1>198.51.100.2", in: "cannot be read: no netlink"},
		{name: "stranger", request: Request{Peer: stranger}, world: world(network), out: "192.0.2.1>203.0.113.1", in: "no SA and no policy"},
		{name: "source", request: Request{Peer: stranger, Source: innerA}, world: world(network), out: "10.1.0.1>203.0.113.1", in: "no SA and no policy"},
		{name: "inside elsewhere", request: Request{Peer: far, Inside: stranger}, world: world(network), wantsError: "no policy takes packets"},
		{name: "source of no policy", request: Request{Peer: far, Inside: innerB, Source: hostA}, world: world(network), wantsError: "no policy takes packets from 192.0.2.1 to 10.2.0.1"},
		{name: "no route", request: Request{Peer: netip.MustParseAddr("203.0.113.9")}, world: world(network), wantsError: "no route"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p, err := Make(row.request, row.world)
			if row.wantsError != "" {
				if err == nil || !strings.Contains(err.Error(), row.wantsError) {
					t.Fatalf("error %v, want %q", err, row.wantsError)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, side := range []struct {
				what   string
				target *Target
				not    string
				want   string
			}{{"outside", p.Outside, p.NotOutside, row.out}, {"inside", p.Inside, p.NotInside, row.in}} {
				got := side.not
				if side.target != nil {
					got = fmt.Sprintf("%s>%s", side.target.Src, side.target.Dst)
				}
				if !strings.Contains(got, side.want) {
					t.Errorf("%s: %q, want %q", side.what, got, side.want)
				}
			}
			gateway := ""
			if p.Tunnel != nil {
				gateway = p.Tunnel.Gateway.String()
			}
			if gateway != row.gateway {
				t.Errorf("gateway %q, want %q", gateway, row.gateway)
			}
		})
	}
}

// TestPlanTakesTheNewestSA: after a rekey the old SA is still there for a while.
func TestPlanTakesTheNewestSA(t *testing.T) {
	w := world(policy("10.1.0.0/16", "10.2.0.0/16"))
	older, other, in := gcm(), gcm(), gcm()
	older.Key.SPI, older.Added = 1, time.Unix(10, 0)
	other.Key.SPI, other.ReqID, other.Added = 2, 9, time.Unix(30, 0)
	in.Key.SPI, in.Key.Direction, in.Added = 3, ledger.In, time.Unix(40, 0)
	w.SAs[0].Added = time.Unix(20, 0)
	w.SAs = append(w.SAs, older, other, in)
	p, err := Make(Request{Peer: innerB}, w)
	if err != nil {
		t.Fatal(err)
	}
	if p.Tunnel.SA.Key.SPI != 0xb2a00001 || p.Tunnel.Overhead == nil || p.Tunnel.Overhead.Inner(1400) != 1346 {
		t.Errorf("SA %+v, overhead %+v", p.Tunnel.SA, p.Tunnel.Overhead)
	}
}
