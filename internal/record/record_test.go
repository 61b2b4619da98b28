// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/reader"
	"xfrmscope/internal/record"
)

var exactly = cmp.Options{
	cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{}), cmpopts.EquateNaNs(),
	cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) }),
}

// write records snapshots into memory.
func write(t testing.TB, o record.Options, snaps ...ledger.Snapshot) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := record.Create(&b, record.Header{Source: ledger.Source{Kind: ledger.KindLive, Name: "gw"}}, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range snaps {
		if err := w.Snapshot(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(record.EndTime); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// read returns the snapshots of a recording and what stopped the reading: nil at a proper end.
func read(t testing.TB, b []byte) (out []ledger.Snapshot, err error) {
	t.Helper()
	r, err := record.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	for {
		rec, err := r.Next()
		switch {
		case err == io.EOF:
			return out, nil
		case err != nil:
			return out, err
		case rec.Snapshot != nil:
			out = append(out, *rec.Snapshot)
		}
	}
}

// TestEveryField fills every field that a snapshot has, by its type, and wants all of them back: a field
// that somebody adds cannot be forgotten.
func TestEveryField(t *testing.T) {
	for seed := range uint64(20) {
		var s ledger.Snapshot
		newFiller(seed).fill(reflect.ValueOf(&s).Elem(), true)
		got, err := read(t, write(t, record.Options{}, s))
		if err != nil || len(got) != 1 {
			t.Fatalf("%d snapshots: %v", len(got), err)
		}
		if diff := cmp.Diff(s, got[0], exactly); diff != "" {
			t.Fatalf("seed %d (-recorded +read):\n%s", seed, diff)
		}
	}
}

// TestRows changes snapshots at random, lets list elements come, go, move and stand twice, and nil become
// empty and back. What was read stays what it was when later records are read.
func TestRows(t *testing.T) {
	for seed := range uint64(30) {
		f := newFiller(seed)
		var rows []ledger.Snapshot
		f.fill(reflect.ValueOf(&rows).Elem(), true)
		for range 30 {
			// The next one is made of the last as it comes out of a recording, so that the two share nothing.
			last, err := read(t, write(t, record.Options{}, rows[len(rows)-1]))
			if err != nil {
				t.Fatal(err)
			}
			f.mutate(reflect.ValueOf(&last[0]).Elem())
			rows = append(rows, last[0])
		}
		got, err := read(t, write(t, record.Options{}, rows...))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(rows, got, exactly); diff != "" {
			t.Fatalf("seed %d (-recorded +read):\n%s", seed, diff)
		}
	}
}

// TestSharedMemory: sources may write to what they gave out once the snapshot is recorded.
func TestSharedMemory(t *testing.T) {
	s := ledger.Snapshot{XfrmStat: map[string]uint64{"XfrmInError": 1}, Wire: []ledger.WireSA{{GapHist: []uint64{1}, CPUs: map[int]uint64{0: 1}}}}
	var b bytes.Buffer
	w, err := record.Create(&b, record.Header{}, record.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := w.Snapshot(s); err != nil {
			t.Fatal(err)
		}
		s.XfrmStat["XfrmInError"]++
		s.Wire[0].GapHist[0]++
		s.Wire[0].CPUs[0]++
	}
	if err := w.Close(record.EndTime); err != nil {
		t.Fatal(err)
	}
	got, err := read(t, b.Bytes())
	if err != nil || len(got) != 3 {
		t.Fatalf("%d snapshots: %v", len(got), err)
	}
	for i, g := range got {
		n := uint64(i + 1)
		if g.XfrmStat["XfrmInError"] != n || g.Wire[0].GapHist[0] != n || g.Wire[0].CPUs[0] != n {
			t.Errorf("snapshot %d is %v %v", i, g.XfrmStat, g.Wire)
		}
	}
}

// TestEveryCut cuts a recording at each of its bytes: what was whole before the cut comes out, and never more.
func TestEveryCut(t *testing.T) {
	var rows []ledger.Snapshot
	for i := range 6 {
		rows = append(rows, ledger.Snapshot{At: time.Unix(int64(i), 0), Wire: []ledger.WireSA{{Packets: uint64(i * 100)}}})
	}
	whole := write(t, record.Options{}, rows...)
	most := -1
	for n := range len(whole) {
		got, err := read(t, whole[:n])
		if err == nil {
			t.Fatalf("cut after %d of %d bytes it is taken for whole", n, len(whole))
		}
		var damage *record.DamageError
		if len(got) > 0 && (!errors.As(err, &damage) || !damage.Cut || damage.Offset > int64(n)) {
			t.Fatalf("cut after %d: %v", n, err)
		}
		if diff := cmp.Diff(rows[:len(got)], got, exactly, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("cut after %d (-recorded +read):\n%s", n, diff)
		}
		if len(got) < most {
			t.Fatalf("cut after %d there are %d snapshots, with fewer bytes there were %d", n, len(got), most)
		}
		most = len(got)
	}
	if most != len(rows) {
		t.Errorf("before its last byte %d of %d snapshots can be read", most, len(rows))
	}
}

// TestEveryByteSpoilt turns each byte of a recording around: no figure that was not recorded comes out.
func TestEveryByteSpoilt(t *testing.T) {
	var rows []ledger.Snapshot
	for i := range 4 {
		rows = append(rows, ledger.Snapshot{At: time.Unix(int64(i), 0), XfrmStat: map[string]uint64{"XfrmInError": uint64(i)}})
	}
	whole := write(t, record.Options{}, rows...)
	for n := range len(whole) {
		spoilt := bytes.Clone(whole)
		spoilt[n] ^= 0x15
		got, err := read(t, spoilt)
		// A few bits of a frame mean nothing, so what matters is what comes out.
		if err == nil && len(got) != len(rows) {
			t.Errorf("byte %d is wrong, %d of %d snapshots come out and nobody says why", n, len(got), len(rows))
		}
		if diff := cmp.Diff(rows[:min(len(got), len(rows))], got, exactly, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("byte %d is wrong (-recorded +read):\n%s", n, diff)
		}
	}
}

// TestManySAs: a first snapshot that takes many frames comes back.
func TestManySAs(t *testing.T) {
	rows := busy(5000, 3)
	got, err := read(t, write(t, record.Options{}, rows...))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rows, got, exactly); diff != "" {
		t.Fatalf("(-recorded +read):\n%s", diff)
	}
}

// TestVersions: a newer major version is refused with a text that says so, unknown records are passed over.
func TestVersions(t *testing.T) {
	whole := write(t, record.Options{}, ledger.Snapshot{Mono: 5})
	for version, ok := range map[string]bool{"1.0": true, "1.9": true, "2.0": false, "x.y": false} {
		_, err := read(t, bytes.Replace(whole, []byte("recording 1.0"), []byte("recording "+version), 1))
		if (err == nil) != ok {
			t.Errorf("version %s: %v", version, err)
		}
		if version == "2.0" && !strings.Contains(fmt.Sprint(err), "format 2.0") {
			t.Errorf("a newer version: %v", err)
		}
	}
	for name, b := range map[string][]byte{"nothing": nil, "a text": []byte("once upon a time there was a file"), "zeros": make([]byte, 100)} {
		if _, err := read(t, b); !errors.Is(err, record.ErrNotRecording) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEvents: events come back, those beyond the limit are counted, and no event waits longer than it may.
func TestEvents(t *testing.T) {
	now := time.Unix(1000, 0)
	var file syncBuffer
	w, err := record.Create(&file, record.Header{}, record.Options{
		EventsPerSecond: 3, Flush: 20 * time.Millisecond, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	var e reader.Event
	newFiller(4).fill(reflect.ValueOf(&e).Elem(), true)
	for i := range 10 {
		if i == 8 {
			now = now.Add(time.Second)
		}
		if err := w.Event(e); err != nil {
			t.Fatal(err)
		}
	}
	before := file.Len()
	for deadline := time.Now().Add(30 * time.Second); file.Len() == before && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	if file.Len() == before {
		t.Fatal("events wait for ever")
	}
	if err := w.Close(record.EndInterrupted); err != nil {
		t.Fatal(err)
	}
	r, err := record.NewReader(bytes.NewReader(file.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	events := 0
	for {
		rec, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if rec.Event != nil {
			events++
			if diff := cmp.Diff(e, *rec.Event, exactly); diff != "" {
				t.Fatalf("event (-recorded +read):\n%s", diff)
			}
		}
		if rec.End != nil {
			want := record.End{Why: record.EndInterrupted, Events: 5, EventsLeftOut: 5}
			if diff := cmp.Diff(want, *rec.End, exactly); diff != "" {
				t.Errorf("end (-want +got):\n%s", diff)
			}
			break
		}
	}
	if events != 5 {
		t.Errorf("%d events, want 3 of the first second and 2 of the next", events)
	}
}
