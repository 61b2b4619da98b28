// SPDX-License-Identifier: Apache-2.0

package pcap

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLinkTypes(t *testing.T) {
	v4 := append([]byte{0x45}, bytes.Repeat([]byte{4}, 39)...)
	v6 := append([]byte{0x60}, bytes.Repeat([]byte{6}, 49)...)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	frame := func(ether uint16, p []byte) string {
		return string(append(binary.BigEndian.AppendUint16(make([]byte, 12), ether), p...))
	}
	le, be := binary.LittleEndian, binary.BigEndian
	sll := func(proto uint16) []byte { return be.AppendUint16(bytes.Repeat([]byte{9}, 14), proto) }
	sll2 := func(proto uint16) []byte {
		return append(be.AppendUint16(nil, proto), bytes.Repeat([]byte{9}, 18)...)
	}
	for _, row := range []struct {
		name string
		link uint32
		data []byte
		want string
	}{
		{"Ethernet", 1, join(make([]byte, 12), []byte{8, 0}, v4), frame(0x0800, v4)},
		{"raw 12, IPv4", 12, v4, frame(0x0800, v4)},
		{"raw 14, IPv6", 14, v6, frame(0x86dd, v6)},
		{"raw 101, IPv4", 101, v4, frame(0x0800, v4)},
		{"raw 101, neither", 101, []byte{0x10, 2}, frame(0xffff, []byte{0x10, 2})},
		{"raw 101, nothing", 101, nil, frame(0xffff, nil)},
		{"raw IPv4", 228, v4, frame(0x0800, v4)},
		{"raw IPv6", 229, v6, frame(0x86dd, v6)},
		{"cooked, IPv4", 113, join(sll(0x0800), v4), frame(0x0800, v4)},
		{"cooked, VLAN", 113, join(sll(0x8100), []byte{0, 5, 0x86, 0xdd}, v6), frame(0x8100, join([]byte{0, 5, 0x86, 0xdd}, v6))},
		{"cooked, cut", 113, sll(0x0800)[:15], ""},
		{"cooked v2, IPv6", 276, join(sll2(0x86dd), v6), frame(0x86dd, v6)},
		{"cooked v2, ARP", 276, join(sll2(0x0806), []byte{1}), frame(0x0806, []byte{1})},
		{"cooked v2, cut", 276, sll2(0x0806)[:19], ""},
		{"null, little endian", 0, join(le.AppendUint32(nil, 2), v4), frame(0x0800, v4)},
		{"null, big endian", 0, join(be.AppendUint32(nil, 2), v4), frame(0x0800, v4)},
		{"null, macOS", 0, join(le.AppendUint32(nil, 30), v6), frame(0x86dd, v6)},
		{"null, FreeBSD", 0, join(be.AppendUint32(nil, 28), v6), frame(0x86dd, v6)},
		{"null, cut", 0, []byte{2, 0, 0}, ""},
		{"loop, OpenBSD", 108, join(be.AppendUint32(nil, 24), v6), frame(0x86dd, v6)},
		{"loop, unknown family", 108, join(be.AppendUint32(nil, 7), v6), frame(0xffff, v6)},
	} {
		file, _ := writeClassic(binary.LittleEndian, true, row.link, []sample{{ns: 1, data: row.data, wire: len(row.data) + 500}})
		have, _, err := readAll(file, Options{})
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		wire := len(row.data) + 500 + LinkType(row.link).grown()
		if diff := cmp.Diff([]got{{1, 1, row.want, wire, 0}}, have); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, diff)
		}
	}
}

// TestFrameWithRoomForEveryLinkType: the longest synthetic header still leaves the caller's room.
func TestFrameWithRoomForEveryLinkType(t *testing.T) {
	for link := range shapes {
		file, _ := writeClassic(binary.LittleEndian, true, uint32(link), []sample{{data: bytes.Repeat([]byte{0x45}, 300)}})
		r, err := NewReader("f", bytes.NewReader(file), Options{KeepBytes: 256})
		if err != nil {
			t.Fatal(err)
		}
		var p Packet
		if err := r.Next(&p); err != nil {
			t.Fatal(err)
		}
		if got := len(p.WithRoom(Room)); got != Room+len(p.Data) || len(p.Data) < 256 {
			t.Errorf("link type %v: %d bytes with room, %d without", link, got, len(p.Data))
		}
	}
}

func TestClock(t *testing.T) {
	for _, row := range []struct {
		resolution byte
		offset     int64
		ticks      uint64
		want       int64
	}{
		{6, 0, 1_700_000_000_123_456, 1_700_000_000_123_456_000},
		{9, 0, 1_700_000_000_123_456_789, 1_700_000_000_123_456_789},
		{0, 0, 17, 17_000_000_000},
		{12, 0, 1_999_999_999_999, 1_999_999_999},
		{0x80 | 20, 0, 1<<20 + 1<<19, 1_500_000_000},
		{0x80 | 63, 0, 1<<63 | 1<<62, 1_500_000_000},
		{19, 0, 15_000_000_000_000_000_000, 1_500_000_000},
		{6, 3600, 1_000_000, 3601_000_000_000},
		{6, -3600, 1_000_000, 0},
		{0, 0, 1 << 63, 1<<63 - 1},
		{6, 1 << 62, 1, 1<<63 - 1},
	} {
		c := clock{offset: row.offset}
		if err := c.resolution(row.resolution); err != nil {
			t.Errorf("resolution 0x%x: %v", row.resolution, err)
			continue
		}
		if got := c.nanoseconds(row.ticks); got != row.want {
			t.Errorf("resolution 0x%x offset %d: %d ticks are %d ns, want %d", row.resolution, row.offset, row.ticks, got, row.want)
		}
	}
	for _, bad := range []byte{20, 127, 0x80 | 64} {
		if err := new(clock).resolution(bad); err == nil {
			t.Errorf("resolution 0x%x accepted", bad)
		}
	}
}
