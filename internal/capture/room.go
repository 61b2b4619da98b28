// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/ledger"
)

// MakeRoom lets go of the windows of SAs that SetSAs no longer knows, once those take up three quarters of the
// table: each rekey adds some, anybody can invent some, and an SA without a window is neither late nor repeated. An SA
// that comes between SetSAs and now begins anew with its next packet.
func (r *Recorder) MakeRoom() error {
	m := r.source.Windows
	if m == nil {
		return nil
	}
	keys, err := windows(m)
	if err != nil || len(keys)*4 <= int(m.MaxEntries())*3 {
		return err
	}
	type name struct {
		dst [16]byte
		spi uint32
	}
	known := map[name]bool{}
	r.mu.Lock()
	for key := range r.sas {
		if key.Dst.IsValid() && key.Proto == ledger.ESP {
			known[name{key.Dst.As16(), uint32(key.SPI)}] = true
		}
	}
	r.mu.Unlock()
	for _, k := range keys {
		if known[name{k.Dst, k.Spi}] {
			continue
		}
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("make room for further SAs: %w", err)
		}
	}
	return nil
}

// windows lists the SAs that have one. The table may change meanwhile.
func windows(m *ebpf.Map) (keys []bpfobj.PacketOrderKey, err error) {
	var last any
	for range m.MaxEntries() {
		var next bpfobj.PacketOrderKey
		switch err := m.NextKey(last, &next); {
		case errors.Is(err, ebpf.ErrKeyNotExist):
			return keys, nil
		case err != nil:
			return nil, fmt.Errorf("list the SAs that have a window: %w", err)
		}
		keys = append(keys, next)
		last = next
	}
	return keys, nil
}
