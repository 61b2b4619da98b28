// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/ledger"
)

// stream makes packets of one SA in each direction, a millisecond apart.
type stream struct {
	at     time.Time
	chains *chains
	seen   []*packet
}

func newStream() *stream {
	return &stream{at: time.Unix(1, 0), chains: newChains()}
}

func (s *stream) packet(point bpfobj.PacketPoint, dir ledger.Direction, seq uint64, flags uint8, cookie uint64) *packet {
	s.at = s.at.Add(time.Millisecond)
	p := &packet{at: s.at, key: ledger.SAKey{Dst: netip.MustParseAddr("192.0.2.2"), SPI: 0x1001, Proto: ledger.ESP, Direction: dir}}
	p.head.Point, p.head.Seq, p.head.Flags, p.head.Cookie = point, seq, flags, cookie
	if point == bpfobj.PacketLink {
		s.chains.link(p)
		return p
	}
	s.chains.join(p)
	s.seen = append(s.seen, p)
	return p
}

func (s *stream) wireIn(seq uint64) *packet {
	return s.packet(bpfobj.PacketWireIn, ledger.In, seq, bpfobj.PacketFlagSeq, 0)
}
func (s *stream) decrypted(seq uint64) *packet {
	return s.packet(bpfobj.PacketDecrypted, ledger.In, seq, bpfobj.PacketFlagSeq, 0)
}
func (s *stream) drop(seq uint64, flags uint8) *packet {
	return s.packet(bpfobj.PacketDrop, ledger.In, seq, bpfobj.PacketFlagSeq|flags, 0)
}
func (s *stream) plain(cookie uint64) *packet {
	return s.packet(bpfobj.PacketPlain, ledger.Out, 0, 0, cookie)
}
func (s *stream) link(cookie, seq uint64) {
	s.packet(bpfobj.PacketLink, ledger.Out, seq, bpfobj.PacketFlagSeq, cookie)
}
func (s *stream) wireOut(seq uint64) *packet {
	return s.packet(bpfobj.PacketWireOut, ledger.Out, seq, bpfobj.PacketFlagSeq, 0)
}

// ids are the datagrams' numbers in the order of the packets.
func (s *stream) ids() (out []uint64) {
	for _, p := range s.seen {
		out = append(out, p.chain.id)
	}
	return out
}

func TestChains(t *testing.T) {
	for _, c := range []struct {
		name string
		feed func(*stream)
		want []uint64 // ids
	}{
		{"each with what was inside", func(s *stream) { s.wireIn(1); s.decrypted(1); s.wireIn(2); s.decrypted(2) }, []uint64{1, 1, 2, 2}},
		{"decrypted later", func(s *stream) { s.wireIn(1); s.wireIn(2); s.decrypted(2); s.decrypted(1) }, []uint64{1, 2, 2, 1}},
		{"the second copy is the one dropped", func(s *stream) { s.wireIn(1); s.decrypted(1); s.wireIn(1); s.drop(1, 0) }, []uint64{1, 1, 2, 2}},
		{"both copies came before the first was decrypted", func(s *stream) { s.wireIn(1); s.wireIn(1); s.decrypted(1); s.drop(1, 0) }, []uint64{1, 2, 1, 2}},
		{"dropped after decryption", func(s *stream) { s.wireIn(1); s.decrypted(1); s.wireIn(1); s.drop(1, bpfobj.PacketFlagDecrypted) }, []uint64{1, 1, 2, 1}},
		{"dropped twice over", func(s *stream) { s.wireIn(1); s.drop(1, 0); s.wireIn(1); s.drop(1, 0) }, []uint64{1, 1, 2, 2}},
		{"the wire was not captured", func(s *stream) { s.decrypted(1); s.drop(1, bpfobj.PacketFlagDecrypted) }, []uint64{1, 1}},
		{"the number is not known", func(s *stream) {
			s.wireIn(1)
			s.packet(bpfobj.PacketDrop, ledger.In, 0, 0, 0)
		}, []uint64{1, 2}},
		{"sent", func(s *stream) {
			s.plain(7)
			s.link(7, 1)
			s.wireOut(1)
			s.plain(8)
			s.link(8, 2)
			s.wireOut(2)
		}, []uint64{1, 1, 2, 2}},
		{"sent out of order", func(s *stream) {
			s.plain(7)
			s.plain(8)
			s.link(8, 1)
			s.link(7, 2)
			s.wireOut(2)
			s.wireOut(1)
		}, []uint64{1, 2, 1, 2}},
		{"the link came after the packet that it tells of", func(s *stream) { s.plain(7); s.wireOut(1); s.link(7, 1) }, []uint64{1, 1}},
		{"the link was lost", func(s *stream) { s.plain(7); s.wireOut(1) }, []uint64{1, 2}},
		{"a super-packet of three segments", func(s *stream) {
			s.plain(7)
			s.link(7, 1)
			s.wireOut(1)
			s.link(7, 2)
			s.wireOut(2)
			s.link(7, 3)
			s.wireOut(3)
			s.plain(8)
			s.link(8, 4)
			s.wireOut(4)
		}, []uint64{1, 1, 1, 1, 2, 2}},
		{"dropped before it had a number", func(s *stream) {
			s.plain(7)
			s.packet(bpfobj.PacketDrop, ledger.Out, 0, 0, 7)
		}, []uint64{1, 1}},
		{"dropped behind the wire hook", func(s *stream) {
			s.plain(7)
			s.link(7, 1)
			s.wireOut(1)
			s.packet(bpfobj.PacketDrop, ledger.Out, 1, bpfobj.PacketFlagSeq, 0)
		}, []uint64{1, 1, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStream()
			c.feed(s)
			if diff := cmp.Diff(c.want, s.ids()); diff != "" {
				t.Errorf("ids (-want +got):\n%s", diff)
			}
			s.chains.forget(s.at.Add(time.Second))
			if n := len(s.chains.byKey) + len(s.chains.byCookie); n != 0 {
				t.Errorf("%d entries are kept of chains that are over", n)
			}
		})
	}
}
