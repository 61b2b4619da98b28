// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"

	"xfrmscope/internal/capture"
	"xfrmscope/internal/kernel"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/probe"
	"xfrmscope/internal/reader"
)

// recorder makes a recorder of the packets that the session copies (liveOptions.packets). It tells the recorder
// of the SAs with each snapshot, and chooses those of the given reqids as they come.
func (s *session) recorder(o capture.Options, spis []ledger.SPI, reqids map[uint32]bool) (*capture.Recorder, error) {
	src, err := s.packetSource()
	if err != nil {
		return nil, err
	}
	o.Application = "xfrmscope " + version
	o.Kernel = "Linux " + kernelRelease()
	rec, err := capture.Open(src, o)
	if err != nil {
		return nil, err
	}
	if err := rec.Choose(spis); err != nil {
		return nil, err
	}
	follow := follower{reqids: reqids, seen: map[ledger.SPI]time.Time{}}
	before := s.keep
	s.keep = func(snap ledger.Snapshot) error {
		if before != nil {
			if err := before(snap); err != nil {
				return err
			}
		}
		rec.SetSAs(snap.SAD, snap.Names, snap.At)
		if err := rec.MakeRoom(); err != nil {
			return err
		}
		return follow.choose(rec, snap.SAD, snap.At)
	}
	return rec, nil
}

// follower keeps the kernel told of the SPIs that belong to some reqids.
type follower struct {
	reqids map[uint32]bool
	seen   map[ledger.SPI]time.Time // when an SA last had it
}

// lateFor is how long packets of an SA that is gone may still be under way.
const lateFor = time.Minute

func (f *follower) choose(rec *capture.Recorder, sad []ledger.SADEntry, now time.Time) error {
	var fresh []ledger.SPI
	for _, e := range sad {
		if !f.reqids[e.ReqID] {
			continue
		}
		if _, known := f.seen[e.Key.SPI]; !known {
			fresh = append(fresh, e.Key.SPI)
		}
		f.seen[e.Key.SPI] = now
	}
	for spi, at := range f.seen {
		if now.Sub(at) > lateFor {
			delete(f.seen, spi)
			if err := rec.Unchoose(spi); err != nil {
				return err
			}
		}
	}
	return rec.Choose(fresh)
}

// packetSource puts what the packet programs write into this kernel's words.
func (s *session) packetSource() (src capture.Source, err error) {
	from, ok := s.set.Packets()
	if !ok {
		return src, errors.New("capture packets: the session was opened without them")
	}
	names, err := reader.LoadNames()
	if err != nil {
		return src, err
	}
	src = capture.Source{Ring: from.Ring, Counts: from.Counts, Chosen: from.Chosen, Windows: from.Windows, Points: from.Points,
		Causes: names.Cause, Missed: s.missed}
	for _, d := range from.Devices {
		src.Devices = append(src.Devices, capture.Device{Index: d.Index, Name: d.Name, Ethernet: d.Layer == probe.LayerEthernet})
	}
	if s.kernel.Symbols != nil {
		src.Location = kernel.NewLateSymbols(s.kernel.Symbols).Name
	}
	if s.kernel.Tables != nil && len(s.kernel.Tables.Reasons) > 0 {
		src.Reason = s.kernel.Tables.ReasonName
	}
	if len(src.Points) == 0 {
		return src, fmt.Errorf("capture packets: none of the hooks that copy them holds; 'xfrmscope doctor' says what this kernel allows")
	}
	return src, nil
}

// missed is how many packets a device has dropped on arrival: for want of buffers, and by its driver.
func (s *session) missed(ifindex int) (n uint64, ok bool) {
	// A device that is gone, or that tells nothing, has no such count.
	_ = s.ns.Do(func() error {
		link, err := netlink.LinkByIndex(ifindex)
		if err != nil {
			return err
		}
		if st := link.Attrs().Statistics; st != nil {
			n, ok = st.RxDropped+st.RxMissedErrors, true
		}
		return nil
	})
	return n, ok
}
