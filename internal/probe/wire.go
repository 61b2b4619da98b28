// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/bpfobj"
)

// loadWire loads the programs that the plan names, each map at its size. The kernel's reasons for
// refusing a program come back by its name.
func loadWire(p Plan) (*ebpf.Collection, map[string]error, error) {
	spec, err := bpfobj.LoadWire(p.LockFree)
	if err != nil {
		return nil, nil, fmt.Errorf("load wire object: %w", err)
	}
	keepOnly(spec, p.wirePrograms())
	o := p.Options
	var ports [maxNATTPorts]uint16
	copy(ports[:], o.NATTPorts)
	if err := errors.Join(
		bpfobj.SetSAMax(spec, o.SATableSize),
		resize(spec, "events", o.RingBytes),
		set(spec, "cfg_natt_ports", ports),
		set(spec, "cfg_events_per_sec", o.EventsPerSec),
	); err != nil {
		return nil, nil, fmt.Errorf("prepare wire object: %w", err)
	}
	forWays(spec, p)
	coll, dropped, err := loadDropping(spec, ebpf.CollectionOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("load wire programs: %w", err)
	}
	if err := bpfobj.FillSlots(coll); err != nil {
		coll.Close()
		return nil, nil, fmt.Errorf("prepare wire maps: %w", err)
	}
	return coll, dropped, nil
}

// wirePrograms are the programs that some hook may use.
func (p Plan) wirePrograms() []string {
	var names []string
	for _, h := range p.Wire {
		for _, c := range h.Try {
			names = append(names, c.Program)
		}
	}
	return names
}

// forWays adapts the programs to the ways in which they will be attached.
func forWays(spec *ebpf.CollectionSpec, p Plan) {
	// A program that can take packets in several buffers may be attached at any MTU (5.18). It
	// reads headers only, and those are in the first buffer.
	if prog := spec.Programs["xdp_ingress"]; prog != nil && p.XDPFrags {
		prog.Flags |= unix.BPF_F_XDP_HAS_FRAGS
	}
	for _, h := range p.Wire {
		for _, c := range h.Try {
			if prog := spec.Programs[c.Program]; prog != nil && (c.Way == WayTCX || c.Way == WayClsact) {
				prog.AttachType = c.LoadAs
			}
		}
	}
}

// attachWire attaches every wire hook. A hook that the plan requires has to hold, and so does at
// least one of all.
func (s *Set) attachWire() error {
	coll, dropped, err := loadWire(s.plan)
	if err != nil {
		return err
	}
	s.wire = coll
	held := 0
	for _, h := range s.plan.Wire {
		l, c, why := attachWire(h, coll.Programs, dropped)
		s.add(h, l, c, why)
		switch {
		case l != nil:
			held++
		case h.Required:
			return fmt.Errorf("attach %s in mode %s: %s", h.Name, s.plan.Options.Mode, strings.Join(why, "; "))
		}
	}
	if held == 0 {
		return fmt.Errorf("attach to the wire: no hook holds: %s", s.reasons())
	}
	return nil
}

func (s *Set) reasons() string {
	var out []string
	for _, h := range s.hooks {
		if !h.Attached {
			out = append(out, h.Name+": "+h.Why)
		}
	}
	return strings.Join(out, "; ")
}
