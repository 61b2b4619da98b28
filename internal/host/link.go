// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"

	"xfrmscope/internal/ledger"
)

// deviceSettings are what a device is asked for now and then: they do not move with the packets, but somebody may change
// them while a run without end goes on.
type deviceSettings struct {
	asked        time.Time
	name, driver string
	features     map[string]bool
	ring         ethtool.Ring
	rx, tx       int // queues in use, 0 where the driver does not tell
	rps          []string
}

// askAgain is how old a device's settings may be.
const askAgain = time.Minute

// telling are the features that touch ESP, by the kernel's names (netdev_features_strings).
var telling = []string{
	"esp-hw-offload", "esp-tx-csum-hw-offload", "tx-esp-segmentation",
	"rx-gro", "rx-gro-hw", "rx-gro-list", "rx-udp-gro-forwarding", "rx-lro", "tx-udp-segmentation",
}

// driven are the kinds of devices whose drivers have something to say to ethtool. A gateway may have
// thousands of the others, an xfrm interface for each tunnel.
var driven = []string{"device", "veth", "bond", "team", "tuntap", "virt_wifi", "netdevsim"}

// lossy finds the driver counters that tell of loss; drivers name them as they like.
var lossy = regexp.MustCompile(`(?i)drop|discard|miss|err|fail|fifo|over(run|flow|size)|no_?(buf|mem|desc|dma|resource)|out_of_(buf|mem)|alloc|full|xoff|timeout|no_descs`)

// readLinks reads the devices of the namespace with their counters and queueing disciplines.
func (s *Source) readLinks() ([]ledger.Link, error) {
	found, err := s.links.LinkList()
	// An interrupted dump may lack a device that came or went: better than nothing.
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	qdiscs, err := s.readQdiscs()
	if err != nil {
		return nil, err
	}
	out := make([]ledger.Link, 0, len(found))
	present := map[int]bool{}
	for _, l := range found {
		a := l.Attrs()
		present[a.Index] = true
		link := ledger.Link{
			Index: a.Index, Name: a.Name, Kind: l.Type(), Lower: a.ParentIndex, Master: a.MasterIndex, MTU: a.MTU,
			Up: a.Flags&net.FlagUp != 0, TxQueue: a.TxQLen, Counters: linkCounters(a.Statistics),
			RxQueues: a.NumRxQueues, TxQueues: a.NumTxQueues, Qdiscs: qdiscs[a.Index],
		}
		if link.Kind == "veth" {
			link.Lower = 0 // the other end, in another namespace
		}
		if slices.Contains(driven, link.Kind) && a.Flags&net.FlagLoopback == 0 {
			s.askDriver(&link)
		}
		out = append(out, link)
	}
	for index := range s.settings {
		if !present[index] {
			delete(s.settings, index)
		}
	}
	slices.SortFunc(out, func(a, b ledger.Link) int { return a.Index - b.Index })
	return out, nil
}

// askDriver adds what ethtool and sysfs know. Drivers need not answer any of it; what they do not is
// left out.
func (s *Source) askDriver(l *ledger.Link) {
	f := s.settings[l.Index]
	if now := time.Now(); f.name != l.Name || now.Sub(f.asked) >= askAgain {
		f = deviceSettings{name: l.Name, asked: now}
		if s.tool != nil {
			f.ask(s.tool)
		}
		if s.sysfs != nil {
			if rps, err := s.sysfs.rps(l.Name); err == nil {
				f.rps = rps
			}
		}
		s.settings[l.Index] = f
	}
	l.Driver, l.Features, l.RPS = f.driver, f.features, f.rps
	l.RingRx, l.RingRxMax = f.ring.RxPending, f.ring.RxMaxPending
	l.RingTx, l.RingTxMax = f.ring.TxPending, f.ring.TxMaxPending
	if f.rx > 0 {
		l.RxQueues = f.rx
	}
	if f.tx > 0 {
		l.TxQueues = f.tx
	}
	if s.tool == nil {
		return
	}
	if stats, err := s.tool.Stats(l.Name); err == nil {
		for name, n := range stats {
			if lossy.MatchString(name) {
				if l.DriverCounters == nil {
					l.DriverCounters = map[string]uint64{}
				}
				l.DriverCounters[name] = n
			}
		}
	}
}

func (f *deviceSettings) ask(tool *ethtool.Ethtool) {
	if name, err := tool.DriverName(f.name); err == nil {
		f.driver = name
	}
	if all, err := tool.Features(f.name); err == nil {
		f.features = map[string]bool{}
		for _, name := range telling {
			if on, ok := all[name]; ok {
				f.features[name] = on
			}
		}
	}
	if ring, err := tool.GetRing(f.name); err == nil {
		f.ring = ring
	}
	if ch, err := tool.GetChannels(f.name); err == nil {
		f.rx, f.tx = int(ch.CombinedCount+ch.RxCount), int(ch.CombinedCount+ch.TxCount)
	}
}

func linkCounters(s *netlink.LinkStatistics) map[string]uint64 {
	if s == nil {
		return nil
	}
	return map[string]uint64{
		"rx_packets": s.RxPackets, "tx_packets": s.TxPackets, "rx_bytes": s.RxBytes, "tx_bytes": s.TxBytes,
		"rx_errors": s.RxErrors, "tx_errors": s.TxErrors, "rx_dropped": s.RxDropped, "tx_dropped": s.TxDropped,
		"multicast": s.Multicast, "collisions": s.Collisions,
		"rx_length_errors": s.RxLengthErrors, "rx_over_errors": s.RxOverErrors, "rx_crc_errors": s.RxCrcErrors,
		"rx_frame_errors": s.RxFrameErrors, "rx_fifo_errors": s.RxFifoErrors, "rx_missed_errors": s.RxMissedErrors,
		"tx_aborted_errors": s.TxAbortedErrors, "tx_carrier_errors": s.TxCarrierErrors, "tx_fifo_errors": s.TxFifoErrors,
		"tx_heartbeat_errors": s.TxHeartbeatErrors, "tx_window_errors": s.TxWindowErrors,
	}
}
