// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unsafe"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/ledger"
)

const headSize = int(unsafe.Sizeof(bpfobj.PacketHead{}))

// packet is one copy of a packet.
type packet struct {
	at     time.Time
	head   bpfobj.PacketHead
	key    ledger.SAKey
	src    netip.Addr
	data   []byte
	iface  int // index of the interface in the files
	lost   uint64
	place  ledger.Place // of a drop
	where  string       // of a drop: function+offset
	reason string
	cause  ledger.Cause
	chain  *chain
	number uint64 // in the file that it was written to, from 1
	file   int    // which file that was
}

// overhead is what a packet in memory takes beside its bytes.
const overhead = int(unsafe.Sizeof(packet{})) + int(unsafe.Sizeof(chain{}))

func (p *packet) size() int { return len(p.data) + overhead }

// numbered says whether the packet's sequence number is known.
func (p *packet) numbered() bool { return p.head.Flags&bpfobj.PacketFlagSeq != 0 }

// dropped says whether this is a packet lost, and not one that was done with.
func (p *packet) dropped() bool { return p.head.Point == bpfobj.PacketDrop }

// decode reads a record of the ring. The bytes are copied.
func (r *Recorder) decode(b []byte) (*packet, error) {
	if len(b) < headSize {
		return nil, fmt.Errorf("decode packet: %d bytes, want %d: the objects and the Go side are of different builds", len(b), headSize)
	}
	p := &packet{}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&p.head)), headSize), b)
	h := &p.head
	if int(h.CapLen) > len(b)-headSize {
		return nil, fmt.Errorf("decode packet: %d bytes in a record of %d", h.CapLen, len(b)-headSize)
	}
	p.data = append([]byte(nil), b[headSize:headSize+int(h.CapLen)]...)
	p.at = r.wallAtZero.Add(time.Duration(h.TimeNs))
	p.lost = h.Lost
	p.key = ledger.SAKey{Dst: address(h.Dst), SPI: ledger.SPI(h.Spi), Proto: protocols[h.Proto], Direction: ledger.In}
	if h.Dir == 1 {
		p.key.Direction = ledger.Out
	}
	p.src = address(h.Src)
	return p, nil
}

var protocols = map[uint8]ledger.Proto{50: ledger.ESP, 51: ledger.AH, 108: ledger.IPComp}

func address(b [16]byte) netip.Addr {
	a := netip.AddrFrom16(b).Unmap()
	if a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// explain puts a drop's numbers into this kernel's words and says whether it is a packet lost. The kernel
// frees with the same call what it has dealt with.
func (r *Recorder) explain(p *packet) bool {
	h := &p.head
	if r.source.Reason != nil && h.Reason != 0 {
		p.reason = r.source.Reason(h.Reason)
	}
	p.where = fmt.Sprintf("0x%x", h.Location)
	if r.source.Location != nil {
		p.where = r.source.Location(h.Location)
	}
	if h.Flags&bpfobj.PacketFlagCause != 0 {
		if int(h.Cause) < len(r.source.Causes) {
			p.cause = ledger.Cause(r.source.Causes[h.Cause])
		}
		p.place = ledger.PlaceXfrm
		return true
	}
	function, module, _ := strings.Cut(p.where, " ")
	function, _, _ = strings.Cut(function, "+")
	function, _, _ = strings.Cut(function, ".")
	// A super-packet is freed when it has been cut into segments (xfrm_output_gso(), which may be inlined); an
	// error there moves a counter.
	if h.Segments > 1 && strings.HasPrefix(function, "xfrm_output") {
		return false
	}
	id := ledger.DropID{Function: function, Module: strings.Trim(module, "[]"), Reason: p.reason}
	var lost bool
	p.place, lost = id.Loss()
	return lost
}
