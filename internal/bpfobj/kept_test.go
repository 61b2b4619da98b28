// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Slots that are set aside go to SAs that user space knows, and to those alone, once there are no others.
func TestKeptSlots(t *testing.T) {
	for _, build := range builds(t) {
		t.Run(build.name, func(t *testing.T) {
			w := loadWire(t, build.lockfree, 16, nil)
			if err := KeepSlots(w.Collection); err != nil {
				t.Fatal(err)
			}
			for _, known := range []SAKey{
				{Spi: 101, DstFold: fold4(b4), Family: 4}, {Spi: 102, DstFold: fold4(b4), Family: 4, Dir: 1},
				{Spi: 103, DstFold: fold4(b4), Family: 4}, {Spi: 104, DstFold: fold4(a4), Family: 4},
			} {
				if err := w.Maps["known_sas"].Put(known, uint8(1)); err != nil {
					t.Fatal(err)
				}
			}
			f := eth4().ESP(0, 1, 16).Frame()
			for spi := range uint32(20) {
				w.run("xdp_ingress", f.SPI(spi).Data)
			}
			w.run("xdp_ingress", f.SPI(104).Data) // known with another destination
			w.run("xdp_ingress", f.SPI(102).Data) // and in the other direction
			if diff := cmp.Diff(map[string]uint64{"sa_table_full": 20 - 14 + 2}, w.lost()); diff != "" {
				t.Error("lost to strangers (-want +got):\n" + diff)
			}
			for range 2 {
				w.run("xdp_ingress", f.SPI(101).Data)
				w.run("tc_egress", f.SPI(102).Data)
				w.run("xdp_ingress", f.SPI(103).Data) // two are all there are
			}
			if diff := cmp.Diff(map[string]uint64{"sa_table_full": 8 + 2}, w.lost()); diff != "" {
				t.Error("lost (-want +got):\n" + diff)
			}
			packets := map[uint32]uint64{}
			for _, s := range w.sas() {
				packets[s.Spi] = s.Packets
			}
			if len(packets) != 16 || packets[101] != 2 || packets[102] != 2 {
				t.Errorf("packets by SPI: %v", packets)
			}
		})
	}
}
