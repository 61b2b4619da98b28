// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/lab/packet"
)

// tooBig is what the path MTU programs keep of a packet.
type tooBig struct {
	key      PMTUKey
	size     uint32
	ports    uint32 // as they lie in memory
	reporter [16]uint8
	took     uint32
}

// tooBigOpinion describes a packet that did not fit, whole or as an ICMP message quotes it.
func (p skb) tooBigOpinion(whole bool) (b tooBig, ok bool) {
	o, ok := ipOpinion(p.packet, 1, 44)
	if !ok || o.proto == 44 && o.family == 6 && o.header == 40 {
		return b, false // without its fragment header it is not known what it is
	}
	b.key = PMTUKey{Family: o.family, Proto: o.proto, Src: o.src.As16(), Dst: o.dst.As16()}
	b.size = uint32(o.length)
	if o.family == 6 && o.length == 0 {
		b.size = 40
	}
	if whole && p.gso != 0 && o.proto == 6 && len(o.rest) > 12 {
		b.size = uint32(o.header + int(o.rest[12]>>4)*4 + int(p.gso))
	}
	if o.later {
		return b, true
	}
	if (o.proto == 6 || o.proto == 17) && len(o.rest) >= 4 {
		b.ports = binary.NativeEndian.Uint32(o.rest)
	}
	switch {
	case o.proto == 50 && len(o.rest) >= 4:
		b.key.Spi = binary.BigEndian.Uint32(o.rest)
	case o.proto == 17 && len(o.rest) >= 12 && o.natt():
		b.key.Spi = binary.BigEndian.Uint32(o.rest[8:])
	}
	return b, true
}

// natt says whether one of the ports is one of UDP encapsulation.
func (o outer) natt() bool {
	return slices.Contains(nattPorts, binary.BigEndian.Uint16(o.rest)) || slices.Contains(nattPorts, binary.BigEndian.Uint16(o.rest[2:]))
}

// asRawTracepoints keeps those of an object's programs that are named, and makes fentry programs such as can be run for
// a test: both are given their arguments in the same way, but raw tracepoints without types.
func asRawTracepoints(spec *ebpf.CollectionSpec, names ...string) {
	for name, p := range spec.Programs {
		switch {
		case slices.Contains(names, name):
			p.Type, p.AttachType, p.AttachTo = ebpf.RawTracepoint, 0, ""
		case name != "pick_netns":
			delete(spec.Programs, name)
		}
	}
}

// TestPMTUSecondDecoder has the path MTU programs and the second decoder describe the same broken packets: too big
// themselves, or quoted in an ICMP message.
func TestPMTUSecondDecoder(t *testing.T) {
	f := newForge(t)
	spec, err := LoadPMTU()
	if err != nil {
		t.Fatal(err)
	}
	if err := ConfigurePMTU(spec, nattPorts); err != nil {
		t.Fatal(err)
	}
	asRawTracepoints(spec, "icmp_send", "icmp6_send", "esp4_told", "esp6_told")
	coll := f.load(spec)
	c := chance{rand.New(rand.NewPCG(20261128, 3))}
	met := counts{}
	for range 8000 {
		p := c.skb()
		if p.network == 0 || p.network == noHeader {
			continue // these hooks are the Internet protocols' own
		}
		p.gso = pick(c, 0, 0, uint16(1200))
		mtu := 1000 + c.Uint32N(500)
		var want tooBig
		var there bool
		table := "pmtu_own"
		program := pick(c, "icmp_send", "icmp6_send", "esp4_told", "esp6_told")
		args := []uint64{}
		switch program {
		case "icmp_send":
			want, there = p.tooBigOpinion(true)
			args = []uint64{3, 4, uint64(binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, mtu)))} // in network order
		case "icmp6_send":
			want, there = p.tooBigOpinion(true)
			args = []uint64{2, 0, uint64(mtu)}
		case "esp4_told":
			front := packet.L3().IPv4(b4, a4).ICMPError(nil).Frame().Data
			binary.BigEndian.PutUint16(front[26:], uint16(mtu))
			p.front, p.icmp = front, 20
			args = []uint64{77}
			want, there = p.toldOpinion(77, [16]byte{10: 0xff, 0xff, front[12], front[13], front[14], front[15]})
			table = "pmtu_told"
		case "esp6_told":
			front := packet.L3().IPv6(b6, a6).Bytes([]byte{2, 0, 0, 0, 0, 0, 0, 0}).Frame().Data
			binary.BigEndian.PutUint32(front[44:], mtu)
			p.front, p.icmp = front, 40
			args = []uint64{0, 2}
			want, there = p.toldOpinion(mtu, [16]byte(front[8:]))
			table = "pmtu_told"
		}
		want.key.Mtu = mtu
		if table == "pmtu_told" {
			want.key.Kind = 2 // PMTU_TOLD
		}
		f.run(coll.Programs[program], append([]uint64{f.set(c, p)}, args...)...)
		got := emptied[PMTUKey, PMTUCount](t, coll.Maps[table])
		wanted := map[PMTUKey]tooBig{}
		if there {
			wanted[want.key] = want
		}
		have := map[PMTUKey]tooBig{}
		for k, n := range got {
			have[k] = tooBig{k, n.Size, n.Ports, n.Reporter, n.Took}
		}
		if diff := cmp.Diff(wanted, have, cmp.AllowUnexported(tooBig{}, PMTUKey{})); diff != "" {
			t.Fatalf("%s (-second decoder +kernel):\n%s\nsegments of %d, % x, %d bytes in pages", program, diff, p.gso, p.packet, p.paged)
		}
		met[kindOfTooBig(want, there)]++
	}
	enough(t, met, "none", "esp", "esp in udp", "udp", "tcp", "other")
}

// toldOpinion is what is kept of an ICMP message: of UDP, only what is ESP's.
func (p skb) toldOpinion(took uint32, reporter [16]uint8) (b tooBig, ok bool) {
	b, ok = p.tooBigOpinion(false)
	if o, _ := ipOpinion(p.packet, 1, 44); ok && o.proto == 17 && (o.later || len(o.rest) < 4 || !o.natt()) {
		return b, false
	}
	b.took, b.reporter = took, reporter
	return b, ok
}

func kindOfTooBig(b tooBig, there bool) string {
	switch {
	case !there:
		return "none"
	case b.key.Proto == 17 && b.key.Spi != 0:
		return "esp in udp"
	case b.key.Proto == 17:
		return "udp"
	case b.key.Proto == 50:
		return "esp"
	case b.key.Proto == 6:
		return "tcp"
	}
	return "other"
}
