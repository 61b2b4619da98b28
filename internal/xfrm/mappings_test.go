// SPDX-License-Identifier: Apache-2.0

package xfrm

import (
	"net/netip"
	"testing"
	"time"

	"xfrmscope/internal/ledger"
)

// The kernel repeats an announcement with every packet; a change is kept once, and the newest are kept.
func TestMappings(t *testing.T) {
	var m mappings
	announce := func(second int, spi ledger.SPI, port uint16) {
		a := netip.MustParseAddr("192.0.2.1")
		m.add(Event{At: time.Unix(int64(second), 0), Kind: MappingChanged, Mapping: &Mapping{
			Key: ledger.SAKey{SPI: spi, Dst: netip.MustParseAddr("192.0.2.2")}, OldSrc: a, NewSrc: a, OldPort: 4500, NewPort: port,
		}})
	}
	for i := range 5 {
		announce(i, 7, 60000)
	}
	announce(5, 7, 61000)
	announce(6, 8, 60000)
	if len(m) != 3 || m[0].Announcements != 5 || m[0].First.Unix() != 0 || m[0].Last.Unix() != 4 || m[1].New.Port() != 61000 || m[2].Key.SPI != 8 {
		t.Errorf("mappings %+v", m)
	}
	for i := range mappingsLimit {
		announce(100+i, ledger.SPI(1000+i), 60000)
	}
	if len(m) != mappingsLimit || m[0].Key.SPI != 1000 {
		t.Errorf("%d mappings, the oldest of SPI %s", len(m), m[0].Key.SPI)
	}
}
