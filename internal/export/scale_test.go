// SPDX-License-Identifier: Apache-2.0

package export

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/verdict"
)

// gateway is a host with so many SAs, a pair for each peer.
type gateway struct {
	sas     int
	packets uint64 // of each SA
	at      time.Time
	added   time.Time
	lost    uint64 // of each SA's packets from one snapshot to the next
	missing uint64
}

var ours = netip.MustParseAddr("192.0.2.1")

func peerAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }

// snapshot is taken a while after the one before, when each SA had more packets.
func (g *gateway) snapshot(more uint64, d time.Duration) ledger.Snapshot {
	if g.at.IsZero() {
		g.at = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		g.added = g.at.Add(-time.Hour)
	}
	g.at, g.packets = g.at.Add(d), g.packets+more
	s := ledger.Snapshot{
		At: g.at, Mono: g.at.Sub(g.added), Stack: []ledger.StackSA{}, Unknown: []ledger.UnknownSPI{}, HostDrops: []ledger.HostDrop{},
		XfrmStat: map[string]uint64{"XfrmInNoStates": 7}, SAD: []ledger.SADEntry{}, Packets: &ledger.WireTotals{},
	}
	lost := g.missing
	g.missing += g.lost
	for i := range g.sas {
		src, dst, dir := peerAddr(i/2), ours, ledger.In
		if i%2 == 1 {
			src, dst, dir = dst, src, ledger.Out
		}
		key := ledger.SAKey{Dst: dst, SPI: ledger.SPI(0x1000 + i), Proto: ledger.ESP, Direction: dir}
		s.Wire = append(s.Wire, ledger.WireSA{
			Key: key, Src: src, Encap: ledger.EncapNone, Created: time.Second, Packets: g.packets, PacketsBefore: g.packets, Bytes: 100 * g.packets,
			LastSeen: s.Mono, FirstSeq: 1, HighestSeq: g.packets + lost, Span: g.packets + lost, Unique: g.packets, Missing: lost, CPUs: map[int]uint64{0: g.packets},
			ExtentHist: make([]uint64, 16), DisplacementHist: make([]uint64, 16), GapHist: make([]uint64, 16),
		})
		s.SAD = append(s.SAD, ledger.SADEntry{
			Key: key, Src: src, Mode: "tunnel", ReqID: uint32(i/2 + 1), Encap: ledger.EncapNone, ReplayWindow: 32, Seq: g.packets, OSeq: g.packets,
			Packets: g.packets, Bytes: 100 * g.packets, Added: g.added,
			Algorithms: []ledger.Algorithm{{Kind: "aead", Name: "rfc4106(gcm(aes))", KeyBits: 160, ICVBits: 128}},
		})
	}
	return s
}

// BenchmarkScrape is each step of a scrape; ns/SA must not grow with the number of SAs.
func BenchmarkScrape(b *testing.B) {
	for _, sas := range []int{100, 1000, 10000} {
		g := &gateway{sas: sas}
		rolling := ledger.NewRolling(ledger.Source{Kind: ledger.KindLive}, time.Hour)
		rolling.Observe(g.snapshot(100, time.Second))
		rolling.Observe(g.snapshot(100, time.Second))
		ill := illReport(sas)
		points := NewPoints(Options{MaxTunnels: sas})
		sample := Sample{At: g.at, Totals: rolling.Totals(), Report: rolling.Report()}
		cache := NewCache(func(context.Context) (Sample, error) { return sample, nil }, Options{MaxTunnels: sas}, time.Hour, time.Hour)
		handler, err := (&Server{Cache: cache, Timeout: time.Minute}).Handler()
		if err != nil {
			b.Fatal(err)
		}
		var size int
		steps := []struct {
			name string
			do   func()
		}{
			{"observe", func() { rolling.Observe(g.snapshot(1, time.Second)) }},
			{"report", func() { rolling.Report() }},
			{"totals", func() { rolling.Totals() }},
			{"judge", func() { verdict.Judge(sample.Report) }},
			{"judge-all-ill", func() { verdict.Judge(ill) }},
			{"points", func() { points.Of(sample) }},
			{"answer", func() {
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
				if w.Code != http.StatusOK {
					b.Fatal(w.Code, w.Body)
				}
				n, _ := io.Copy(io.Discard, w.Body)
				size = int(n)
			}},
		}
		for _, s := range steps {
			b.Run(fmt.Sprintf("sas=%d/%s", sas, s.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					s.do()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(sas), "ns/SA")
				if s.name == "answer" {
					b.ReportMetric(float64(size)/float64(sas), "B/SA")
				}
			})
		}
	}
}

// illReport is the ledger of a gateway whose SAs all lose packets.
func illReport(sas int) ledger.Report {
	g := &gateway{sas: sas, lost: 30}
	l := ledger.New(ledger.Source{Kind: ledger.KindLive})
	for range 3 {
		l.Observe(g.snapshot(1000, 10*time.Second))
	}
	return l.Report()
}
