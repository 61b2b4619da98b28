// SPDX-License-Identifier: Apache-2.0

package pcap

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"testing"
)

// sample is a packet as a test wants it written.
type sample struct {
	ns    int64
	data  []byte
	wire  int // 0: len(data)
	iface int
}

func (s sample) wireLen() uint32 { return uint32(max(s.wire, len(s.data))) }

// samples are n packets of growing length with recognisable content.
func samples(n int) []sample {
	out := make([]sample, n)
	for i := range out {
		data := bytes.Repeat([]byte{byte(i + 1)}, 60+i)
		copy(data[12:], []byte{0x08, 0x00, 0x45})
		out[i] = sample{ns: 1_700_000_000_000_000_000 + int64(i)*1_001_000, data: data, wire: len(data) + 1000*(i%2)}
	}
	return out
}

// writeClassic writes a pcap file and returns also where each record begins.
func writeClassic(order binary.AppendByteOrder, nano bool, link uint32, packets []sample) (file []byte, at []int) {
	magic, unit := uint32(magicMicro), int64(1000)
	if nano {
		magic, unit = magicNano, 1
	}
	b := order.AppendUint32(nil, magic)
	b = order.AppendUint16(b, 2)
	b = order.AppendUint16(b, 4)
	for _, v := range []uint32{0, 0, 65535, link} {
		b = order.AppendUint32(b, v)
	}
	for _, p := range packets {
		at = append(at, len(b))
		for _, v := range []uint32{uint32(p.ns / 1e9), uint32(p.ns % 1e9 / unit), uint32(len(p.data)), p.wireLen()} {
			b = order.AppendUint32(b, v)
		}
		b = append(b, p.data...)
	}
	return b, at
}

// ngWriter writes pcapng block by block.
type ngWriter struct {
	order binary.AppendByteOrder
	b     []byte
}

func (w *ngWriter) block(typ uint32, body ...[]byte) {
	content := bytes.Join(body, nil)
	for len(content)%4 != 0 {
		content = append(content, 0)
	}
	w.b = w.order.AppendUint32(w.b, typ)
	w.b = w.order.AppendUint32(w.b, uint32(len(content)+12))
	w.b = append(w.b, content...)
	w.b = w.order.AppendUint32(w.b, uint32(len(content)+12))
}

func (w *ngWriter) u32s(v ...uint32) (b []byte) {
	for _, x := range v {
		b = w.order.AppendUint32(b, x)
	}
	return b
}

func (w *ngWriter) option(code uint16, value []byte) []byte {
	b := w.order.AppendUint16(nil, code)
	b = w.order.AppendUint16(b, uint16(len(value)))
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func (w *ngWriter) section() {
	body := w.u32s(orderMagic)
	body = w.order.AppendUint16(body, 1)
	body = w.order.AppendUint16(body, 0)
	w.block(blockSection, w.order.AppendUint64(body, ^uint64(0)), w.option(4, []byte("a test")), w.option(0, nil))
}

func (w *ngWriter) iface(link uint16, snaplen uint32, options ...[]byte) {
	body := w.order.AppendUint16(nil, link)
	body = w.order.AppendUint16(body, 0)
	w.block(blockInterface, append([][]byte{append(body, w.u32s(snaplen)...)}, options...)...)
}

func (w *ngWriter) padded(data []byte) []byte {
	out := bytes.Clone(data)
	for len(out)%4 != 0 {
		out = append(out, 0)
	}
	return out
}

func (w *ngWriter) enhanced(iface int, ticks uint64, p sample, options ...[]byte) {
	head := w.u32s(uint32(iface), uint32(ticks>>32), uint32(ticks), uint32(len(p.data)), p.wireLen())
	w.block(blockEnhanced, append([][]byte{head, w.padded(p.data)}, options...)...)
}

// writeNG writes the packets on as many interfaces as they name, the time in nanoseconds, with blocks
// between them that a reader has to pass over. It returns also where each packet's block ends.
func writeNG(order binary.AppendByteOrder, packets []sample) (file []byte, ends []int) {
	w := &ngWriter{order: order}
	w.section()
	top := 0
	for _, p := range packets {
		top = max(top, p.iface)
	}
	for range top + 1 {
		w.iface(1, 262144, w.option(2, []byte("eth0")), w.option(9, []byte{9}), w.option(0, nil))
	}
	for i, p := range packets {
		w.enhanced(p.iface, uint64(p.ns), p, w.option(1, []byte("a comment")), w.option(0, nil))
		ends = append(ends, len(w.b))
		if i%2 == 0 {
			w.block(4, []byte{0, 0, 0, 0})                    // name resolution
			w.block(0xbad, []byte("a custom block, unknown")) // and one from the future
		}
	}
	return w.b, ends
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
