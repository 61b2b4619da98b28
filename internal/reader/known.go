// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"encoding/binary"
	"sync"

	"xfrmscope/internal/ledger"
)

// The wire programs give the slots that were set aside to SAs that the kernel's database has (bpf/lib/maps.h). They
// learn of them here: from each reading of the database, and from announcements between two of them, since an SA's
// first packets come within moments of it.

// expected are SAs that were announced and that no reading of the database has shown yet.
type expected struct {
	mu   sync.Mutex
	keys []ledger.SAKey
}

// Expect has room kept for an SA that was announced. It may be called from any goroutine, also while a snapshot
// is taken.
func (r *Reader) Expect(key ledger.SAKey) {
	if r.table == nil || !r.table.maps.Keeps {
		return
	}
	r.expected.mu.Lock()
	r.expected.keys = append(r.expected.keys, key)
	r.expected.mu.Unlock()
	r.table.know(key)
}

// learn brings the programs' list of SAs up to date: from those that were known to those that are.
func (r *Reader) learn(before, now map[ledger.SAKey]bool) {
	if !r.table.maps.Keeps {
		return
	}
	r.expected.mu.Lock()
	announced := r.expected.keys
	r.expected.keys = nil
	r.expected.mu.Unlock()
	for _, key := range announced {
		if !now[key] {
			r.table.forget(key) // it has come and gone
		}
	}
	for key := range now {
		if !before[key] {
			r.table.know(key)
		}
	}
	for key := range before {
		if !now[key] {
			r.table.forget(key)
		}
	}
}

// know and forget do what they can: a list that is full is as long as the table.

func (t *Table) know(key ledger.SAKey) {
	for _, k := range wireKeys(key) {
		_ = t.maps.KnownSAs.Put(k, uint8(1))
	}
}

func (t *Table) forget(key ledger.SAKey) {
	for _, k := range wireKeys(key) {
		_ = t.maps.KnownSAs.Delete(k)
	}
}

// wireKeys is an SA's key as the programs have it; in both directions where the database does not tell which.
func wireKeys(key ledger.SAKey) []slotKey {
	if key.Proto != ledger.ESP {
		return nil
	}
	k := slotKey{Spi: uint32(key.SPI), Family: 4}
	if key.Dst.Is4() {
		b := key.Dst.As4()
		k.DstFold = binary.NativeEndian.Uint32(b[:])
	} else {
		b := key.Dst.As16()
		k.Family = 6
		for i := 0; i < len(b); i += 4 {
			k.DstFold ^= binary.NativeEndian.Uint32(b[i:])
		}
	}
	out := k
	out.Dir = 1
	switch key.Direction {
	case ledger.In:
		return []slotKey{k}
	case ledger.Out:
		return []slotKey{out}
	}
	return []slotKey{k, out}
}
