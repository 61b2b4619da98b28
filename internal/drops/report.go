// SPDX-License-Identifier: Apache-2.0

package drops

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"

	"xfrmscope/internal/bpfobj"
)

// Report reads what was counted: all rows, most packets first, and what they come to.
func (s *Session) Report() ([]Row, Total, error) {
	t := Total{Type: KindTotal, Reasons: map[string]uint64{}, Notes: s.Notes()}
	end := s.ended
	if end.IsZero() {
		end = time.Now()
	}
	t.Seconds = end.Sub(s.began).Seconds()
	var err error
	if t.Lost, err = s.lost(); err != nil {
		return nil, t, err
	}
	rows, err := s.rows()
	if err != nil {
		return nil, t, err
	}
	for i := range rows {
		t.Packets += rows[i].Packets
		if rows[i].Reason != "" {
			t.Reasons[rows[i].Reason] += rows[i].Packets
		}
	}
	t.Packets += t.Lost["table_full"]
	t.Rows = len(rows)
	// A row may have been made this moment and have nothing counted in it yet.
	for i := range rows {
		rows[i].Share = 100 * float64(rows[i].Packets) / float64(max(t.Packets, 1))
	}
	t.Shown = len(rows)
	return rows, t, nil
}

// Top keeps the first n rows; 0 keeps all.
func Top(rows []Row, t *Total, n int) []Row {
	if n <= 0 || n >= len(rows) {
		return rows
	}
	for _, r := range rows[n:] {
		t.NotShown += r.Packets
	}
	t.Shown = n
	return rows[:n]
}

func (s *Session) rows() ([]Row, error) {
	var rows []Row
	for _, name := range []string{"drops", "drops_folded"} {
		var key bpfobj.DropsKey
		var perCPU []bpfobj.DropsCount
		it := s.maps[name].Iterate()
		for it.Next(&key, &perCPU) {
			rows = append(rows, s.row(&key, perCPU))
		}
		if err := it.Err(); err != nil {
			return nil, fmt.Errorf("read table %s: %w", name, err)
		}
	}
	slices.SortFunc(rows, func(a, b Row) int {
		return cmp.Or(cmp.Compare(b.Packets, a.Packets), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Location, b.Location),
			cmp.Compare(a.Interface, b.Interface), cmp.Compare(a.Protocol, b.Protocol))
	})
	return rows, nil
}

func (s *Session) row(key *bpfobj.DropsKey, perCPU []bpfobj.DropsCount) Row {
	r := Row{Type: KindRow}
	var first *bpfobj.DropsCount
	for i := range perCPU {
		c := &perCPU[i]
		r.Packets += c.Packets
		r.Bytes += c.Bytes
		if c.Packets > 0 && (first == nil || c.Example.TimeNs < first.Example.TimeNs) {
			first = c
		}
	}
	ip := false
	if first != nil {
		e := &first.Example
		ip = e.Family != 0
		r.Example = packet(e.Src, e.Dst, e.Sport, e.Dport, e.Length, ip, key.Proto)
	}
	r.What = s.what(key, ip)
	return r
}

// lost reads what the program could not do, by cause.
func (s *Session) lost() (map[string]uint64, error) {
	spec, err := bpfobj.LoadDrops()
	if err != nil {
		return nil, err
	}
	causes, err := bpfobj.EnumNames(spec, "drops_lost")
	if err != nil {
		return nil, err
	}
	out := map[string]uint64{}
	for i, cause := range causes {
		var perCPU []uint64
		if err := s.maps["drops_lost"].Lookup(uint32(i), &perCPU); err != nil {
			return nil, fmt.Errorf("read drops_lost: %w", err)
		}
		for _, n := range perCPU {
			if n > 0 {
				out[cause] += n
			}
		}
	}
	return out, nil
}

// Follow hands every live record to fn until the context ends, and then, detached, what is still in the
// ring. An error of fn ends it at once.
func (s *Session) Follow(ctx context.Context, fn func(Drop) error) (err error) {
	rd, err := ringbuf.NewReader(s.maps["drops_ring"])
	if err != nil {
		return fmt.Errorf("open ring of drops: %w", err)
	}
	defer func() { err = errors.Join(err, rd.Close()) }()
	var detached error
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		detached = s.Detach()
		// Wakes a blocked read, and ends it once the ring is empty.
		if err := rd.Flush(); err != nil && !errors.Is(err, ringbuf.ErrClosed) {
			detached = errors.Join(detached, fmt.Errorf("flush ring of drops: %w", err))
		}
	})
	err = s.drain(rd, fn)
	if !stop() {
		<-done
		err = errors.Join(err, detached)
	}
	return err
}

func (s *Session) drain(rd *ringbuf.Reader, fn func(Drop) error) error {
	var rec ringbuf.Record
	for {
		switch err := rd.ReadInto(&rec); {
		case errors.Is(err, ringbuf.ErrFlushed), errors.Is(err, ringbuf.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("read ring of drops: %w", err)
		}
		d, err := s.decode(rec.RawSample)
		if err != nil {
			return err
		}
		if err := fn(d); err != nil {
			return err
		}
	}
}

func (s *Session) decode(b []byte) (Drop, error) {
	var raw bpfobj.DropsRecord
	size := int(unsafe.Sizeof(raw))
	if len(b) < size {
		return Drop{}, fmt.Errorf("decode drop: %d bytes, want %d: the object and the Go side are of different builds", len(b), size)
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&raw)), size), b)
	p := &raw.Packet
	ip := p.Family != 0
	return Drop{
		Type: KindDrop, Time: s.wall.Add(time.Duration(p.TimeNs)).Round(0), MonoNS: p.TimeNs, CPU: raw.CPU, Packets: raw.Packets,
		What:   s.what(&raw.Key, ip),
		Packet: packet(p.Src, p.Dst, p.Sport, p.Dport, p.Length, ip, raw.Key.Proto),
	}, nil
}
