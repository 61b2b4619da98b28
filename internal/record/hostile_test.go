// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/record"
)

// bomb is a recording with a good header and these records, packed into frames of the size that xfrmscope writes.
func bomb(t *testing.T, records ...string) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil, zstd.WithWindowSize(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	whole := write(t, record.Options{})
	// Without its end record, which is the last frame.
	b := whole[:bytes.LastIndex(whole, []byte{0x28, 0xb5, 0x2f, 0xfd})]
	for _, text := range records {
		for rest := []byte(text + "\n"); len(rest) > 0; {
			n := min(len(rest), 1<<20)
			b = z.EncodeAll(rest[:n], b)
			rest = rest[n:]
		}
	}
	return b
}

// spaces makes a record long, and costs nothing.
func spaces(megabytes int) string { return strings.Repeat(" ", megabytes<<20) }

// TestBombs: a small file that stands for much memory is refused with a reason before it gets that.
func TestBombs(t *testing.T) {
	const room, allowed = 64 << 20, 256 << 20
	defer record.SetHeldMax(room)()
	wire := func(n int) string { return fmt.Sprintf(`{"snapshot":{"Wire":[%d,{}]}}%s`, n, spaces(1)) }
	grow := func(step int) (out []string) {
		for i := range 64 {
			out = append(out, wire((i+1)*step))
		}
		return out
	}
	var entries strings.Builder
	for i := range 1 << 21 {
		fmt.Fprintf(&entries, `,"%x":1`, i)
	}
	for _, c := range []struct {
		name    string
		records []string
		want    string
	}{
		{"a list longer than its record", []string{`{"snapshot":{"Wire":[900000,{}]}}`}, "a list of 900000 elements"},
		{"a long record that makes a long list", []string{wire(400_000)}, "a list of 400000 elements"},
		{"a list that grows from record to record", grow(20_000), "a list of"},
		{"a list of less than nothing", []string{`{"snapshot":{"Wire":[-1,{}]}}`}, "a list of -1 elements"},
		{"a list of more than there can be", []string{`{"snapshot":{"Wire":[9223372036854775807,{}]}}`}, "a list of"},
		{"a map of many entries", []string{`{"snapshot":{"XfrmStat":[{` + entries.String()[1:] + `}]}}`}, "more entries"},
		{"a header of many devices", []string{`{"header":{"interfaces":[""` + strings.Repeat(`,""`, 1<<20) + `]}}`}, "at most 1048576"},
		{"hooks by the million", []string{`{"hooks":[{}` + strings.Repeat(`,{}`, 1<<20) + `]}`}, "at most 1048576"},
		{"an event with a long stack", []string{`{"event":{"kind":"gap","stack":[""` + strings.Repeat(`,""`, 1<<20) + `]}}`}, "at most 1048576"},
		{"deep nesting", []string{`{"snapshot":{"Later":` + strings.Repeat("[", 1<<20) + `}}`}, "nested too deeply"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := bomb(t, c.records...)
			if len(file) > 8<<20 {
				t.Errorf("the file has %d bytes: that is no bomb", len(file))
			}
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := read(t, file)
			runtime.ReadMemStats(&after)
			var damage *record.DamageError
			if !errors.As(err, &damage) || damage.Cut || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
			// All that was ever asked for, whether or not it was given back.
			if n := after.TotalAlloc - before.TotalAlloc; n > allowed && c.name != "a list that grows from record to record" {
				t.Errorf("%d bytes were allocated for a file of %d", n, len(file))
			}
			if n := int64(after.HeapAlloc) - int64(before.HeapAlloc); n > allowed {
				t.Errorf("%d bytes are held for a file of %d", n, len(file))
			}
		})
	}
}

// TestRecordWithoutEnd: records have a largest size, which a reader does not go beyond.
func TestRecordWithoutEnd(t *testing.T) {
	z, err := zstd.NewWriter(nil, zstd.WithWindowSize(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	frame := z.EncodeAll([]byte(spaces(1)), nil)
	whole := write(t, record.Options{})
	head := whole[:bytes.LastIndex(whole, []byte{0x28, 0xb5, 0x2f, 0xfd})]
	read := int64(0)
	r, err := record.NewReader(io.MultiReader(bytes.NewReader(head), endless{frame, &read}))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Next(); err == nil || !strings.Contains(err.Error(), "a record is longer than") {
		t.Errorf("error %v", err)
	}
	if read > 1<<20 {
		t.Errorf("%d bytes were read", read)
	}
}

// endless repeats a frame.
type endless struct {
	frame []byte
	read  *int64
}

func (e endless) Read(b []byte) (n int, err error) {
	for n < len(b) {
		n += copy(b[n:], e.frame[int(*e.read+int64(n))%len(e.frame):])
	}
	*e.read += int64(n)
	return n, nil
}

// TestFrameThatUnpacksToMore: a frame has a largest size, unpacked as well.
func TestFrameThatUnpacksToMore(t *testing.T) {
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	whole := write(t, record.Options{})
	head := whole[:bytes.LastIndex(whole, []byte{0x28, 0xb5, 0x2f, 0xfd})]
	file := z.EncodeAll([]byte(spaces(64)), bytes.Clone(head))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = read(t, file)
	runtime.ReadMemStats(&after)
	var damage *record.DamageError
	if !errors.As(err, &damage) {
		t.Errorf("a frame of %d bytes that are 64 MB: %v", len(file)-len(head), err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
}

// TestChurnIsNoBomb: a snapshot that stays small may have been many others before.
func TestChurnIsNoBomb(t *testing.T) {
	defer record.SetHeldMax(8 << 20)()
	rows := []ledger.Snapshot{}
	for i := range 400 {
		s := ledger.Snapshot{Mono: time.Duration(i), XfrmStat: map[string]uint64{}}
		for k := range 200 {
			s.Wire = append(s.Wire, ledger.WireSA{Key: ledger.SAKey{SPI: ledger.SPI(i*200 + k)}, GapHist: make([]uint64, 16)})
			s.XfrmStat[fmt.Sprint(i, " ", k)] = 1
		}
		rows = append(rows, s)
	}
	if got, err := read(t, write(t, record.Options{}, rows...)); err != nil || len(got) != len(rows) {
		t.Errorf("%d snapshots of %d: %v", len(got), len(rows), err)
	}
}
