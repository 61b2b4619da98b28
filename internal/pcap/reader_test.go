// SPDX-License-Identifier: Apache-2.0

package pcap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/pcapgo"
)

// got is what a test compares of a packet.
type got struct {
	Number    uint64
	NS        int64
	Data      string
	WireLen   int
	Interface int
}

// readAll reads to the end, which err tells about; it is nil where the end is io.EOF.
func readAll(file []byte, opts Options) (out []got, r *Reader, err error) {
	r, err = NewReader("test.pcap", bytes.NewReader(file), opts)
	if err != nil {
		return nil, nil, err
	}
	var p Packet
	for {
		switch err := r.Next(&p); {
		case err == nil:
			out = append(out, got{p.Number, p.TimeNS, string(p.Data), p.WireLen, p.Interface})
		case err == io.EOF:
			return out, r, nil
		default:
			return out, r, err
		}
	}
}

func wanted(packets []sample, unit int64) (out []got) {
	for i, p := range packets {
		out = append(out, got{uint64(i + 1), p.ns / unit * unit, string(p.data), int(p.wireLen()), p.iface})
	}
	return out
}

func TestReadsEveryShape(t *testing.T) {
	packets := samples(6)
	several := samples(6)
	for i := range several {
		several[i].iface = i % 3
	}
	type row struct {
		name string
		file []byte
		want []got
	}
	var rows []row
	for _, order := range []interface {
		binary.ByteOrder
		binary.AppendByteOrder
	}{binary.LittleEndian, binary.BigEndian} {
		micro, _ := writeClassic(order, false, 1, packets)
		nano, _ := writeClassic(order, true, 1, packets)
		fcs, _ := writeClassic(order, true, 1|0x2c000000, packets)
		ng, _ := writeNG(order, several)
		rows = append(rows,
			row{fmt.Sprint("pcap microseconds ", order), micro, wanted(packets, 1000)},
			row{fmt.Sprint("pcap nanoseconds ", order), nano, wanted(packets, 1)},
			row{fmt.Sprint("pcap with frame check sequence ", order), fcs, wanted(packets, 1)},
			row{fmt.Sprint("pcapng ", order), ng, wanted(several, 1)},
		)
	}
	for _, row := range rows {
		for _, z := range []bool{false, true} {
			file := row.file
			if z {
				file = gzipped(t, file)
			}
			have, r, err := readAll(file, Options{})
			if err != nil {
				t.Errorf("%s, gzip %v: %v", row.name, z, err)
				continue
			}
			if diff := cmp.Diff(row.want, have); diff != "" {
				t.Errorf("%s, gzip %v (-want +got):\n%s", row.name, z, diff)
			}
			if r.Consumed() != int64(len(file)) {
				t.Errorf("%s, gzip %v: consumed %d of %d bytes", row.name, z, r.Consumed(), len(file))
			}
		}
	}
}

// TestTruncatedAtEveryByte cuts files everywhere: all packets whose records are whole are delivered,
// and unless the cut falls between two records, the error says where the broken one begins.
func TestTruncatedAtEveryByte(t *testing.T) {
	packets := samples(4)
	classic, at := writeClassic(binary.LittleEndian, true, 1, packets)
	ng, ends := writeNG(binary.BigEndian, packets)
	whole := func(n int, ends []int) (k int) {
		for _, e := range ends {
			if e <= n {
				k++
			}
		}
		return k
	}
	for n := 1; n < len(classic); n++ {
		have, _, err := readAll(classic[:n], Options{})
		k := whole(n, append(at[1:], len(classic)))
		clean := n == at[min(k, len(at)-1)]
		checkCut(t, "pcap", n, have, wanted(packets, 1)[:k], err, clean, int64(at[min(k, 3)]))
	}
	// Block borders, from walking the file by its lengths.
	borders := map[int]bool{}
	for o := 0; o < len(ng); o += int(binary.BigEndian.Uint32(ng[o+4:])) {
		borders[o] = true
	}
	for n := 1; n < len(ng); n++ {
		have, _, err := readAll(ng[:n], Options{})
		start := n
		for !borders[start] {
			start--
		}
		checkCut(t, "pcapng", n, have, wanted(packets, 1)[:whole(n, ends)], err, borders[n], int64(start))
	}
}

func checkCut(t *testing.T, kind string, n int, have, want []got, err error, clean bool, start int64) {
	t.Helper()
	if diff := cmp.Diff(want, have); diff != "" && len(want)+len(have) > 0 {
		t.Errorf("%s cut to %d bytes (-want +got):\n%s", kind, n, diff)
	}
	if clean {
		if err != nil {
			t.Errorf("%s cut to %d bytes, between two records: %v", kind, n, err)
		}
		return
	}
	var damage *DamageError
	if !errors.As(err, &damage) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%s cut to %d bytes: error %v, want truncation", kind, n, err)
		return
	}
	if n >= classicHeader && damage.Offset != start || damage.Packets != uint64(len(want)) {
		t.Errorf("%s cut to %d bytes: error says %d packets and offset %d, want %d and %d",
			kind, n, damage.Packets, damage.Offset, len(want), start)
	}
}

