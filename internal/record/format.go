// SPDX-License-Identifier: Apache-2.0

package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/reader"
)

// Major and Minor are the version of the format. A reader refuses another major version; a higher minor one
// may hold records and fields that it passes over.
const (
	Major = 1
	Minor = 0
)

// A recording begins with a skippable frame (RFC 8878 section 3.1.2), so that it is a Zstandard file as a
// whole, and its first bytes still say what it is.
const (
	skippable    = 0x184D2A58
	preambleText = "xfrmscope recording %d.%d\n"
	preambleMax  = 256
)

const (
	frameRaw  = 1 << 20   // bytes of records that a frame holds at most
	recordMax = 512 << 20 // bytes of the longest record: the first snapshot of some hundred thousand SAs
)

// Header says where a recording comes from. Start and duration are those of its snapshots.
type Header struct {
	Xfrmscope string        `json:"xfrmscope"` // version that recorded
	Schema    string        `json:"schema"`    // of its reports
	Source    ledger.Source `json:"source"`    // kind: what was observed, live or a capture
	IntervalS float64       `json:"interval_s,omitempty"`
	Boot      string        `json:"boot,omitempty"`       // /proc/sys/kernel/random/boot_id: whose clocks are the same
	Devices   []string      `json:"interfaces,omitempty"` // observed
}

// Why a recording ended.
const (
	EndTime        = "time"        // --for has passed
	EndInterrupted = "interrupted" // SIGINT or SIGTERM
	EndFull        = "max-size"
	EndError       = "error"
)

// End is the last record of a recording that ended properly.
type End struct {
	At            time.Time `json:"at"`
	Why           string    `json:"why"`
	Snapshots     int       `json:"snapshots"`
	Events        int       `json:"events"`
	EventsLeftOut int       `json:"events_left_out"` // beyond the limit of events of a kind a second
}

// Record is one entry of a recording. Exactly one of the pointers is set.
type Record struct {
	Snapshot *ledger.Snapshot // shares no memory with what comes later
	Event    *reader.Event
	End      *End
	Hooks    []ledger.Hook // as of the snapshot
}

// DamageError says that a recording could be read up to a place and no further.
type DamageError struct {
	Offset int64 // bytes of the file that were good
	Cut    bool  // the file ends there, as after a crash or with a full disk
	Err    error
}

func (e *DamageError) Error() string {
	what := "damaged"
	if e.Cut {
		what = "cut off"
	}
	return fmt.Sprintf("the recording is %s after byte %d: %v", what, e.Offset, e.Err)
}

func (e *DamageError) Unwrap() error { return e.Err }

// preamble is how every recording begins.
func preamble() []byte {
	text := fmt.Sprintf(preambleText, Major, Minor)
	b := binary.LittleEndian.AppendUint32(nil, skippable)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(text)))
	return append(b, text...)
}

// ErrNotRecording says that a file is something else.
var ErrNotRecording = errors.New("not a recording of xfrmscope: 'xfrmscope record' makes them")

// readPreamble checks what a file is and whether it can be read, and returns how long the preamble is.
func readPreamble(r io.Reader) (int64, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, notRecording(err)
	}
	n := binary.LittleEndian.Uint32(head[4:])
	if binary.LittleEndian.Uint32(head[:]) != skippable || n > preambleMax {
		return 0, ErrNotRecording
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return 0, notRecording(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(text), preambleText, &major, &minor); err != nil || !strings.HasSuffix(string(text), "\n") {
		return 0, ErrNotRecording
	}
	if major != Major {
		return 0, fmt.Errorf("the recording has format %d.%d, this xfrmscope (%d.%d) reads only %d.x: use the version that recorded it",
			major, minor, Major, Minor, Major)
	}
	return int64(len(head)) + int64(n), nil
}

// notRecording keeps a failing disk from being taken for a file of another kind.
func notRecording(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrNotRecording
	}
	return fmt.Errorf("read recording: %w", err)
}

// readFrame reads one Zstandard frame (RFC 8878 section 3.1.1) whole. It returns io.EOF before the first byte
// of one, io.ErrUnexpectedEOF within.
func readFrame(r io.Reader, b []byte) ([]byte, error) {
	b = b[:0]
	take := func(n int) ([]byte, error) {
		begin := len(b)
		b = append(b, make([]byte, n)...)
		_, err := io.ReadFull(r, b[begin:])
		if err == io.EOF && begin > 0 {
			err = io.ErrUnexpectedEOF
		}
		return b[begin:], err
	}
	magic, err := take(4)
	if err != nil {
		return b, err
	}
	if binary.LittleEndian.Uint32(magic) != 0xFD2FB528 {
		return b, errors.New("no frame begins here")
	}
	desc, err := take(1)
	if err != nil {
		return b, err
	}
	// Frame_Header_Descriptor: size of the content's size, single segment, checksum, size of the dictionary's ID.
	d := desc[0]
	single, sum := d>>5&1 == 1, d>>2&1 == 1
	size := []int{0, 2, 4, 8}[d>>6] + []int{0, 1, 2, 4}[d&3]
	if single && d>>6 == 0 || !single {
		size++ // a size of one byte, or the window's descriptor
	}
	if _, err := take(size); err != nil {
		return b, err
	}
	for last := false; !last; {
		h, err := take(3)
		if err != nil {
			return b, err
		}
		block := uint32(h[0]) | uint32(h[1])<<8 | uint32(h[2])<<16
		last = block&1 == 1
		n := int(block >> 3)
		if block>>1&3 == 1 {
			n = 1 // one byte, repeated
		}
		if len(b)+n > 2*frameRaw+1024 {
			return b, errors.New("a frame is longer than any that xfrmscope writes")
		}
		if _, err := take(n); err != nil {
			return b, err
		}
	}
	if sum {
		_, err = take(4)
	}
	return b, err
}

// compressor and decompressor do without goroutines of their own.
func compressor() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true), zstd.WithWindowSize(frameRaw))
}

func decompressor() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(2*frameRaw),
		zstd.WithDecodeAllCapLimit(false))
}
