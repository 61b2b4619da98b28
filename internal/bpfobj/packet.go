// SPDX-License-Identifier: Apache-2.0

package bpfobj

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -type packet_head -type packet_point -type packet_order -type packet_place -type packet_count -cflags "-O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -I../../bpf/headers -I../../bpf/lib -nostdinc" Packet ../../bpf/packet.bpf.c

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// The kernel's types of bpf/lib/packet_abi.h.
type (
	PacketHead  = PacketPacketHead
	PacketPlace = PacketPacketPlace
	PacketCount = PacketPacketCount
	PacketPoint = PacketPacketPoint
	PacketOrder = PacketPacketOrder
)

// Where a packet was copied: enum packet_point.
const (
	PacketWireIn    = PacketPacketPointPACKET_WIRE_IN
	PacketWireOut   = PacketPacketPointPACKET_WIRE_OUT
	PacketDecrypted = PacketPacketPointPACKET_DECRYPTED
	PacketPlain     = PacketPacketPointPACKET_PLAIN
	PacketDrop      = PacketPacketPointPACKET_DROP
	PacketLink      = PacketPacketPointPACKET_LINK
)

// What its number says: enum packet_order.
const (
	OrderNone      = PacketPacketOrderORDER_NONE
	OrderFirst     = PacketPacketOrderORDER_FIRST
	OrderNext      = PacketPacketOrderORDER_NEXT
	OrderAhead     = PacketPacketOrderORDER_AHEAD
	OrderLate      = PacketPacketOrderORDER_LATE
	OrderDuplicate = PacketPacketOrderORDER_DUPLICATE
	OrderOutside   = PacketPacketOrderORDER_OUTSIDE
	OrderRestart   = PacketPacketOrderORDER_RESTART
)

// Bits of PacketHead.Flags: PACKET_FLAG_*.
const (
	PacketFlagSeq       = 1 << 0
	PacketFlagDecrypted = 1 << 1
	PacketFlagPaged     = 1 << 2
	PacketFlagCause     = 1 << 3
	PacketFlagUDP       = 1 << 4
)

// Bits of PacketConfig.Only: PACKET_ONLY_*.
const (
	PacketOnlyAll        = 1 << 0
	PacketOnlyDrops      = 1 << 1
	PacketOnlyLate       = 1 << 2
	PacketOnlyDuplicates = 1 << 3
)

// PacketSnapMax is the most bytes of a packet that the ring takes: PACKET_LARGE.
const PacketSnapMax = 16384

// PacketConfig is what the packet programs are told before they are loaded.
type PacketConfig struct {
	HasReason bool // raw_tp/kfree_skb passes a drop reason
	Only      uint32
	Snaplen   uint32       // 0: headers
	Dirs      uint32       // bit 0 in, bit 1 out
	BySPI     bool         // only SPIs in the map chosen_spis
	Peer      netip.Prefix // zero: all
	NATTPorts []uint16     // nil: as compiled
	RingBytes uint32       // 0: as compiled
	SAs       uint32       // SAs whose order is followed at once; 0: as compiled
}

// ConfigurePacket writes the settings into the object.
func ConfigurePacket(spec *ebpf.CollectionSpec, c PacketConfig) error {
	var vars PacketVariableSpecs
	if err := spec.Assign(&vars); err != nil {
		return fmt.Errorf("find the packet programs' settings: %w", err)
	}
	errs := []error{
		vars.CfgHasReason.Set(flag(c.HasReason)), vars.CfgOnly.Set(c.Only), vars.CfgSnaplen.Set(c.Snaplen),
		vars.CfgDirs.Set(c.Dirs), vars.CfgBySpi.Set(uint8(flag(c.BySPI))),
	}
	if c.Peer.IsValid() {
		addr, mask := peerWords(c.Peer)
		errs = append(errs, vars.CfgByPeer.Set(uint8(1)), vars.CfgPeer.Set(addr), vars.CfgPeerMask.Set(mask))
	}
	if len(c.NATTPorts) > 0 {
		ports := make([]uint16, vars.CfgNattPorts.Size()/2)
		if len(c.NATTPorts) > len(ports) {
			return fmt.Errorf("set UDP encapsulation ports: %d, room for %d", len(c.NATTPorts), len(ports))
		}
		copy(ports, c.NATTPorts)
		errs = append(errs, vars.CfgNattPorts.Set(ports))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("set up the packet programs: %w", err)
	}
	if c.RingBytes != 0 {
		spec.Maps["packets"].MaxEntries = c.RingBytes
	}
	if c.SAs != 0 {
		spec.Maps["order_states"].MaxEntries = c.SAs
	}
	return nil
}

// peerWords is a prefix in the form that the programs compare: 16 bytes, IPv4 mapped, as two words of
// this machine.
func peerWords(p netip.Prefix) (addr, mask [2]uint64) {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	a := p.Addr().As16()
	var m [16]byte
	for i := range bits {
		m[i/8] |= 0x80 >> (i % 8)
	}
	for i := range addr {
		mask[i] = binary.NativeEndian.Uint64(m[i*8:])
		addr[i] = binary.NativeEndian.Uint64(a[i*8:]) & mask[i]
	}
	return addr, mask
}
