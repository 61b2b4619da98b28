// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/ledger"
)

// TestLayout holds the constants and types of this package against the compiled objects.
func TestLayout(t *testing.T) {
	var s State
	if len(s.Window) != seqBlocks {
		t.Errorf("the window has %d words, want %d", len(s.Window), seqBlocks)
	}
	for _, lockfree := range []bool{true, false} {
		spec, err := bpfobj.LoadWire(lockfree)
		if err != nil {
			t.Fatal(err)
		}
		for name, size := range map[string]uint32{"sa_states": uint32(StateSize), "sa_counts": 40, "sa_slots": 4} {
			if got := spec.Maps[name].ValueSize; got != size {
				t.Errorf("lock-free %v: %s holds %d bytes, want %d", lockfree, name, got, size)
			}
		}
		var e *btf.Struct
		if err := spec.Types.TypeByName("event", &e); err != nil {
			t.Fatal(err)
		}
		if int(e.Size) != rawEventSize {
			t.Errorf("lock-free %v: struct event has %d bytes, want %d", lockfree, e.Size, rawEventSize)
		}
	}
}

func TestNames(t *testing.T) {
	n, err := LoadNames()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		names []string
		i     int
		want  string
	}{
		{n.Why, 2, "esp"},
		{n.Why, 99, "unknown_99"},
		{n.Aside, 0, "frag_first"},
		{n.Lost, 6, "suppressed"},
		{n.Lost, 5, "ring_full"},
		{n.Event, 3, KindLate},
		{n.Event, 7, KindXfrmDrop},
		{n.Cause, 1, "replay_duplicate"},
	} {
		if got := name(tc.names, tc.i); got != tc.want {
			t.Errorf("name %d: %q, want %q", tc.i, got, tc.want)
		}
	}
}

// sequence is the window kept by definition: a set of numbers.
type sequence struct {
	State
	seen map[uint64]bool
}

// see marks a biased number as the wire program does.
func (q *sequence) see(seq uint64) {
	if q.First == 0 {
		q.First, q.OriginalFirst, q.Highest = seq, seq, seq
		q.seen = make(map[uint64]bool)
	}
	q.seen[seq] = true
	q.Highest = max(q.Highest, seq)
	w := &q.Window[seq/32%seqBlocks]
	if uint32(*w>>32) != uint32(seq/32) {
		*w = seq / 32 << 32
	}
	*w |= 1 << (seq % 32)
}

// TestMissingAbove compares the window's words with sets, over streams with loss that run through
// the window several times, blocks left out entirely among it.
func TestMissingAbove(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 200 {
		q := &sequence{}
		next := seqBias + uint64(rng.IntN(1<<20))
		if round%10 == 0 {
			next = seqBias + 1<<32 - 100 // wraps
		}
		for range 1 + rng.IntN(3*seqWindow) {
			q.see(next)
			next++
			switch rng.IntN(100) {
			case 0:
				next += uint64(rng.IntN(200))
			case 1, 2, 3:
				next++
			}
		}
		// Only numbers in blocks that the window still covers can arrive.
		oldest := uint64(0)
		if q.Highest >= seqWindow {
			oldest = (q.Highest/32 - (seqBlocks - 1)) * 32
		}
		for range 20 {
			from := q.Highest - uint64(rng.IntN(2*seqWindow))
			var want uint64
			for seq := max(from+1, q.First, oldest); seq <= q.Highest; seq++ {
				if !q.seen[seq] {
					want++
				}
			}
			if got := q.missingAbove(from); got != want {
				t.Fatalf("round %d: first %d highest %d: missing above %d: %d, want %d", round, q.First, q.Highest, from, got, want)
			}
		}
	}
	if got := new(State).missingAbove(0); got != 0 {
		t.Errorf("nothing seen: %d missing", got)
	}
}

