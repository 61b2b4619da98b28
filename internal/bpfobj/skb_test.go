// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// forge makes packets as the stack has them, for programs that read nothing but by address: a sk_buff and what it
// points to, laid out in an array of BPF as this kernel's type information says. What lies behind the packet's bytes
// is noise, as in a real buffer, so that whoever reads on finds something.
type forge struct {
	t     testing.TB
	types *btf.Spec
	mem   *ebpf.Memory
	base  uint64           // where the kernel has the array
	at    map[string]int64 // structs by name
	known map[string]int64 // and their members

	secPath int64 // number of the extension that says which SAs a packet has been through
}

// Where things lie in the array.
const (
	forgedSize   = 1 << 16
	forgedSKB    = 0x0000
	forgedDevice = 0x1000
	forgedExt    = 0x4000
	forgedPath   = 0x4100
	forgedState  = 0x4200
	forgedHead   = 0x8000
	forgedRoom   = 0x7000 // of the buffer; struct skb_shared_info follows
	forgedIndex  = 7      // of the device
	forgedSPI    = 0xc0ffee07
	noHeader     = 0xffff // not known yet: (u16)~0U
)

// skb is a packet in the stack.
type skb struct {
	front    []byte // headers of an ICMP message, whose IP header is the network header; nil: none
	icmp     int    // where in them the ICMP header begins
	packet   []byte // the linear part, from the network header on, or the packet that the message quotes
	paged    int    // bytes behind it that are in pages
	protocol uint16 // as the stack has it, host byte order
	network  uint16 // offset of the network header
	gso      uint16 // size of a segment
	sa       bool   // it has been decrypted
	inner    uint8  // the protocol that was inside, in transport mode
}

func newForge(t testing.TB) *forge {
	t.Helper()
	needBPF(t)
	types, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: forgedSize, MaxEntries: 1, Flags: 1 << 10}) // BPF_F_MMAPABLE
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	// Only a program knows where the kernel has an array.
	tell, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.RawTracepoint, License: "Dual BSD/GPL", Instructions: asm.Instructions{
		asm.LoadMapValue(asm.R1, m.FD(), 0),
		asm.StoreMem(asm.R1, 0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	}})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer tell.Close()
	if _, err := tell.Run(&ebpf.RunOptions{}); err != nil {
		t.Fatal(err)
	}
	f := &forge{t: t, types: types, at: map[string]int64{}, known: map[string]int64{}}
	if f.mem, err = m.Memory(); err != nil {
		t.Fatal(err)
	}
	var word [8]byte
	if _, err := f.mem.ReadAt(word[:], 0); err != nil {
		t.Fatal(err)
	}
	f.base = binary.NativeEndian.Uint64(word[:])
	for _, at := range []struct {
		name string
		to   int64
	}{{"sk_buff", forgedSKB}, {"net_device", forgedDevice}, {"xfrm_state", forgedState}, {"skb_shared_info", forgedHead + forgedRoom},
		{"skb_ext", forgedExt}, {"sec_path", forgedPath}} {
		f.at[at.name] = at.to
	}
	f.put("net_device", "ifindex", 4, forgedIndex)
	f.makeSA()
	return f
}

// makeSA makes the SA that decrypted packets have been through.
func (f *forge) makeSA() {
	f.t.Helper()
	var ids *btf.Enum
	if err := f.types.TypeByName("skb_ext_id", &ids); err != nil {
		f.t.Fatal(err)
	}
	for _, v := range ids.Values {
		if v.Name == "SKB_EXT_SEC_PATH" {
			f.secPath = int64(v.Value)
		}
	}
	// Offsets are in units of eight bytes from where the extensions begin.
	f.write(f.member("skb_ext", "offset")+f.secPath, []byte{(forgedPath - forgedExt) / 8})
	f.put("sec_path", "len", 1, 1)
	f.put("sec_path", "xvec", 8, f.base+forgedState)
	f.at["xfrm_id"] = f.member("xfrm_state", "id")
	f.put("xfrm_id", "spi", 4, uint64(binary.NativeEndian.Uint32(binary.BigEndian.AppendUint32(nil, forgedSPI))))
	f.put("xfrm_id", "proto", 1, 50)
}

// inNetns gives device and SA to the namespace that a program watches.
func (f *forge) inNetns(coll *ebpf.Collection) {
	f.t.Helper()
	if found, err := coll.Programs["pick_netns"].Run(&ebpf.RunOptions{}); err != nil || found != 1 {
		f.t.Fatalf("pick_netns: %d, %v", found, err)
	}
	var net uint64
	if err := coll.Variables["target_net"].Get(&net); err != nil {
		f.t.Fatal(err)
	}
	f.put("net_device", "nd_net", 8, net)
	f.put("xfrm_state", "xs_net", 8, net)
}

