// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"encoding/binary"
	"runtime"
	"slices"
	"testing"
	"time"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/ledger"
)

// heap is what is in use once the garbage is out.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestFlood sends a packet of each of a million SPIs that nobody has, at 20,000 a second by the reader's
// clock, between the packets of SAs that the kernel has. Those stay exact: two that were there before, and two
// that come when the table is long full, as rekeys bring them, one of which no snapshot has shown yet. Each
// stranger is counted once and in one place, and the reader needs no more memory for a million of them than for
// the first 750,000.
func TestFlood(t *testing.T) {
	const (
		strangers = 1_000_000
		step      = 5000 // strangers between two samples
		every     = 50   // strangers for each number of the known SAs
		slots     = 4096
		numbers   = 1 + strangers/every
	)
	g := newRig(t, slots)
	must(t, bpfobj.KeepSlots(g.coll))
	g.keeps = true
	r := g.reader(Options{})
	known := []ledger.SADEntry{{Key: in(1)}, {Key: in(2)}}
	g.send(1, 1)
	g.send(2, 1)
	snapshot(t, r, known)
	flooding := frame(0, 1)
	seq, lost := uint32(1), uint64(0)
	later := map[uint32]uint32{} // numbers of SAs that came during the flood
	var early uint64
	for n := range uint32(strangers) {
		// An odd factor makes this a permutation: no SPI comes twice, and 1 and 2 are not among them.
		spi := (n + 3) * 0x9e3779b1
		binary.BigEndian.PutUint32(flooding[34:], spi)
		must(t, run(g.prog, flooding, 1))
		if n%every == 0 {
			seq++
			g.send(1, seq)
			if seq%10 == 0 {
				lost++
			} else {
				g.send(2, seq)
			}
			for spi := range later {
				later[spi]++
				g.send(spi, later[spi])
			}
		}
		if n%step == step-1 {
			g.now = g.now.Add(250 * time.Millisecond)
			must(t, r.Sample())
			if n%(20*step) == 20*step-1 {
				snapshot(t, r, known)
			}
		}
		switch n {
		case strangers / 2:
			known = append(known, ledger.SADEntry{Key: in(3)})
			snapshot(t, r, known)
			later[3] = 0
		case strangers * 5 / 8:
			r.Expect(in(4))
			r.Expect(in(5)) // comes and goes without a packet and before the next snapshot
			known = append(known, ledger.SADEntry{Key: in(4)})
			later[4] = 0
		}
		if n == strangers*4/5-1 { // a snapshot was taken, as at the end
			early = heap()
		}
	}
	late := heap()
	snap := snapshot(t, r, known)

	if late > early+1<<20 {
		t.Errorf("%d bytes of heap after four fifths of the flood, %d at its end", early, late)
	}
	if n := len(snap.Wire); n > slots*(1+foldedPerSlot) {
		t.Errorf("%d SAs in the snapshot, want at most %d", n, slots*(1+foldedPerSlot))
	}
	if w := find(t, snap, 1); w.Packets != numbers || w.Unique != numbers || w.Missing != 0 || w.HighestSeq != numbers {
		t.Errorf("the first known SA: %+v", w)
	}
	// Its last number, a multiple of ten or not, decides whether its last loss can be known yet.
	seen := numbers - lost
	if w := find(t, snap, 2); w.Packets != seen || w.Unique != seen || w.Missing != lost || w.Duplicates != 0 || w.HighestSeq != numbers {
		t.Errorf("the second known SA, %d sent, %d lost: %+v", numbers, lost, w)
	}
	more := uint64(0)
	for spi, last := range later {
		more += uint64(last)
		if w := find(t, snap, spi); last == 0 || w.Packets != uint64(last) || w.Unique != uint64(last) || w.FirstSeq != 1 || w.Missing != 0 {
			t.Errorf("SA %d, which came during the flood and sent %d: %+v", spi, last, w)
		}
	}
	var list []bpfobj.SAKey
	var key bpfobj.SAKey
	var one uint8
	for it := g.coll.Maps["known_sas"].Iterate(); it.Next(&key, &one); {
		list = append(list, key)
	}
	if len(list) != len(known) || slices.ContainsFunc(list, func(k bpfobj.SAKey) bool { return k.Spi > 4 }) {
		t.Errorf("the programs know %+v, want SAs 1 to 4", list)
	}
	if got, want := snap.Packets.Classes[ledger.In]["esp"], uint64(strangers)+numbers+seen+more; got != want {
		t.Errorf("%d packets of class esp, want %d", got, want)
	}
	// Each stranger had a slot of its own, has one still, or found none.
	in := uint64(r.used - len(known))
	full := snap.Self.Lost["sa_table_full"]
	if snap.Self.Evicted+in+full != strangers || in > slots-slots/8 {
		t.Errorf("%d strangers were given up, %d are in the table, %d found it full: want %d altogether", snap.Self.Evicted, in, full, strangers)
	}
	for what, n := range snap.Self.Lost {
		if what != "sa_table_full" && what != "suppressed" {
			t.Errorf("lost %d: %s", n, what)
		}
	}
}