func TestWireSA(t *testing.T) {
	s := State{
		Dst: netip.MustParseAddr("192.0.2.2").As16(), Src: netip.MustParseAddr("192.0.2.1").As16(),
		Spi: 0xc0ffee01, Ifindex: 3, Sport: 4500, Dport: 4501, Family: 4, Dir: 1, Encap: 1, Used: 1,
		OriginalFirst: seqBias + 10, First: seqBias + 10, Highest: seqBias + 1<<32 + 5,
		Holes: 7, Early: 2, Duplicates: 3, Stale: 4, Late: 5, Jumps: 1, GapEvents: 6, ExtentMax: 8, DisplacementMax: 9,
		ExtentUnknown: 1, CreatedNs: 1000,
	}
	s.ExtentHist[3], s.DisplacementHist[4], s.GapHist[0] = 1, 2, 6
	s.LastNs, s.LateSpread, s.Ce, s.RestartNs = 5000, 4, 13, 6000
	s.Rebinds, s.RebindNs, s.OldSrc, s.OldPorts = 2, 7000, netip.MustParseAddr("192.0.2.7").As16(), 1<<32|4500<<16|1024
	s.Spacings, s.SpacingSum, s.SpacingSquares = 5, 50, 510
	got := s.WireSA(Count{Packets: 11, Bytes: 1100, Largest: 1500, Dscps: 1<<46 | 1}, 99)
	want := ledger.WireSA{
		Key: ledger.SAKey{Dst: netip.MustParseAddr("192.0.2.2"), SPI: 0xc0ffee01, Proto: ledger.ESP, Direction: ledger.Out},
		Src: netip.MustParseAddr("192.0.2.1"), Encap: ledger.EncapUDP, SrcPort: 4500, DstPort: 4501, Ifindex: 3,
		Created: time.Microsecond, Packets: 11, PacketsBefore: 11, Bytes: 1100,
		FirstSeq: 10, HighestSeq: 1<<32 + 5, // ESN: wrapped since the first
		Span: 1<<32 - 4, Unique: 1<<32 - 4 - 7 + 2, Duplicates: 3, Late: 5, Stale: 4,
		Missing: 7, Pending: 7, // never more than are missing
		Jumps: 1, GapEvents: 6, ExtentMax: 8, ExtentFloor: 1, DisplacementMax: 9,
		ExtentHist: hist(3, 1), DisplacementHist: hist(4, 2),
		LargestBytes: 1500, LastSeen: 5 * time.Microsecond, LateSpread: 4, DSCPs: 1<<46 | 1, CE: 13, RestartAt: 6 * time.Microsecond,
		Rebinds: 2, RebindAt: 7 * time.Microsecond, OldSrc: netip.MustParseAddr("192.0.2.7"), OldSrcPort: 1024, OldDstPort: 4500,
		OldEncap: ledger.EncapUDP, GapHist: hist(0, 6), Spacings: 5, SpacingSum: 50, SpacingSquares: 510,
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	// After a restart the numbers count from the new sequence's epoch, which is not the peer's.
	s.First, s.Highest, s.ClosedSpan, s.Restarts = 3<<32+1, 3<<32+20, 100, 1
	s.Holes = -1 // another CPU's late packet was faster than the one that left the hole
	got = s.WireSA(Count{}, 0)
	if got.HighestSeq != 20 || got.FirstSeq != 10 || got.Span != 120 || got.Missing != 0 || got.Unique != 122 {
		t.Errorf("after a restart: %+v", got)
	}
}

func hist(i int, n uint64) []uint64 {
	h := make([]uint64, 16)
	h[i] = n
	return h
}

// TestMergeForgetsNothing fills every figure and looks for it in the sum, so that one that is added
// to the ledger later cannot be left out unseen.
func TestMergeForgetsNothing(t *testing.T) {
	fill := func(n uint64) ledger.WireSA {
		var w ledger.WireSA
		v := reflect.ValueOf(&w).Elem()
		for i := range v.NumField() {
			if f := v.Field(i); f.Kind() == reflect.Uint64 {
				f.SetUint(n)
			}
		}
		w.ExtentHist, w.DisplacementHist = hist(1, n), hist(1, n)
		return w
	}
	sum := reflect.ValueOf(merge(fill(3), fill(5)))
	for i := range sum.NumField() {
		f := sum.Type().Field(i)
		if f.Type.Kind() != reflect.Uint64 {
			continue
		}
		want := uint64(8)
		switch {
		case f.Name == "FirstSeq":
			want = 3
		case f.Name == "HighestSeq" || strings.HasSuffix(f.Name, "Max"), f.Name == "LargestBytes":
			want = 5
		case f.Name == "DSCPs":
			want = 3 | 5
		}
		if got := sum.Field(i).Uint(); got != want {
			t.Errorf("%s: %d, want %d", f.Name, got, want)
		}
	}
	if m := merge(fill(3), fill(5)); m.ExtentHist[1] != 8 || m.DisplacementHist[1] != 8 {
		t.Errorf("histograms: %v %v", m.ExtentHist, m.DisplacementHist)
	}
}

func TestDecodeRefusesShortEvents(t *testing.T) {
	n, err := LoadNames()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.decodeEvent(make([]byte, rawEventSize-1), clock{}, Translate{}); err == nil {
		t.Error("a short event was accepted")
	}
}

// TestHistory says of each moment up to which number losses are settled.
func TestHistory(t *testing.T) {
	const horizon = time.Second
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	var h history
	if got := h.settled(at(0), horizon); got != 0 {
		t.Errorf("without a mark: %d", got)
	}
	for ms := 0; ms <= 10_000; ms += 3 {
		h.add(at(ms), uint64(1000+ms), horizon)
		if len(h.marks) > 40 {
			t.Fatalf("%d marks are kept", len(h.marks))
		}
		settled := h.settled(at(ms), horizon)
		if ms < 1000 {
			if settled != 0 {
				t.Fatalf("after %d ms: %d is settled", ms, settled)
			}
			continue
		}
		// Never less than a horizon ago, and not much more.
		if limit := uint64(ms); settled > limit || settled+150 < limit {
			t.Fatalf("after %d ms: settled up to %d, want just below %d", ms, settled, limit)
		}
	}
}
