// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"

	"xfrmscope/internal/ledger"
)

// readQdiscs reads the queueing disciplines of all devices, by the device's index.
func (s *Source) readQdiscs() (map[int][]ledger.Qdisc, error) {
	found, err := s.links.QdiscList(nil)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list queueing disciplines: %w", err)
	}
	out := map[int][]ledger.Qdisc{}
	for _, q := range found {
		a := q.Attrs()
		d := ledger.Qdisc{Kind: q.Type(), Handle: handle(a.Handle), Parent: parent(a.Parent)}
		d.Limit, d.LimitUnit = limit(q)
		if st := a.Statistics; st != nil {
			if st.Basic != nil {
				d.Packets, d.Bytes = uint64(st.Basic.Packets), st.Basic.Bytes
			}
			if st.Queue != nil {
				d.Drops, d.Overlimits, d.Backlog = uint64(st.Queue.Drops), uint64(st.Queue.Overlimits), uint64(st.Queue.Qlen)
			}
		}
		out[a.LinkIndex] = append(out[a.LinkIndex], d)
	}
	return out, nil
}

// limit is how much a queue holds before it drops, where its kind says so in its options.
func limit(q netlink.Qdisc) (uint32, string) {
	switch q := q.(type) {
	case *netlink.Tbf:
		return q.Limit, "bytes"
	case *netlink.Netem:
		return q.Limit, "packets"
	case *netlink.Fq:
		return q.PacketLimit, "packets"
	case *netlink.FqCodel:
		return q.Limit, "packets"
	case *netlink.Sfq:
		return q.Limit, "packets"
	}
	return 0, ""
}

// handle writes a handle as tc does: hexadecimal, major and minor.
func handle(h uint32) string {
	if minor := h & 0xffff; minor != 0 {
		return fmt.Sprintf("%x:%x", h>>16, minor)
	}
	return fmt.Sprintf("%x:", h>>16)
}

func parent(p uint32) string {
	switch p {
	case netlink.HANDLE_ROOT:
		return "root"
	case netlink.HANDLE_INGRESS:
		return "ingress"
	case netlink.HANDLE_NONE:
		return ""
	}
	return handle(p)
}
