// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"bytes"
	bits "encoding/binary"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gopacket/gopacket/pcapgo"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/traffic"
	"xfrmscope/internal/lab/tunnel"
)

// copied is one packet of a capture file, as another library reads it.
type copied struct {
	iface   string
	id      uint64
	flags   pcapgo.NgEpbFlag
	comment string
	data    []byte
	wire    int
}

// readCopies reads a capture file.
func readCopies(t *testing.T, path string) (packets []copied, stats map[string]pcapgo.NgInterfaceStatistics) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewNgReader(f, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	for {
		data, ci, o, err := r.ReadPacketDataWithOptions()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		in, err := r.Interface(ci.InterfaceIndex)
		if err != nil {
			t.Fatal(err)
		}
		c := copied{iface: in.Name, data: bytes.Clone(data), wire: ci.Length, comment: strings.Join(o.Comments, "; ")}
		if o.PacketID != nil {
			c.id = *o.PacketID
		}
		if o.Flags != nil {
			c.flags = o.Flags.Direction
		}
		packets = append(packets, c)
	}
	stats = map[string]pcapgo.NgInterfaceStatistics{}
	for i := range r.NInterfaces() {
		in, err := r.Interface(i)
		if err != nil {
			t.Fatal(err)
		}
		stats[in.Name] = in.Statistics
	}
	return packets, stats
}

// espSPI is that of an ESP packet, in UDP or not, in an Ethernet frame over IPv4.
func espSPI(t *testing.T, frame []byte) uint32 {
	t.Helper()
	at := 34
	if len(frame) > at && frame[23] == 17 {
		at += 8
	} else if len(frame) <= at || frame[23] != 50 {
		t.Fatalf("no ESP packet: % x", frame)
	}
	return bits.BigEndian.Uint32(frame[at:])
}

// TestCapture: every packet is in the file as often as it passed a vantage point, outer and inner packet of one
// datagram carry one id, and what was dropped has the cause that was injected.
func TestCapture(t *testing.T) {
	tunnel.Need(t)
	t.Run("tunnel mode", func(t *testing.T) { captureRun(t, tunnel.Options{Hosts: true}) })
	t.Run("transport mode in UDP", func(t *testing.T) { captureRun(t, tunnel.Options{Mode: tunnel.TransportMode, UDP: true}) })
}

