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

// expected are SAs that were announced: since the last reading of the database was made use of, and before. The
// newer ones may be younger than a reading that is under way, which then does not show them.
type expected struct {
	mu    sync.Mutex
	newer []ledger.SAKey
	older []ledger.SAKey
}

// Expect has room kept for an SA that was announced. It may be called from any goroutine, also while a snapshot
// is taken.
func (r *Reader) Expect(key ledger.SAKey) {
	if r.table == nil || !r.table.maps.Keeps {
		return
	}
	r.expected.mu.Lock()
	r.expected.newer = append(r.expected.newer, key)
	r.expected.mu.Unlock()
	r.table.know(key)
}

// learn brings the programs' list of SAs up to date: from those that were known to those that are, of which some
// have come.
func (r *Reader) learn(before, now map[ledger.SAKey]bool, came []ledger.SAKey) {
	if !r.table.maps.Keeps {
		return
	}
	r.expected.mu.Lock()
	settled := r.expected.older
	r.expected.older, r.expected.newer = r.expected.newer, nil
	r.expected.mu.Unlock()
	for _, key := range settled {
		if !now[key] {
			r.table.forget(key) // it has come and gone
		}
	}
	for _, key := range came {
		r.table.know(key)
	}
	if len(before)+len(came) == len(now) {
		return // nothing has gone
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
