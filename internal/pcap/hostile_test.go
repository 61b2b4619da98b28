// SPDX-License-Identifier: Apache-2.0

package pcap

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
)

// description is an interface description block with a name of that many bytes.
func description(name int) []byte {
	length := uint32(20 + 4 + name)
	b := binary.LittleEndian.AppendUint32(nil, 1)
	b = binary.LittleEndian.AppendUint32(b, length)
	b = append(b, 1, 0, 0, 0, 0, 0, 0, 0) // Ethernet, no limit
	b = binary.LittleEndian.AppendUint16(b, 2)
	b = binary.LittleEndian.AppendUint16(b, uint16(name))
	b = append(b, bytes.Repeat([]byte("n"), name)...)
	return binary.LittleEndian.AppendUint32(b, length)
}

// TestBombs: files that are small because they are packed, and stand for much, are read to where they are wrong, in memory
// that does not grow with them.
func TestBombs(t *testing.T) {
	const megabyte = 1 << 20
	section, _ := writeNG(binary.LittleEndian, nil)
	classic, _ := writeClassic(binary.LittleEndian, false, 1, nil)
	binary.LittleEndian.PutUint32(classic[16:], 0xffffffff) // its snap length
	block := func(typ uint32, body int) []byte {
		b := binary.LittleEndian.AppendUint32(nil, typ)
		b = binary.LittleEndian.AppendUint32(b, uint32(body+12))
		b = append(b, make([]byte, body)...)
		return binary.LittleEndian.AppendUint32(b, uint32(body+12))
	}
	packet := binary.LittleEndian.AppendUint32(make([]byte, 8), 100*megabyte)
	packet = binary.LittleEndian.AppendUint32(packet, 100*megabyte)
	for _, row := range []struct {
		name  string
		head  []byte
		part  []byte
		times int
		says  string // "": it is no error
	}{
		{"one packet of 100 MB", append(classic, packet...), make([]byte, megabyte), 100, ""},
		{"packets without content", classic, make([]byte, 16*1000), 10_000, ""},
		{"a block that nobody knows", section, block(0x0bad, 64*megabyte), 4, ""},
		{"interfaces with long names", section, description(30_000), 4096, ""},
		{"more interfaces than there can be", section, bytes.Repeat(description(4), 1000), 70, "more than 65536 interfaces"},
		{"a packet that says more than its file has", append(classic, packet...), make([]byte, 1000), 1, "ends within a record"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var file bytes.Buffer
			z := gzip.NewWriter(&file)
			for i := range row.times + 1 {
				b := row.part
				if i == 0 {
					b = row.head
				}
				if _, err := z.Write(b); err != nil {
					t.Fatal(err)
				}
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r, err := NewReader("bomb", bytes.NewReader(file.Bytes()), Options{KeepBytes: 256})
			for p := new(Packet); err == nil; {
				err = r.Next(p)
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			var damage *DamageError
			switch {
			case row.says == "" && err != io.EOF:
				t.Errorf("ends with %v", err)
			case row.says != "" && (!errors.As(err, &damage) || !strings.Contains(err.Error(), row.says)):
				t.Errorf("ends with %v, want %q", err, row.says)
			}
			if n := int64(after.HeapAlloc) - int64(before.HeapAlloc); n > 8*megabyte {
				t.Errorf("%d bytes are held for a file of %d", n, file.Len())
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 16*megabyte && row.part[0] != 1 { // names are made and cut
				t.Errorf("%d bytes were allocated for a file of %d", n, file.Len())
			}
			runtime.KeepAlive(r)
		})
	}
}

// TestNamesSteerNoTerminal: names of interfaces come from whoever made the file.
func TestNamesSteerNoTerminal(t *testing.T) {
	w := &ngWriter{order: binary.LittleEndian}
	w.section()
	w.iface(1, 0, w.option(2, []byte("eth0\x1b[2J\u009b2J\u202e\x7f\xff\u00e9")))
	_, r, err := readAll(w.b, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := r.Interfaces()[0].Name, "eth0?[2J?2J??\ufffd\u00e9"; got != want {
		t.Errorf("name %q, want %q", got, want)
	}
}
