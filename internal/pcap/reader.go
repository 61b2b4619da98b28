// SPDX-License-Identifier: Apache-2.0

package pcap

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// Room is how many bytes in front of each frame a caller may write to, see Packet.WithRoom.
const Room = 16

const (
	headroom   = Room + etherHeader
	bufferSize = 64 << 10
	// maxPacket is the longest packet that is taken for one, as in libpcap (MAXIMUM_SNAPLEN), unless
	// the file announces longer ones.
	maxPacket = 256 << 10
	// maxAnnounced is the longest that is believed.
	maxAnnounced = 128 << 20
)

// Packet is one packet of a capture. Its bytes are valid until the next call of Next.
type Packet struct {
	Number    uint64 // from 1, in the file, as Wireshark counts
	TimeNS    int64  // since 1970; 0: the file does not tell (pcapng simple packet block)
	Data      []byte // Ethernet frame, cut to Options.KeepBytes
	WireLen   int    // length of the frame on the wire, which the capture may have cut
	Interface int    // index into Interfaces

	buf   []byte
	start int
}

// Time is when the packet was captured; the zero time where the file does not tell.
func (p *Packet) Time() time.Time {
	if p.TimeNS == 0 {
		return time.Time{}
	}
	return time.Unix(0, p.TimeNS)
}

// WithRoom returns the frame with n <= Room writable bytes in front.
func (p *Packet) WithRoom(n int) []byte { return p.buf[p.start-n:] }

// Interface is where packets of a capture come from. A classic pcap file has one.
type Interface struct {
	Name    string
	Link    LinkType
	Snaplen uint32 // 0: no limit

	clock clock
}

// Options for Open and NewReader.
type Options struct {
	// KeepBytes is how many bytes of each frame are wanted at most; 0 means all.
	KeepBytes int
}

// Reader reads one capture. It is for one goroutine, but for Consumed.
type Reader struct {
	name       string
	file       io.Closer
	size       int64
	consumed   *counter
	compressed bool
	r          *bufio.Reader
	keep       int

	format     format
	interfaces []Interface
	packets    uint64
	offset     int64 // of the next record
	buf        []byte
	err        error // what every further Next returns
}

// format reads the next packet's record. It leaves the packet's bytes in r.buf[headroom:].
type format interface {
	next(r *Reader, p *Packet) error
}

// Open opens a capture file. The error is a *FormatError, *DamageError or *LinkTypeError where the
// content is the trouble.
func Open(path string, opts Options) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open capture: %w", err)
	}
	r, err := NewReader(filepath.Base(path), f, opts)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	r.file = f
	// The size serves progress only; a pipe has none.
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		r.size = info.Size()
	}
	return r, nil
}

// NewReader reads a capture from src and calls it name in errors.
func NewReader(name string, src io.Reader, opts Options) (*Reader, error) {
	r := &Reader{name: name, consumed: &counter{r: src}, keep: opts.KeepBytes}
	if r.keep <= 0 {
		r.keep = maxAnnounced
	}
	r.r = bufio.NewReaderSize(r.consumed, bufferSize)
	if magic, err := r.r.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(r.r)
		if err != nil {
			return nil, r.damage(fmt.Errorf("gzip: %w", noEOF(err)))
		}
		r.compressed = true
		r.r = bufio.NewReaderSize(z, bufferSize)
	}
	head, err := r.r.Peek(4)
	switch {
	case len(head) == 0 && err == io.EOF:
		return nil, &FormatError{name, "the file is empty"}
	case err != nil:
		return nil, r.damage(noEOF(err))
	}
	if binary.BigEndian.Uint32(head) == blockSection {
		r.format, err = newNG(r)
	} else {
		r.format, err = newClassic(r)
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Next reads the next packet into p. It returns io.EOF at the end, a *DamageError where the file is
// damaged, after which nothing follows, and a *LinkTypeError for a packet of a link type that is not
// understood, after which other packets may follow.
func (r *Reader) Next(p *Packet) error {
	if r.err != nil {
		return r.err
	}
	if err := r.format.next(r, p); err != nil {
		if err == io.EOF {
			r.err = io.EOF
		} else {
			r.err = r.damage(noEOF(err))
		}
		return r.err
	}
	r.packets++
	p.Number = r.packets
	link := r.interfaces[p.Interface].Link
	if !link.known() {
		return &LinkTypeError{r.name, r.interfaces[p.Interface].Name, link}
	}
	start := link.frame(r.buf, headroom)
	p.buf, p.start, p.Data = r.buf, start, r.buf[start:]
	p.WireLen = max(p.WireLen+link.grown(), len(p.Data))
	return nil
}

// Interfaces lists the interfaces met so far.
func (r *Reader) Interfaces() []Interface { return r.interfaces }

// Consumed is how many bytes of the file have been read so far. Any goroutine may ask.
func (r *Reader) Consumed() int64 { return r.consumed.n.Load() }

// Size is the file's size in bytes, or 0 where it has none.
func (r *Reader) Size() int64 { return r.size }

// Close closes the file, if Open opened one.
func (r *Reader) Close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// peek returns the next n bytes, which stay unread. A file that ends before them gives
// io.ErrUnexpectedEOF, one that ends here io.EOF.
func (r *Reader) peek(n int) ([]byte, error) {
	b, err := r.r.Peek(n)
	if err != nil && len(b) > 0 {
		err = noEOF(err)
	}
	return b, err
}

// skip passes over n bytes.
func (r *Reader) skip(n int64) error {
	for n > 0 {
		done, err := r.r.Discard(int(min(n, 1<<30)))
		if err != nil {
			return noEOF(err)
		}
		n -= int64(done)
	}
	return nil
}

// take passes over the bytes before a packet, reads the packet's n bytes into the buffer, or as many of
// them as are wanted, and passes over the rest.
func (r *Reader) take(before, n int64, link LinkType) error {
	// What a link header takes away or a synthetic one adds must not cut what is wanted.
	want := int(min(n, int64(r.keep)+int64(max(0, -link.grown()))))
	if need := headroom + want; cap(r.buf) < need {
		r.buf = make([]byte, max(need, 2048))
	}
	r.buf = r.buf[:headroom+want]
	// Most packets lie in the buffer whole.
	if all := before + n; all <= int64(r.r.Buffered()) {
		b, err := r.r.Peek(int(before) + want)
		if err != nil {
			return noEOF(err)
		}
		copy(r.buf[headroom:], b[before:])
		return r.skip(all)
	}
	if err := r.skip(before); err != nil {
		return err
	}
	if _, err := io.ReadFull(r.r, r.buf[headroom:]); err != nil {
		return noEOF(err)
	}
	return r.skip(n - int64(want))
}

// tooLong says whether a packet of n bytes is more than the interface would have captured.
func tooLong(n int64, snaplen uint32) bool {
	return n > max(maxPacket, min(int64(snaplen), maxAnnounced))
}

func (r *Reader) damage(err error) error {
	return &DamageError{Name: r.name, Offset: r.offset, Compressed: r.compressed, Packets: r.packets, Err: err}
}

// errEnds is what damage by truncation unwraps to, besides io.ErrUnexpectedEOF.
var errEnds = fmt.Errorf("the file ends within a record: %w", io.ErrUnexpectedEOF)

// noEOF makes the end of the file where it must not be an error of its own.
func noEOF(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errEnds
	}
	return err
}

// counter counts what is read from a file.
type counter struct {
	r io.Reader
	n atomic.Int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}