func captureRun(t *testing.T, o tunnel.Options) {
	rules := slices.Clone(mixed.rules)
	for i := range rules {
		rules[i].SPI = tunnel.FirstSPIAtoB
	}
	b := raise(t, o, func(u *tunnel.Tunnel) error {
		if !o.Hosts {
			return nil
		}
		// The host behind B may send several segments as one packet, which B forwards and encrypts as such.
		return errors.Join(u.B.Host.Do(func() error { return tunnel.OffloadsOn(tunnel.LAN) }), u.B.Do(func() error { return tunnel.OffloadsOn(tunnel.LAN) }))
	}, rules)
	file := filepath.Join(t.TempDir(), "all.pcapng")
	b.tool = launch(t, b.tunnel.B, "capture", "-w", file, "--no-inner")
	out, in := b.tunnel.BtoA[0], b.tunnel.AtoB[0]
	const sent = 100
	b.send(in, packets)
	b.send(out, sent)
	if o.Hosts {
		b.must(traffic.Stream(b.ends(b.tunnel.B, b.tunnel.A, 5001), 128<<10))
	}
	b.settle()
	if exit := b.tool.end(t); exit != 0 {
		t.Fatalf("exit %d\n%s", exit, b.tool.stderr.Bytes())
	}
	b.checkLink()

	dropped := 0
	for _, n := range mixed.faults.causes {
		dropped += int(n)
	}
	arrived := b.path.Truth(inject.AtoB, in.SPI).Wire().Packets
	left := len(b.path.Truth(inject.BtoA, out.SPI).In)
	want := map[string]int{
		tunnel.WAN + " wire-in": arrived, "xfrmscope decrypted": arrived - dropped, "xfrmscope drop": dropped,
		"xfrmscope before-encryption": left, tunnel.WAN + " wire-out": left,
	}
	list, stats := readCopies(t, file)
	got, causes, outer := map[string]int{}, map[string]int64{}, map[uint64]bool{}
	for _, c := range list {
		if c.iface == "xfrmscope drop" && c.flags == pcapgo.NgEpbFlagDirectionOutbound {
			// The stream begins with packets that do not fit into the tunnel, and learns its MTU from them.
			if !o.Hosts || !strings.Contains(c.comment, "dropped: forward at ip_forward") {
				t.Errorf("sent packet dropped: %s", c.comment)
			}
			continue
		}
		got[c.iface]++
		if strings.HasPrefix(c.iface, tunnel.WAN) {
			if spi := espSPI(t, c.data); spi != in.SPI && spi != out.SPI {
				t.Errorf("%s: SPI 0x%x", c.iface, spi)
			}
			outer[c.id] = true
		}
	}
	supers := 0
	for _, c := range list {
		if strings.Contains(c.comment, "super-packet of") {
			supers++
		}
	}
	if o.Hosts {
		// Fewer go in than come out.
		const plain = "xfrmscope before-encryption"
		if n := got[plain]; n < sent || n >= left || supers == 0 {
			t.Errorf("%d packets before encryption became %d, %d of them super-packets", n, left, supers)
		}
		want[plain] = got[plain]
	}
	if !maps.Equal(got, want) {
		t.Errorf("packets by interface: %v, want %v", got, want)
	}
	linked, inner := map[string]int{}, map[uint64]bool{}
	for _, c := range list {
		if c.iface == "xfrmscope drop" && c.flags == pcapgo.NgEpbFlagDirectionOutbound {
			continue
		}
		_, ok := outer[c.id]
		if c.iface != tunnel.WAN+" wire-in" && c.iface != tunnel.WAN+" wire-out" && ok {
			linked[c.iface]++
			inner[c.id] = true
		}
		if c.iface == "xfrmscope drop" {
			_, why, _ := strings.Cut(c.comment, "dropped: xfrm, ")
			why, _, _ = strings.Cut(why, " ")
			causes[why]++
		}
		if c.iface == "xfrmscope decrypted" || c.iface == "xfrmscope before-encryption" {
			// The sender writes the packet's number, from 1, into the datagram's first bytes; those are
			// payload and must not be here.
			if c.data[9] == 17 && len(c.data) != 28 || c.data[9] == 6 && len(c.data) > 20+60 {
				t.Errorf("%s: %d bytes of protocol %d, want headers alone", c.iface, len(c.data), c.data[9])
			}
			if total := int(bits.BigEndian.Uint16(c.data[2:])); total != c.wire {
				t.Errorf("%s: %d bytes by its header, %d by the file", c.iface, total, c.wire)
			}
		}
	}
	for _, name := range []string{"xfrmscope decrypted", "xfrmscope before-encryption", "xfrmscope drop"} {
		if linked[name] != want[name] {
			t.Errorf("%s: %d of %d packets are linked to one on the wire", name, linked[name], want[name])
		}
	}
	for id := range outer {
		if !inner[id] {
			t.Errorf("packet id %d is on the wire alone", id)
		}
	}
	if !maps.Equal(causes, mixed.faults.causes) {
		t.Errorf("causes %v, want %v", causes, mixed.faults.causes)
	}
	for name, n := range want {
		// The hook at drops also meets what the kernel frees for other reasons.
		if s := stats[name]; s.PacketsReceived != uint64(n) && name != "xfrmscope drop" {
			t.Errorf("%s: the statistics say %d packets received, want %d", name, s.PacketsReceived, n)
		}
	}
	if t.Failed() {
		for i, c := range list {
			if i < 10 || c.iface == "xfrmscope drop" {
				t.Logf("%d %s id %d: %s", i+1, c.iface, c.id, c.comment)
			}
		}
	}
}
