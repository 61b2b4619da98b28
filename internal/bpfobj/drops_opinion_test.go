// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// anyDropOpinion is what any_drop makes of a packet that was received: a row, with this packet as its example.
func (p skb) anyDropOpinion() (key DropsKey, c DropsCount) {
	key = DropsKey{Location: 1, Reason: 2, Ifindex: forgedIndex, Stack: -1, Ether: p.protocol, Dir: 2} // DIR_UNKNOWN
	length := len(p.packet) + p.paged
	o, ok := p.ip(4, 0, 43, 44, 60)
	ether := map[uint8]uint16{4: 0x0800, 6: 0x86dd}[o.family]
	if ok && (p.protocol == 0 || p.protocol == ether) {
		key.Ether, key.Proto = ether, o.proto
		c.Example.Family, c.Example.Src, c.Example.Dst = o.family, o.src.As16(), o.dst.As16()
		if o.length != 0 {
			length = o.length
		}
		if !o.later && len(o.rest) >= 8 {
			p.anyTransport(o, &key, &c)
		}
	}
	if key.Spi != 0 {
		key.SaFrom, key.Dir, key.SaDst = DropsSAHeader, 0, c.Example.Dst
	}
	c.Packets, c.Bytes, c.Example.Length = 1, uint64(length), uint32(length)
	return key, c
}

func (p skb) anyTransport(o outer, key *DropsKey, c *DropsCount) {
	first, second := binary.BigEndian.Uint16(o.rest), binary.BigEndian.Uint16(o.rest[2:])
	switch o.proto {
	case 17:
		if what, spi := encapsulated(o.rest); what == "esp" && spi != 0 {
			key.Spi, key.SaProto = spi, 50
		}
		fallthrough
	case 6, 33, 132, 136:
		c.Example.Sport, c.Example.Dport = first, second
	case 1, 58:
		c.Example.Sport, c.Example.Dport = first>>8, first&0xff
	case 50:
		key.Spi, key.SaProto = binary.BigEndian.Uint32(o.rest), 50
	case 51:
		key.Spi, key.SaProto = binary.BigEndian.Uint32(o.rest[4:]), 51
	}
}

// TestAnyDropSecondDecoder has any_drop and the second decoder judge the same broken packets.
func TestAnyDropSecondDecoder(t *testing.T) {
	f := newForge(t)
	spec, err := LoadDrops()
	if err != nil {
		t.Fatal(err)
	}
	if err := ConfigureDrops(spec, DropsConfig{HasReason: true, NATTPorts: nattPorts}); err != nil {
		t.Fatal(err)
	}
	coll := f.load(spec)
	c := chance{rand.New(rand.NewPCG(20261128, 2))}
	met := counts{}
	for range 8000 {
		p := c.skb()
		f.run(coll.Programs["any_drop"], f.set(c, p), 1, 2)
		wantKey, want := p.anyDropOpinion()
		met[kindOfRow(wantKey, want)]++
		got := map[DropsKey]DropsCount{}
		for k, perCPU := range emptied[DropsKey, []DropsCount](t, coll.Maps["drops"]) {
			if k.Netns == 0 {
				t.Fatalf("no namespace: %+v", k)
			}
			k.Netns = 0
			for _, v := range perCPU {
				if v.Packets > 0 {
					v.Example.TimeNs = 0
					got[k] = v
				}
			}
		}
		if diff := cmp.Diff(map[DropsKey]DropsCount{wantKey: want}, got, cmp.AllowUnexported(DropsKey{}, DropsCount{})); diff != "" {
			t.Fatalf("counted (-second decoder +kernel):\n%s\nnetwork header at %d, protocol %#x, % x, %d bytes in pages",
				diff, p.network, p.protocol, p.packet, p.paged)
		}
	}
	enough(t, met, "no IP", "esp", "esp in udp", "ah", "ports", "type and code", "addresses")
}

func kindOfRow(k DropsKey, c DropsCount) string {
	switch {
	case c.Example.Family == 0:
		return "no IP"
	case k.SaProto == 51:
		return "ah"
	case k.SaProto == 50 && k.Proto == 17:
		return "esp in udp"
	case k.SaProto == 50:
		return "esp"
	case c.Example.Sport == 0 && c.Example.Dport == 0:
		return "addresses"
	case k.Proto == 1 || k.Proto == 58:
		return "type and code"
	}
	return "ports"
}