func TestTruncatedGzip(t *testing.T) {
	packets := samples(200)
	file, _ := writeClassic(binary.LittleEndian, true, 1, packets)
	z := gzipped(t, file)
	want := wanted(packets, 1)
	for n := 2; n < len(z); n++ {
		have, _, err := readAll(z[:n], Options{})
		var damage *DamageError
		if !errors.As(err, &damage) {
			t.Fatalf("gzip cut to %d of %d bytes: error %v", n, len(z), err)
		}
		if len(have) > len(want) || len(have) > 0 && cmp.Diff(want[:len(have)], have) != "" {
			t.Fatalf("gzip cut to %d of %d bytes: %d wrong packets", n, len(z), len(have))
		}
	}
	// A wrong check sum: all packets come, and then the error.
	z[len(z)-6] ^= 1
	have, _, err := readAll(z, Options{})
	var damage *DamageError
	if len(have) != len(want) || !errors.As(err, &damage) || !damage.Compressed {
		t.Errorf("gzip with a wrong check sum: %d packets of %d, error %v", len(have), len(want), err)
	}
}

func TestCorrupt(t *testing.T) {
	packets := samples(4)
	ng, ends := writeNG(binary.LittleEndian, packets)
	classic, at := writeClassic(binary.LittleEndian, false, 1, packets)
	patch := func(b []byte, at int, v uint32) []byte {
		b = bytes.Clone(b)
		binary.LittleEndian.PutUint32(b[at:], v)
		return b
	}
	start := ends[0] + 16 + 36 // of the second packet's block: behind the two other blocks
	for _, row := range []struct {
		name    string
		file    []byte
		packets int
		offset  int
		says    string
	}{
		{"pcap: impossible length", patch(classic, at[2]+8, 1<<30), 2, at[2], "cannot be"},
		{"pcapng: tail differs", patch(ng, ends[1]-4, 4), 1, start, "at its end"},
		{"pcapng: length no multiple of 4", patch(ng, start+4, 61), 1, start, "length of 61"},
		{"pcapng: length too small", patch(ng, start+4, 8), 1, start, "length of 8"},
		{"pcapng: packet longer than block", patch(ng, start+20, 4096), 1, start, "packet of 4096 bytes"},
		{"pcapng: no such interface", patch(ng, start+8, 7), 1, start, "interface 7"},
	} {
		have, _, err := readAll(row.file, Options{})
		var damage *DamageError
		if !errors.As(err, &damage) {
			t.Errorf("%s: error %v", row.name, err)
			continue
		}
		if len(have) != row.packets || damage.Offset != int64(row.offset) || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %d packets, %v; want %d packets, offset %d, %q", row.name, len(have), err, row.packets, row.offset, row.says)
		}
	}
}

