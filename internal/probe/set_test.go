// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/reader"
)

func openSet(t testing.TB, l *lab, opts Options) *Set {
	t.Helper()
	k := needBPF(t)
	opts.Netns = l.nearName
	s, err := Open(k, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func openReader(t testing.TB, s *Set, opts reader.Options) *reader.Reader {
	t.Helper()
	src, err := s.Source()
	must(t, err)
	r, err := reader.New(src, opts)
	must(t, err)
	return r
}

// settle waits until the packets that were sent are counted: veth delivers them asynchronously.
func settle(t testing.TB, r *reader.Reader, packets uint64) ledger.Snapshot {
	t.Helper()
	var snap ledger.Snapshot
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		var err error
		snap, err = r.Snapshot(context.Background(), nil)
		must(t, err)
		var n uint64
		for _, classes := range snap.Packets.Classes {
			for _, c := range classes {
				n += c
			}
		}
		if n >= packets {
			return snap
		}
	}
	t.Fatalf("packets are missing: %+v", snap.Packets)
	return snap
}

func hook(s *Set, prefix string) ledger.Hook {
	for _, h := range s.Hooks() {
		if strings.HasPrefix(h.Name, prefix) {
			return h
		}
	}
	return ledger.Hook{}
}

// TestCountsWhatWasSent sends a known stream in both directions over each way to attach.
func TestCountsWhatWasSent(t *testing.T) {
	for _, tc := range []struct {
		mode Mode
		way  string
		caps func(*Capabilities)
	}{
		{ModeAuto, "tcx", nil},
		{ModeXDP, "xdp", nil},
		{ModeXDPGeneric, "xdp-generic", nil},
		{ModeTC, "tcx", nil},
		{ModeTC, "clsact", func(c *Capabilities) { c.TCX = errNo }},
		{ModeAuto, "xdp", func(c *Capabilities) { c.TCX = errNo }},
		{ModeXDP, "xdp", func(c *Capabilities) { c.Atomics = errNo }},
	} {
		name := string(tc.mode) + "-" + tc.way
		if tc.caps != nil {
			name += "-old"
		}
		t.Run(name, func(t *testing.T) {
			k := *needBPF(t)
			if tc.way == "tcx" {
				tc.way = tcWay(&k)
			}
			if tc.caps != nil {
				tc.caps(&k.Capabilities)
			}
			l := newLab(t)
			l.veth(t, "wan", ownIP+"/24")
			s, err := Open(&k, Options{Netns: l.nearName, Mode: tc.mode, WireOnly: true})
			must(t, err)
			defer func() { must(t, s.Close()) }()
			if h := hook(s, "wire ingress wan"); !h.Attached || !strings.HasPrefix(h.Why, tc.way) {
				t.Fatalf("ingress: %+v, want %s", h, tc.way)
			}
			r := openReader(t, s, reader.Options{})
			in, out := openWire(t, l.far, "far-wan"), openWire(t, l.near, "wan")
			// 1…100 without 50 to 54, 20 twice, 60 after 63.
			var sent uint64
			for _, seq := range stream() {
				in.send(t, esp(peerIP, ownIP, 0x1001, seq))
				sent++
			}
			for seq := uint32(1); seq <= 40; seq++ {
				out.send(t, esp(ownIP, peerIP, 0x2002, seq))
				sent++
			}
			snap := settle(t, r, sent)
			if len(snap.Wire) != 2 {
				t.Fatalf("SAs: %+v", snap.Wire)
			}
			want := figures{Packets: 96, Bytes: 96 * ipBytes, First: 1, Highest: 100, Span: 100, Unique: 95, Duplicates: 1,
				Late: 1, Missing: 5, ExtentMax: 3, DisplacementMax: 3}
			if diff := cmp.Diff(want, figuresOf(find(snap, key(0x1001, ledger.In)))); diff != "" {
				t.Errorf("inbound (-want +got):\n%s", diff)
			}
			want = figures{Packets: 40, Bytes: 40 * ipBytes, First: 1, Highest: 40, Span: 40, Unique: 40}
			if diff := cmp.Diff(want, figuresOf(find(snap, key(0x2002, ledger.Out)))); diff != "" {
				t.Errorf("outbound (-want +got):\n%s", diff)
			}
			if len(snap.Self.Lost) != 0 {
				t.Errorf("lost: %v", snap.Self.Lost)
			}
		})
	}
}

// stream is 1…100 without 50 to 54, 20 twice, 60 after 63.
func stream() []uint32 {
	var seqs []uint32
	for seq := uint32(1); seq <= 100; seq++ {
		switch {
		case seq >= 50 && seq <= 54, seq == 60:
			continue
		case seq == 20:
			seqs = append(seqs, 20)
		}
		seqs = append(seqs, seq)
		if seq == 63 {
			seqs = append(seqs, 60)
		}
	}
	return seqs
}

type figures struct {
	Packets, Bytes, First, Highest, Span, Unique, Duplicates, Late, Stale, Missing, ExtentMax, DisplacementMax uint64
}

func figuresOf(w ledger.WireSA) figures {
	return figures{w.Packets, w.Bytes, w.FirstSeq, w.HighestSeq, w.Span, w.Unique, w.Duplicates, w.Late, w.Stale, w.Missing,
		w.ExtentMax, w.DisplacementMax}
}

func find(snap ledger.Snapshot, k ledger.SAKey) ledger.WireSA {
	for _, w := range snap.Wire {
		if w.Key == k {
			return w
		}
	}
	return ledger.WireSA{}
}
