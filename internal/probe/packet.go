// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/reader"
)

// PacketOptions ask for copies of packets.
type PacketOptions struct {
	Only      uint32 // bpfobj.PacketOnly…; 0: all
	Snaplen   uint32 // bytes of each packet; 0: its headers
	Dirs      uint32 // bit 0 in, bit 1 out; 0: both
	BySPI     bool   // only SPIs that PacketSource.Choose is given
	Peer      netip.Prefix
	RingBytes uint32 // 0: DefaultPacketRingBytes
}

// DefaultPacketRingBytes holds some 30,000 packets' headers.
const DefaultPacketRingBytes = 8 << 20

// PacketSource is what the packet programs write and are told.
type PacketSource struct {
	Ring    *ebpf.Map                   // struct packet_head and the packet's bytes
	Counts  *ebpf.Map                   // struct packet_count by struct packet_place
	Chosen  *ebpf.Map                   // SPIs that are wanted
	Windows *ebpf.Map                   // struct order_state by struct order_key
	Devices []Device                    // on whose wire a hook holds
	Points  map[bpfobj.PacketPoint]bool // where a hook holds
}

// packetSet is the packet object's maps, which all its programs share, and the programs on the wire.
type packetSet struct {
	maps    *ebpf.Collection
	colls   []*ebpf.Collection
	progs   map[string]*ebpf.Program
	devices []Device
	points  map[bpfobj.PacketPoint]bool
}

// packetHooks are the hooks' names that tell where packets are copied.
var packetHooks = map[string]bpfobj.PacketPoint{
	"copy gro_cells_receive": bpfobj.PacketDecrypted, "copy xfrm4_transport_finish": bpfobj.PacketDecrypted,
	"copy xfrm6_transport_finish": bpfobj.PacketDecrypted, "copy xfrm_output": bpfobj.PacketPlain,
	"copy kfree_skb": bpfobj.PacketDrop,
}

// packets copies packets, if asked to; its hooks run for every packet.
var packets = object{
	name: "packet",
	load: bpfobj.LoadPacket,
	raw:  []stackPlace{{"packet_drop", "copy kfree_skb", "packets are not captured where they are dropped, and not said to be"}},
	extra: func(caps Capabilities) []Hook {
		var out []Hook
		for _, place := range []stackPlace{
			{"begin", "xfrm_input", "decrypted packets are captured without their number, and not linked to the packet they came in"},
			{"decrypted", "gro_cells_receive", "decrypted packets of tunnel mode are not captured"},
			{"decrypted4", "xfrm4_transport_finish", "the same of transport mode over IPv4"},
			{"decrypted6", "xfrm6_transport_finish", "the same of transport mode over IPv6"},
			{"plain", "xfrm_output", "packets are not captured before encryption"},
			{"sent", "__ip_local_out", "IPv4 packets are captured before encryption, but not linked to the packet they left in"},
			{"sent6", "__ip6_local_out", "the same over IPv6"},
		} {
			h := functionHook(caps, place)
			h.Name = "copy " + place.function
			out = append(out, h)
		}
		return out
	},
	unwanted: func(o Options) bool { return o.Packets == nil },
	configure: func(spec *ebpf.CollectionSpec, f facts, o Options) error {
		return configurePackets(spec, f, o)
	},
	maps: func(s *Set) *ebpf.Collection { return s.packet.maps },
	part: func(*ebpf.Collection, facts) (reader.Part, error) { return nil, nil },
}

func configurePackets(spec *ebpf.CollectionSpec, f facts, o Options) error {
	p := *o.Packets
	if p.Only == 0 {
		p.Only = bpfobj.PacketOnlyAll
	}
	if p.Dirs == 0 {
		p.Dirs = 3
	}
	if p.RingBytes == 0 {
		p.RingBytes = DefaultPacketRingBytes
	}
	if p.RingBytes > 1<<30 {
		return fmt.Errorf("a ring of %d bytes for packets is too large: at most %d", p.RingBytes, 1<<30)
	}
	size := uint32(64 << 10)
	for size < p.RingBytes {
		size <<= 1
	}
	return bpfobj.ConfigurePacket(spec, bpfobj.PacketConfig{
		HasReason: f.tables != nil && len(f.tables.Reasons) > 0, Only: p.Only, Snaplen: p.Snaplen, Dirs: p.Dirs,
		BySPI: p.BySPI, Peer: p.Peer, NATTPorts: o.NATTPorts, RingBytes: size, SAs: o.SATableSize,
	})
}

