// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sync/errgroup"

	"xfrmscope/internal/bpfobj"
)

// Two CPUs inside the kernel at full speed on one SA. The programs draw their numbers from a shared
// counter, so that it is known what was sent: each number once, or each number twice by racing CPUs.
func TestTwoCPUsOneSA(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("loading BPF programs needs root")
		}
		t.Skip("loading BPF programs needs root")
	}
	if runtime.NumCPU() < 2 {
		t.Skip("needs two CPUs")
	}
	const repeat = 300_000
	for _, b := range subjects[:2] {
		for _, order := range []uint32{orderShared, orderTwice} {
			c := benchCase{frame: espFrame(payload), order: order, sas: 1, cpus: 2}
			coll, err := load(b, c)
			if err != nil {
				t.Fatal(err)
			}
			defer coll.Close()
			var g errgroup.Group
			for cpu := range c.cpus {
				g.Go(func() error {
					runtime.LockOSThread()
					if err := pin(cpu); err != nil {
						return err
					}
					_, err := timed(coll.Programs[b.program], c.frame.Data, b.pass, repeat)
					return err
				})
			}
			if err := g.Wait(); err != nil {
				t.Fatal(err)
			}
			var s bpfobj.SAState
			var counts []bpfobj.SACount
			if err := coll.Maps["sa_states"].Lookup(uint32(0), &s); err != nil {
				t.Fatal(err)
			}
			if err := coll.Maps["sa_counts"].Lookup(uint32(0), &counts); err != nil {
				t.Fatal(err)
			}
			packets, busy := uint64(0), 0
			for _, n := range counts {
				packets += n.Packets
				if n.Packets > 0 {
					busy++
				}
			}
			contention := lost(t, coll, bpfobj.LockfreeLostLOST_CONTENTION)
			numbers := uint64(2 * repeat)
			if order == orderTwice {
				numbers /= 2
			}
			// A CPU that is held up for longer than the window lasts leaves stale packets and holes behind.
			span := s.Highest - s.First + 1
			unique := span - uint64(s.Holes) + s.Early
			t.Logf("%s, order %d: %d CPUs, unique %d, duplicates %d, stale %d, late %d, holes %d, early %d, contention %d",
				b.name, order, busy, unique, s.Duplicates, s.Stale, s.Late, s.Holes, s.Early, contention)
			if busy != 2 || packets != 2*repeat {
				t.Errorf("%d packets on %d CPUs, want %d on 2", packets, busy, 2*repeat)
			}
			if unique+s.Duplicates+s.Stale != packets {
				t.Errorf("unique %d + duplicates %d + stale %d are not the %d packets", unique, s.Duplicates, s.Stale, packets)
			}
			if s.Stale == 0 && contention == 0 && (unique != numbers || s.Holes != 0 || s.Duplicates != packets-numbers) {
				t.Errorf("unique %d, holes %d, duplicates %d; want %d, 0, %d", unique, s.Holes, s.Duplicates, numbers, packets-numbers)
			}
			if s.Stale != 0 && (unique > numbers || uint64(s.Holes) > s.Stale) {
				t.Errorf("unique %d of %d numbers, %d holes with %d stale packets", unique, numbers, s.Holes, s.Stale)
			}
		}
	}
}

func lost(t *testing.T, coll *ebpf.Collection, what bpfobj.Lost) (sum uint64) {
	var counts []uint64
	if err := coll.Maps["lost_counts"].Lookup(what, &counts); err != nil {
		t.Fatal(err)
	}
	for _, n := range counts {
		sum += n
	}
	return sum
}
