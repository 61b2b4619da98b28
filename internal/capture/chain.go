// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"net/netip"
	"time"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/ledger"
)

// chain is one datagram in all forms that were captured of it.
type chain struct {
	id        uint64
	outer     *packet   // on the wire; of what is sent and cut into segments, the first
	outers    int       // how many outer packets a super-packet became
	inner     *packet   // decrypted, or about to be encrypted
	drop      *packet   // where it ended
	last      time.Time // of its newest packet
	seq       uint64
	sequenced bool
}

// chainKey is what outer and inner packets have in common. The upper half of an ESN is not on the wire.
type chainKey struct {
	spi ledger.SPI
	dst netip.Addr
	dir ledger.Direction
	seq uint32
}

// chains joins packets. A number may come more than once: each copy on the wire begins a chain of its own,
// and what follows inside is that of the first copy that has none yet, as the kernel takes them in order.
type chains struct {
	byKey    map[chainKey][]*chain
	byCookie map[uint64]*chain // packets before encryption, whose number is not known yet
	next     uint64
}

func newChains() *chains {
	return &chains{byKey: map[chainKey][]*chain{}, byCookie: map[uint64]*chain{}}
}

func keyOf(p *packet) chainKey {
	return chainKey{p.key.SPI, p.key.Dst, p.key.Direction, uint32(p.head.Seq)}
}

func (c *chains) begin(p *packet) *chain {
	c.next++
	return &chain{id: c.next, last: p.at}
}

func (c *chains) file(k chainKey, ch *chain) {
	ch.seq, ch.sequenced = uint64(k.seq), true
	c.byKey[k] = append(c.byKey[k], ch)
}

// join finds the packet's chain, or begins one.
func (c *chains) join(p *packet) {
	switch p.head.Point {
	case bpfobj.PacketPlain:
		ch := c.begin(p)
		ch.inner = p
		p.chain = ch
		c.byCookie[p.head.Cookie] = ch
		return
	case bpfobj.PacketWireIn, bpfobj.PacketWireOut:
		p.chain = c.joinWire(p)
	case bpfobj.PacketDecrypted:
		p.chain = c.pick(p, func(ch *chain) bool { return ch.inner == nil && ch.drop == nil })
		p.chain.inner = p
	case bpfobj.PacketDrop:
		// Before it has a number, a packet to be sent is known by its cookie.
		if ch := c.byCookie[p.head.Cookie]; ch != nil && ch.drop == nil && p.head.Cookie != 0 {
			p.chain, ch.drop = ch, p
			break
		}
		decrypted := p.head.Flags&bpfobj.PacketFlagDecrypted != 0
		p.chain = c.pick(p, func(ch *chain) bool {
			return ch.drop == nil && (p.key.Direction == ledger.Out || decrypted == (ch.inner != nil))
		})
		p.chain.drop = p
	}
	if p.at.After(p.chain.last) {
		p.chain.last = p.at
	}
}

func (c *chains) joinWire(p *packet) *chain {
	if !p.numbered() {
		ch := c.begin(p)
		ch.outer = p
		return ch
	}
	k := keyOf(p)
	// What is sent has its inner packet before it; a copy that comes in is always a datagram of its own,
	// but that its fate may have been read from another CPU's part of the ring first.
	for _, ch := range c.byKey[k] {
		if ch.outer == nil {
			ch.outer, ch.outers = p, ch.outers+1
			return ch
		}
	}
	ch := c.begin(p)
	ch.outer, ch.outers = p, 1
	c.file(k, ch)
	return ch
}

// pick is the first chain of the packet's number that fits, or a new one.
func (c *chains) pick(p *packet, fits func(*chain) bool) *chain {
	if !p.numbered() {
		return c.begin(p)
	}
	k := keyOf(p)
	for _, ch := range c.byKey[k] {
		if fits(ch) {
			return ch
		}
	}
	ch := c.begin(p)
	c.file(k, ch)
	return ch
}

// link tells which number a packet was sent with. A super-packet has a number for each segment: the
// first is that of the chain, and the others' outer packets join it.
func (c *chains) link(p *packet) {
	ch := c.byCookie[p.head.Cookie]
	if ch == nil {
		return
	}
	p.key.Dst = ch.inner.key.Dst
	k := keyOf(p)
	for i, other := range c.byKey[k] {
		// The outer packet may have been read first.
		if other.inner == nil && other.outer != nil && other != ch {
			other.outer.chain = ch
			if ch.outer == nil {
				ch.outer = other.outer
			}
			ch.outers++
			c.byKey[k][i] = ch
			if !ch.sequenced {
				ch.seq, ch.sequenced = uint64(k.seq), true
			}
			return
		}
	}
	if !ch.sequenced {
		ch.seq, ch.sequenced = uint64(k.seq), true
	}
	if ch.outer != nil {
		// A further segment: a stand-in that the outer packet finds, and that leads to the same datagram.
		c.byKey[k] = append(c.byKey[k], &chain{id: ch.id, inner: ch.inner, last: ch.last, seq: uint64(k.seq), sequenced: true})
		return
	}
	c.byKey[k] = append(c.byKey[k], ch)
}

// forget lets go of chains whose newest packet is from before a moment: nothing is expected to join them any more. As
// long as they are kept, so are their packets, those that have left the memory included.
func (c *chains) forget(before time.Time) {
	for k, list := range c.byKey {
		kept := list[:0]
		for _, ch := range list {
			if !ch.last.Before(before) {
				kept = append(kept, ch)
			}
		}
		if len(kept) == 0 {
			delete(c.byKey, k)
		} else {
			c.byKey[k] = kept
		}
	}
	for cookie, ch := range c.byCookie {
		if ch.last.Before(before) {
			delete(c.byCookie, cookie)
		}
	}
}