// attachPackets makes the maps that all packet programs share and attaches those on the wire. The ones in the
// stack follow with the other objects.
func (s *Set) attachPackets(f facts) error {
	spec, err := bpfobj.LoadPacket()
	if err != nil {
		return fmt.Errorf("load packet object: %w", err)
	}
	if err := configurePackets(spec, f, s.plan.Options); err != nil {
		return err
	}
	keepOnly(spec, nil)
	if s.packet.maps, err = ebpf.NewCollection(spec); err != nil {
		return fmt.Errorf("make packet maps: %w", explainLoad(err))
	}
	s.packet.progs, s.packet.points = map[string]*ebpf.Program{}, map[bpfobj.PacketPoint]bool{}
	seen := map[int]bool{}
	for _, h := range s.plan.Wire {
		if seen[h.Device.Index] || h.Device.Layer == LayerOther {
			continue
		}
		seen[h.Device.Index] = true
		held := false
		for _, dir := range []Direction{Ingress, Egress} {
			held = s.attachPacketWire(f, h.Device, dir) || held
		}
		if held {
			s.packet.devices = append(s.packet.devices, h.Device)
		}
	}
	return nil
}

func (s *Set) attachPacketWire(f facts, d Device, dir Direction) bool {
	h := Hook{Name: fmt.Sprintf("copy wire %s %s", dir, d.Name), Device: d, Direction: dir,
		Costs: "packets on the wire of this device are not captured in this direction"}
	name, point := "packet_ingress", bpfobj.PacketWireIn
	if dir == Egress {
		name, point = "packet_egress", bpfobj.PacketWireOut
	} else if s.plan.caps.GROHidesESP {
		h.Limits = "esp4_offload or esp6_offload is loaded: ESP that GRO decapsulates never reaches TC and is not captured on the wire"
	}
	h.Try, h.Why = tcCandidates(s.plan.caps, name, dir, d.Layer)
	why := slices.Clone(h.Why)
	for _, c := range h.Try {
		prog, err := s.packet.program(c, f, s.plan.Options, s.types)
		if err != nil {
			why = append(why, fmt.Sprintf("%s: %v", c.Way, err))
			continue
		}
		l, err := attachOne(h, c, prog)
		if err == nil {
			s.addWire(h, l, c, why, true)
			s.packet.points[point] = true
			return true
		}
		why = append(why, fmt.Sprintf("%s: %v", c.Way, explainAttach(err, c.Way, d)))
	}
	s.addWire(h, nil, Candidate{}, why, true)
	return false
}

// program loads one of the programs on the wire, once for each way to attach it.
func (p *packetSet) program(c Candidate, f facts, o Options, types *kernelTypes) (*ebpf.Program, error) {
	key := fmt.Sprintf("%s/%v", c.Program, c.LoadAs)
	if prog := p.progs[key]; prog != nil {
		return prog, nil
	}
	spec, err := bpfobj.LoadPacket()
	if err != nil {
		return nil, fmt.Errorf("load packet object: %w", err)
	}
	if err := configurePackets(spec, f, o); err != nil {
		return nil, err
	}
	keepOnly(spec, []string{c.Program})
	spec.Programs[c.Program].AttachType = c.LoadAs
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: replacements(spec, p.maps), Cache: types.cache})
	if err != nil {
		return nil, explainLoad(err)
	}
	p.colls = append(p.colls, coll)
	p.progs[key] = coll.Programs[c.Program]
	return p.progs[key], nil
}

// replacements are all maps of an object but its constants, which are each program's own.
func replacements(spec *ebpf.CollectionSpec, with *ebpf.Collection) map[string]*ebpf.Map {
	out := make(map[string]*ebpf.Map)
	for name := range spec.Maps {
		if m := with.Maps[name]; m != nil && !strings.HasPrefix(name, ".") {
			out[name] = m
		}
	}
	return out
}

func (p *packetSet) close() {
	for _, c := range p.colls {
		c.Close()
	}
	if p.maps != nil {
		p.maps.Close()
	}
}

// Packets is where the copies of packets can be read; ok is false where nobody asked for any.
func (s *Set) Packets() (src PacketSource, ok bool) {
	if s.packet.maps == nil {
		return src, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.packet.maps.Maps
	points := maps.Clone(s.packet.points)
	for _, h := range s.hooks {
		if p, ok := packetHooks[h.Name]; ok && h.Attached {
			points[p] = true
		}
	}
	return PacketSource{Ring: m["packets"], Counts: m["packet_counts"], Chosen: m["chosen_spis"], Windows: m["order_states"],
		Devices: slices.Clone(s.packet.devices), Points: points}, true
}
