// SPDX-License-Identifier: Apache-2.0

package pcap

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// insidePrefix begins the names of interfaces that are no device: points in the stack at which xfrmscope
// copied packets. What they hold was on the wire, or will be, in another form.
const insidePrefix = "xfrmscope "

// InsideName names an interface for a point in the stack.
func InsideName(point string) string { return insidePrefix + point }

// Inside says whether the interface is a point in the stack, whose packets were not on the wire as they are.
func (i Interface) Inside() bool { return strings.HasPrefix(i.Name, insidePrefix) }

// Described is an interface to be written.
type Described struct {
	Name        string
	Description string
	Filter      string
	Link        LinkType
	Snaplen     uint32 // 0: no limit
}

// Section is what a file says of itself.
type Section struct {
	Application string
	OS          string
	Comment     string
}

// Remarks are what is said of one packet beside its bytes.
type Remarks struct {
	Comment  string
	Inbound  bool
	Outbound bool
	Lost     uint64 // packets of this interface lost between the one before and this one
	ID       uint64 // equal for all forms of one packet; 0: none
}

// Statistics are an interface's sums at the end of a file (draft-ietf-opsawg-pcapng section 4.6).
type Statistics struct {
	Comment    string
	Start, End time.Time
	Received   uint64 // isb_ifrecv: met at this point
	Missed     uint64 // isb_ifdrop: dropped by the device before that
	HasMissed  bool   // the device counts them
	Accepted   uint64 // isb_filteraccept: of those met, wanted
	Dropped    uint64 // isb_osdrop: of those wanted, lost for want of room in the ring
	Written    uint64 // isb_usrdeliv: in this file
}

// Writer writes a pcapng file with nanoseconds. Nothing is sure to be in the file before Flush.
type Writer struct {
	out        *countingWriter
	ng         *pcapgo.NgWriter
	interfaces int
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// NewWriter begins a file with its interfaces, of which there is at least one.
func NewWriter(w io.Writer, s Section, interfaces []Described) (*Writer, error) {
	if len(interfaces) == 0 {
		return nil, fmt.Errorf("write capture: no interface to describe")
	}
	out := &Writer{out: &countingWriter{w: w}, interfaces: len(interfaces)}
	describe := func(d Described) pcapgo.NgInterface {
		return pcapgo.NgInterface{Name: d.Name, Description: d.Description, Filter: d.Filter,
			LinkType: layers.LinkType(d.Link), SnapLength: d.Snaplen, TimestampResolution: 9}
	}
	var err error
	out.ng, err = pcapgo.NewNgWriterInterface(out.out, describe(interfaces[0]), pcapgo.NgWriterOptions{
		SectionInfo: pcapgo.NgSectionInfo{Application: s.Application, OS: s.OS, Comment: s.Comment}})
	if err != nil {
		return nil, fmt.Errorf("begin capture: %w", err)
	}
	for _, d := range interfaces[1:] {
		if _, err := out.ng.AddInterface(describe(d)); err != nil {
			return nil, fmt.Errorf("describe interface %s: %w", d.Name, err)
		}
	}
	return out, nil
}

// Packet writes one packet; wireLen is how long it was before it was cut.
func (w *Writer) Packet(iface int, at time.Time, data []byte, wireLen int, r Remarks) error {
	var o pcapgo.NgPacketOptions
	if r.Comment != "" {
		o.Comments = []string{r.Comment}
	}
	switch {
	case r.Inbound:
		o.Flags = &pcapgo.NgEpbFlags{Direction: pcapgo.NgEpbFlagDirectionInbound}
	case r.Outbound:
		o.Flags = &pcapgo.NgEpbFlags{Direction: pcapgo.NgEpbFlagDirectionOutbound}
	}
	if r.Lost != 0 {
		o.DropCount = &r.Lost
	}
	if r.ID != 0 {
		o.PacketID = &r.ID
	}
	ci := gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(data), Length: max(wireLen, len(data)), InterfaceIndex: iface}
	if err := w.ng.WritePacketWithOptions(ci, data, o); err != nil {
		return fmt.Errorf("write packet: %w", err)
	}
	return nil
}

// Options of an interface statistics block.
const (
	optEnd         = 0
	optComment     = 1
	isbStart       = 2
	isbEnd         = 3
	isbReceived    = 4
	isbMissed      = 5
	isbAccepted    = 6
	isbDropped     = 7
	isbWritten     = 8
	blockStatistic = 5
)

// Statistics writes an interface's sums. pcapgo knows two of the five.
func (w *Writer) Statistics(iface int, s Statistics) error {
	if iface < 0 || iface >= w.interfaces {
		return fmt.Errorf("write statistics: there is no interface %d", iface)
	}
	le := binary.LittleEndian
	stamp := func(b []byte, t time.Time) []byte {
		ns := uint64(t.UnixNano())
		return le.AppendUint32(le.AppendUint32(b, uint32(ns>>32)), uint32(ns))
	}
	option := func(b []byte, code uint16, value []byte) []byte {
		b = le.AppendUint16(le.AppendUint16(b, code), uint16(len(value)))
		b = append(b, value...)
		return append(b, make([]byte, (4-len(value)%4)%4)...)
	}
	number := func(b []byte, code uint16, n uint64) []byte { return option(b, code, le.AppendUint64(nil, n)) }

	b := le.AppendUint32(nil, blockStatistic)
	b = le.AppendUint32(b, 0) // the length, below
	b = stamp(le.AppendUint32(b, uint32(iface)), s.End)
	if s.Comment != "" {
		b = option(b, optComment, []byte(s.Comment))
	}
	b = option(b, isbStart, stamp(nil, s.Start))
	b = option(b, isbEnd, stamp(nil, s.End))
	b = number(b, isbReceived, s.Received)
	if s.HasMissed {
		b = number(b, isbMissed, s.Missed)
	}
	b = number(b, isbAccepted, s.Accepted)
	b = number(b, isbDropped, s.Dropped)
	b = number(b, isbWritten, s.Written)
	b = option(b, optEnd, nil)
	length := uint32(len(b) + blockTail)
	le.PutUint32(b[4:], length)
	b = le.AppendUint32(b, length)
	// pcapgo's buffer goes first, then this block behind it.
	if err := w.Flush(); err != nil {
		return err
	}
	if _, err := w.out.Write(b); err != nil {
		return fmt.Errorf("write statistics: %w", err)
	}
	return nil
}

// Flush hands on what is buffered.
func (w *Writer) Flush() error {
	if err := w.ng.Flush(); err != nil {
		return fmt.Errorf("write capture: %w", err)
	}
	return nil
}

// Bytes is how many have been handed on so far.
func (w *Writer) Bytes() int64 { return w.out.n }
