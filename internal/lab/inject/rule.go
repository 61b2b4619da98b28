// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"fmt"
	"slices"
)

// Direction is the way a packet goes along the path.
type Direction int

// The two directions.
const (
	AtoB Direction = iota
	BtoA
	directions
)

// String names the direction as the gateways are named.
func (d Direction) String() string {
	switch d {
	case AtoB:
		return "A to B"
	case BtoA:
		return "B to A"
	default:
		return fmt.Sprintf("direction %d", int(d))
	}
}

// Action is what a rule does to a packet.
type Action int

// The faults.
const (
	Drop      Action = iota // never forward it
	Duplicate               // forward it, and Copies more of it after After later packets
	Delay                   // forward it after After later packets of its SA have passed
	Hold                    // forward it when Release is called
	Corrupt                 // forward it with one bit of its ciphertext flipped
	Mark                    // forward it marked "congestion experienced" (RFC 3168)
	Move                    // forward it from another UDP source port, as a NAT does whose binding changed
	Unwrap                  // forward it without its UDP header, as plain ESP over IPv4
	Wrap                    // forward it, plain ESP over IPv4, in UDP
)

// String names the action.
func (a Action) String() string {
	names := []string{"drop", "duplicate", "delay", "hold", "corrupt", "mark", "move", "unwrap", "wrap"}
	if a < 0 || int(a) >= len(names) {
		return fmt.Sprintf("action %d", int(a))
	}
	return names[a]
}

// Rule names packets of one SA by their sequence numbers and says what happens to them. A number is
// named by its low 32 bits, as it stands on the wire, and counts when it passes for the first time:
// a rule works once on each of its numbers.
type Rule struct {
	Direction Direction
	SPI       uint32
	Seqs      []uint32
	Action    Action
	Copies    int    // Duplicate: how many more; 0 means 1
	Port      uint16 // Move: the new source port
	After     int    // Delay and Duplicate: how many later packets of the SA pass first
}

// Every lists each step-th number from first up to and including last.
func Every(first, last, step uint32) []uint32 {
	var seqs []uint32
	for seq := uint64(first); seq <= uint64(last); seq += uint64(step) {
		seqs = append(seqs, uint32(seq))
	}
	return seqs
}

// work is a rule at work: what it still has to do and what it did.
type work struct {
	Rule
	left map[uint32]bool
	done int
}

// prepare checks the rules. Two rules that want the same packet are refused: what would happen to it
// then would be a matter of order, and the injector promises exactness.
func prepare(rules []Rule) ([]*work, error) {
	type claim struct {
		direction Direction
		spi, seq  uint32
	}
	claimed := map[claim]bool{}
	out := make([]*work, 0, len(rules))
	for i, r := range rules {
		switch {
		case r.Direction < 0 || r.Direction >= directions:
			return nil, fmt.Errorf("rule %d: no such direction: %d", i, r.Direction)
		case r.Action < Drop || r.Action > Wrap:
			return nil, fmt.Errorf("rule %d: no such action: %d", i, r.Action)
		case len(r.Seqs) == 0:
			return nil, fmt.Errorf("rule %d: names no packet", i)
		case r.Action == Move && r.Port == 0:
			return nil, fmt.Errorf("rule %d: moves to no port", i)
		case r.After < 0 || r.Copies < 0:
			return nil, fmt.Errorf("rule %d: negative count", i)
		case r.Action == Delay && r.After == 0:
			return nil, fmt.Errorf("rule %d: a delay past no packet is none", i)
		}
		if r.Action == Duplicate && r.Copies == 0 {
			r.Copies = 1
		}
		r.Seqs = slices.Clone(r.Seqs)
		w := &work{Rule: r, left: map[uint32]bool{}}
		for _, seq := range r.Seqs {
			c := claim{r.Direction, r.SPI, seq}
			if claimed[c] {
				return nil, fmt.Errorf("rule %d: packet %d of SA %#x is named twice", i, seq, r.SPI)
			}
			claimed[c], w.left[seq] = true, true
		}
		out = append(out, w)
	}
	return out, nil
}
