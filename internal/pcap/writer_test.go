// SPDX-License-Identifier: Apache-2.0

package pcap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/pcapgo"
)

// What is written is read back, by this package and by another library, and the statistics by hand.
func TestWriter(t *testing.T) {
	var out bytes.Buffer
	w, err := NewWriter(&out, Section{Application: "xfrmscope test", OS: "Linux 6.1", Comment: "why"}, []Described{
		{Name: "eth0 wire-in", Description: "as they arrive", Filter: "--spi 0x1001", Link: LinkEthernet, Snaplen: 96},
		{Name: InsideName("decrypted"), Link: LinkRaw},
	})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1700000000, 123456789)
	frame := append([]byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0}, make([]byte, 31)...)
	inside := append([]byte{0x45}, make([]byte, 27)...)
	if err := errors.Join(
		w.Packet(0, at, frame, 1400, Remarks{Comment: "a verdict", Inbound: true, Lost: 3, ID: 7}),
		w.Packet(1, at.Add(time.Microsecond), inside, 28, Remarks{ID: 7}),
		w.Statistics(0, Statistics{Start: at, End: at.Add(time.Second), Received: 10, Missed: 11, HasMissed: true, Accepted: 9, Dropped: 8, Written: 1}),
		w.Statistics(1, Statistics{Start: at, End: at.Add(time.Second), Received: 5}),
		w.Flush(),
	); err != nil {
		t.Fatal(err)
	}
	if w.Bytes() != int64(out.Len()) {
		t.Errorf("%d bytes written, %d told", out.Len(), w.Bytes())
	}
	if err := w.Statistics(2, Statistics{}); err == nil {
		t.Error("statistics of an interface that is not there are written")
	}

	r, err := NewReader("x", bytes.NewReader(out.Bytes()), Options{})
	if err != nil {
		t.Fatal(err)
	}
	var p Packet
	for i, want := range []struct {
		iface, wire int
		data        []byte
		at          time.Time
	}{{0, 1400, frame, at}, {1, 28 + 14, inside, at.Add(time.Microsecond)}} {
		if err := r.Next(&p); err != nil {
			t.Fatal(err)
		}
		// A packet without a link header gets one from the reader.
		if p.Interface != want.iface || p.WireLen != want.wire || !p.Time().Equal(want.at) || !bytes.HasSuffix(p.Data, want.data) {
			t.Errorf("packet %d: interface %d, %d bytes on the wire, at %s, % x", i, p.Interface, p.WireLen, p.Time(), p.Data)
		}
	}
	if err := r.Next(&p); err != io.EOF {
		t.Errorf("after the last packet: %v", err)
	}
	if in := r.Interfaces(); in[0].Inside() || !in[1].Inside() {
		t.Errorf("interfaces %+v", in)
	}

	ng, err := pcapgo.NewNgReader(bytes.NewReader(out.Bytes()), pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	_, _, o, err := ng.ReadPacketDataWithOptions()
	if err != nil || len(o.Comments) != 1 || o.Comments[0] != "a verdict" || *o.DropCount != 3 || *o.PacketID != 7 || o.Flags.Direction != pcapgo.NgEpbFlagDirectionInbound {
		t.Errorf("options %+v, %v", o, err)
	}

	// Option 4 to 8 of the first statistics block: draft-ietf-opsawg-pcapng section 4.6.
	got := map[uint16]uint64{}
	for b := out.Bytes(); len(b) >= 12; b = b[binary.LittleEndian.Uint32(b[4:]):] {
		if binary.LittleEndian.Uint32(b) != 5 || binary.LittleEndian.Uint32(b[8:]) != 0 {
			continue
		}
		for o := b[20:]; binary.LittleEndian.Uint16(o) != 0; {
			code, size := binary.LittleEndian.Uint16(o), int(binary.LittleEndian.Uint16(o[2:]))
			if size == 8 && code >= 4 {
				got[code] = binary.LittleEndian.Uint64(o[4:])
			}
			o = o[4+(size+3)&^3:]
		}
	}
	if diff := cmp.Diff(map[uint16]uint64{4: 10, 5: 11, 6: 9, 7: 8, 8: 1}, got); diff != "" {
		t.Errorf("statistics (-want +got):\n%s", diff)
	}
}
