// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

// inner is the object with only the program that tests feed, and the time of its packets.
type inner struct {
	t    *testing.T
	coll *ebpf.Collection
	now  time.Duration

	names []string // of fates
}

// Ends of the connections: the near one is the smaller address, so end 0.
var (
	nearV4 = netip.MustParseAddrPort("10.1.0.1:40000")
	farV4  = netip.MustParseAddrPort("10.2.0.1:443")
	nearV6 = netip.MustParseAddrPort("[fd00:1::1]:40000")
	farV6  = netip.MustParseAddrPort("[fd00:2::1]:443")
)

func openInner(t *testing.T) *inner {
	t.Helper()
	needBPF(t)
	spec, err := LoadInner()
	if err != nil {
		t.Fatal(err)
	}
	names, err := EnumNames(spec, "inner_fate")
	if err != nil {
		t.Fatal(err)
	}
	for name := range spec.Programs {
		if name != "inner_frame" {
			delete(spec.Programs, name)
		}
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(coll.Close)
	info, err := coll.Programs["inner_frame"].Info()
	if err != nil {
		t.Fatal(err)
	}
	followed(t, "inner_frame", info, 30_000)
	return &inner{t: t, coll: coll, now: time.Hour, names: names}
}

// tcp is one segment. Everything is as it stands in the header.
type tcp struct {
	from, to netip.AddrPort
	seq, ack uint32
	flags    uint8
	window   uint16
	options  []byte
	payload  int
	tos      uint8
	size     uint32 // of one segment of a super-packet
	out      bool
	fragment uint16
	proto    uint8 // 0: TCP
	short    int   // bytes cut off the end
}

const (
	fin, syn, rst, ack = 1, 2, 4, 16
)

func (s tcp) frame() []byte {
	header := append(make([]byte, 20), s.options...)
	binary.BigEndian.PutUint16(header[0:], s.from.Port())
	binary.BigEndian.PutUint16(header[2:], s.to.Port())
	binary.BigEndian.PutUint32(header[4:], s.seq)
	binary.BigEndian.PutUint32(header[8:], s.ack)
	header[12] = uint8(len(header) / 4 << 4)
	header[13] = s.flags
	binary.BigEndian.PutUint16(header[14:], s.window)
	body := append(header, make([]byte, s.payload)...)
	proto := s.proto
	if proto == 0 {
		proto = 6
	}
	var frame []byte
	if s.from.Addr().Is4() {
		frame = make([]byte, 14+20)
		frame[12], frame[13] = 0x08, 0x00
		ip := frame[14:]
		ip[0], ip[1], ip[8], ip[9] = 0x45, s.tos, 64, proto
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(body)))
		binary.BigEndian.PutUint16(ip[6:], s.fragment)
		copy(ip[12:], s.from.Addr().AsSlice())
		copy(ip[16:], s.to.Addr().AsSlice())
	} else {
		frame = make([]byte, 14+40)
		frame[12], frame[13] = 0x86, 0xdd
		ip := frame[14:]
		binary.BigEndian.PutUint32(ip, 6<<28|uint32(s.tos)<<20)
		binary.BigEndian.PutUint16(ip[4:], uint16(len(body)))
		ip[6], ip[7] = proto, 64
		copy(ip[8:], s.from.Addr().AsSlice())
		copy(ip[24:], s.to.Addr().AsSlice())
	}
	frame = append(frame, body...)
	return frame[:len(frame)-s.short]
}

// see runs the program over a segment, a millisecond after the one before.
func (i *inner) see(s tcp) { i.t.Helper(); i.after(time.Millisecond, s) }

func (i *inner) after(d time.Duration, s tcp) {
	i.t.Helper()
	i.now += d
	// struct __sk_buff up to cb: mark is the third word, cb[0] the thirteenth.
	words := make([]uint32, 48)
	words[2], words[13], words[14], words[15] = 0xc0ffee01, s.size, uint32(i.now>>32), uint32(i.now)
	if s.out {
		words[2], words[12] = 0xc0ffee02, 1
	}
	if ret, err := i.coll.Programs["inner_frame"].Run(&ebpf.RunOptions{Data: s.frame(), Context: words}); err != nil || int32(ret) != -1 {
		i.t.Fatalf("run inner_frame: returned %d, %v", int32(ret), err)
	}
}

// only is the one flow that there is.
func (i *inner) only() InnerFlow {
	i.t.Helper()
	var key InnerKey
	var flow, found InnerFlow
	n := 0
	for it := i.coll.Maps["inner_flows"].Iterate(); it.Next(&key, &flow); n++ {
		found = flow
	}
	if n != 1 {
		i.t.Fatalf("%d flows, want 1", n)
	}
	return found
}

func (i *inner) fates() map[string]uint64 {
	i.t.Helper()
	out := map[string]uint64{}
	for k, name := range i.names {
		var perCPU []uint64
		if err := i.coll.Maps["inner_fates"].Lookup(uint32(k), &perCPU); err != nil {
			i.t.Fatal(err)
		}
		for _, n := range perCPU {
			if n > 0 {
				out[name] += n
			}
		}
	}
	return out
}

// shake is a handshake in which both ends offer window scaling; numbers begin at 1000 and 5000.
func (i *inner) shake(near, far netip.AddrPort) (a, b tcp) {
	i.t.Helper()
	scale := func(n byte) []byte { return []byte{2, 4, 5, 180, 4, 2, 1, 3, 3, n, 1, 1} }
	a = tcp{from: near, to: far, flags: ack, out: true, window: 1000}
	b = tcp{from: far, to: near, flags: ack, window: 500}
	i.see(tcp{from: near, to: far, flags: syn, seq: 1000, window: 64240, options: scale(7), out: true})
	i.see(tcp{from: far, to: near, flags: syn | ack, seq: 5000, ack: 1001, window: 65535, options: scale(9)})
	a.seq, a.ack, b.seq, b.ack = 1001, 5001, 5001, 1001
	i.see(a)
	return a, b
}
