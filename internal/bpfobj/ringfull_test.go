// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"math"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
)

// A ring that nobody reads fills up. What it does not take is counted, event by event, and no count of packets
// suffers; once it is read, events come again.
func TestEventRingFull(t *testing.T) {
	for _, build := range builds(t) {
		t.Run(build.name, func(t *testing.T) {
			w := loadWire(t, build.lockfree, 16, func(spec *ebpf.CollectionSpec) {
				spec.Maps["events"].MaxEntries = 64 << 10
				set(t, spec, "cfg_events_per_sec", uint32(math.MaxUint32))
				only("xdp_ingress")(spec)
			})
			const packets = 2000
			f := eth4().ESP(7, 1, 16).Frame()
			for i := range uint32(packets) {
				w.run("xdp_ingress", f.Seq(1+2*i).Data) // each but the first skips a number
			}
			lost := w.lost()
			taken := w.events()
			if diff := cmp.Diff(map[string]uint64{"ring_full": uint64(packets - len(taken))}, lost); diff != "" || len(taken) == 0 || len(taken) == packets {
				t.Errorf("%d events taken, lost (-want +got):\n%s", len(taken), diff)
			}
			all := w.sas()
			if len(all) != 1 {
				t.Fatalf("%d SAs, want 1", len(all))
			}
			if s := all[0]; s.Packets != packets || s.unique() != packets || s.Holes != packets-1 || s.GapEvents != packets-1 || s.Duplicates != 0 {
				t.Errorf("%d packets, %d unique, %d holes, %d gaps", s.Packets, s.unique(), s.Holes, s.GapEvents)
			}
			w.run("xdp_ingress", f.Seq(2*packets+1).Data)
			if n := len(w.events()); n != 1 {
				t.Errorf("%d events after the ring was read, want 1", n)
			}
		})
	}
}