func TestNoCapture(t *testing.T) {
	old, _ := writeClassic(binary.LittleEndian, false, 1, nil)
	old[4] = 1
	wifi, _ := writeClassic(binary.LittleEndian, false, 105, samples(1))
	for _, row := range []struct {
		name string
		file []byte
		want any
		says string
	}{
		{"empty", nil, new(*FormatError), "the file is empty"},
		{"text", []byte("hello, world"), new(*FormatError), "68 65 6c 6c"},
		{"version", old, new(*FormatError), "version 1.4"},
		{"gzip of text", gzipped(t, []byte("hello, world")), new(*FormatError), "68 65 6c 6c"},
		{"half a gzip header", []byte{0x1f, 0x8b, 8}, new(*DamageError), "gzip"},
		{"radio", wifi, new(*LinkTypeError), "105 (IEEE 802.11)"},
	} {
		_, err := NewReader("f", bytes.NewReader(row.file), Options{})
		if !errors.As(err, row.want) || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %T %v, want %T with %q", row.name, err, err, row.want, row.says)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "absent"), Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
}

// TestUnknownLinkTypeOfOneInterface: the packets of other interfaces are still read.
func TestUnknownLinkTypeOfOneInterface(t *testing.T) {
	w := &ngWriter{order: binary.LittleEndian}
	w.section()
	w.iface(1, 0)
	w.iface(127, 0, w.option(2, []byte("wlan0")))
	p := samples(1)[0]
	w.enhanced(0, 1, p)
	w.enhanced(1, 2, p)
	w.enhanced(0, 3, p)
	r, err := NewReader("f", bytes.NewReader(w.b), Options{})
	if err != nil {
		t.Fatal(err)
	}
	var pkt Packet
	var link *LinkTypeError
	if err := r.Next(&pkt); err != nil {
		t.Error(err)
	}
	if err := r.Next(&pkt); !errors.As(err, &link) || link.Interface != "wlan0" || link.Type != 127 {
		t.Errorf("second packet: %v", err)
	}
	if err := r.Next(&pkt); err != nil || pkt.Number != 3 || pkt.TimeNS != 3000 {
		t.Errorf("third packet: number %d time %d error %v", pkt.Number, pkt.TimeNS, err)
	}
}

func TestSectionsSimpleAndOldBlocks(t *testing.T) {
	p := samples(1)[0]
	w := &ngWriter{order: binary.LittleEndian}
	w.section()
	w.iface(1, 64)
	long := bytes.Repeat([]byte{7}, 64)
	w.block(blockSimple, w.u32s(1500), long) // cut to the snap length
	w.block(blockPacket, append(w.order.AppendUint16(w.order.AppendUint16(nil, 0), 77), w.u32s(0, 5, 60, 60)...), p.data[:60])
	w.order = binary.BigEndian // the next section may be of another machine
	w.section()
	w.iface(101, 0, w.option(9, []byte{0x80 | 10}), w.option(14, binary.BigEndian.AppendUint64(nil, 100)))
	w.enhanced(0, 3*1024+512, sample{data: p.data[14:]})
	have, r, err := readAll(w.b, Options{})
	if err != nil {
		t.Fatal(err)
	}
	frame := append(make([]byte, 12), 0x08, 0x00) // the data begins with an IPv4 header's first byte
	want := []got{
		{1, 0, string(long), 1500, 0},
		{2, 5000, string(p.data[:60]), 60, 0},
		{3, 103_500_000_000, string(append(frame, p.data[14:]...)), 60, 1},
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if links := []LinkType{r.Interfaces()[0].Link, r.Interfaces()[1].Link}; links[0] != LinkEthernet || links[1] != LinkRaw {
		t.Errorf("interfaces %v", links)
	}
}

func TestKeepBytesAndRoom(t *testing.T) {
	file, _ := writeClassic(binary.LittleEndian, true, 1, samples(3))
	r, err := NewReader("f", bytes.NewReader(file), Options{KeepBytes: 20})
	if err != nil {
		t.Fatal(err)
	}
	var p Packet
	for _, s := range samples(3) {
		if err := r.Next(&p); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p.Data, s.data[:20]) || p.WireLen != int(s.wireLen()) {
			t.Errorf("data %x wire %d, want %x %d", p.Data, p.WireLen, s.data[:20], s.wireLen())
		}
		b := p.WithRoom(Room)
		copy(b, bytes.Repeat([]byte{0xaa}, Room))
		if len(b) != Room+20 || !bytes.Equal(b[Room:], s.data[:20]) {
			t.Errorf("with room: %x", b)
		}
		if !p.Time().Equal(time.Unix(0, s.ns)) {
			t.Errorf("time %v", p.Time())
		}
	}
}

// TestAgainstPcapgo holds the reader against an independent one.
func TestAgainstPcapgo(t *testing.T) {
	packets := samples(50)
	classic, _ := writeClassic(binary.BigEndian, false, 1, packets)
	ng, _ := writeNG(binary.LittleEndian, packets)
	for name, file := range map[string][]byte{"pcap": classic, "pcapng": ng} {
		var src gopacket.PacketDataSource
		var err error
		if name == "pcap" {
			src, err = pcapgo.NewReader(bytes.NewReader(file))
		} else {
			src, err = pcapgo.NewNgReader(bytes.NewReader(file), pcapgo.DefaultNgReaderOptions)
		}
		if err != nil {
			t.Fatal(err)
		}
		var want []got
		for {
			data, ci, err := src.ReadPacketData()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, got{uint64(len(want) + 1), ci.Timestamp.UnixNano(), string(data), ci.Length, ci.InterfaceIndex})
		}
		have, _, err := readAll(file, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, have); diff != "" || len(want) != 50 {
			t.Errorf("%s: %d packets (-pcapgo +ours):\n%s", name, len(want), diff)
		}
	}
}

func FuzzRead(f *testing.F) {
	packets := samples(3)
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		for _, link := range []uint32{0, 1, 12, 101, 108, 113, 228, 276} {
			file, _ := writeClassic(order, false, link, packets)
			f.Add(file)
		}
		ng, _ := writeNG(order, packets)
		f.Add(ng)
		f.Add(gzipped(f, ng))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		have, _, err := readAll(file, Options{KeepBytes: 256})
		for _, p := range have {
			if p.WireLen < len(p.Data) || len(p.Data) > 256+20 {
				t.Errorf("packet of %d bytes with %d", p.WireLen, len(p.Data))
			}
		}
		var format *FormatError
		var damage *DamageError
		var link *LinkTypeError
		if err != nil && !errors.As(err, &format) && !errors.As(err, &damage) && !errors.As(err, &link) {
			t.Errorf("untyped error %v", err)
		}
	})
}