// put writes a member of a kernel struct.
func (f *forge) put(name, member string, size int, v uint64) {
	f.t.Helper()
	f.write(f.member(name, member), binary.NativeEndian.AppendUint64(nil, v)[:size])
}

// member is where a member lies in the array, as the kernel's type information says.
func (f *forge) member(name, member string) int64 {
	f.t.Helper()
	key := name + "." + member
	if at, known := f.known[key]; known {
		return at
	}
	var s *btf.Struct
	if err := f.types.TypeByName(name, &s); err != nil {
		f.t.Fatal(err)
	}
	offset, ok := memberOffset(s.Members, member)
	if !ok {
		f.t.Fatalf("struct %s has no %s", name, member)
	}
	f.known[key] = f.at[name] + int64(offset)
	return f.known[key]
}

func (f *forge) write(at int64, b []byte) {
	f.t.Helper()
	if _, err := f.mem.WriteAt(b, at); err != nil {
		f.t.Fatal(err)
	}
}

// memberOffset is where a member lies, those of members without a name included.
func memberOffset(members []btf.Member, name string) (uint32, bool) {
	for _, m := range members {
		if m.Name == name {
			return m.Offset.Bytes(), true
		}
		if m.Name != "" {
			continue
		}
		var inner []btf.Member
		switch u := btf.UnderlyingType(m.Type).(type) {
		case *btf.Struct:
			inner = u.Members
		case *btf.Union:
			inner = u.Members
		}
		if offset, ok := memberOffset(inner, name); ok {
			return m.Offset.Bytes() + offset, true
		}
	}
	return 0, false
}

// set makes the one packet that there is into another, whose address in the kernel it returns.
func (f *forge) set(c chance, p skb) uint64 {
	f.t.Helper()
	buffer := make([]byte, forgedRoom)
	for i := 0; i+8 <= len(buffer); i += 8 {
		binary.NativeEndian.PutUint64(buffer[i:], c.Uint64())
	}
	start := uint64(p.network)
	if p.network == noHeader {
		start = 64
	}
	data := start + uint64(copy(buffer[start:], p.front))
	copy(buffer[data:], p.packet)
	f.write(forgedHead, buffer)
	for _, m := range []struct {
		name string
		size int
		v    uint64
	}{
		{"head", 8, f.base + forgedHead}, {"data", 8, f.base + forgedHead + data}, {"transport_header", 2, start + uint64(p.icmp)}, {"network_header", 2, uint64(p.network)},
		{"tail", 4, data + uint64(len(p.packet))}, {"end", 4, forgedRoom},
		{"len", 4, uint64(len(p.packet) + p.paged)}, {"data_len", 4, uint64(p.paged)},
		{"protocol", 2, uint64(p.protocol>>8 | p.protocol<<8)},
		{"dev", 8, f.base + forgedDevice}, {"skb_iif", 4, forgedIndex},
	} {
		f.put("sk_buff", m.name, m.size, m.v)
	}
	f.put("skb_shared_info", "gso_size", 2, uint64(p.gso))
	f.put("sk_buff", "extensions", 8, f.base+forgedExt)
	active := uint64(0)
	if p.sa {
		active = 1 << f.secPath
	}
	f.put("sk_buff", "active_extensions", 1, active)
	f.at["xfrm_mode_skb_cb"] = f.member("sk_buff", "cb")
	f.put("xfrm_mode_skb_cb", "protocol", 1, uint64(p.inner))
	return f.base + forgedSKB
}

// load loads an object whose programs take the forge's namespace for their own.
func (f *forge) load(spec *ebpf.CollectionSpec) *ebpf.Collection {
	f.t.Helper()
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		f.t.Fatalf("%+v", err)
	}
	f.t.Cleanup(coll.Close)
	f.inNetns(coll)
	return coll
}

// run has a program read the packet, in the place of a tracepoint's or function's first argument.
func (f *forge) run(p *ebpf.Program, args ...uint64) {
	f.t.Helper()
	var all [12]uint64
	copy(all[:], args)
	if _, err := p.Run(&ebpf.RunOptions{Context: all}); err != nil {
		f.t.Fatalf("run %s: %v", p, err)
	}
}

// emptied gives what a table holds and empties it.
func emptied[K comparable, V any](t testing.TB, m *ebpf.Map) map[K]V {
	t.Helper()
	out := map[K]V{}
	each(t, m, func(k K, v V) { out[k] = v })
	for k := range out {
		if err := m.Delete(k); err != nil {
			t.Fatal(err)
		}
	}
	return out
}
