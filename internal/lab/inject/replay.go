// SPDX-License-Identifier: Apache-2.0

package inject

// Replay is what a receiver with anti-replay has to make of the packets that left the path.
type Replay struct {
	Accepted  int
	Duplicate int // inside the window, seen before
	Late      int // below the window
	MisEpoch  int // below the window under ESN: decrypted with the wrong high half, so the ICV fails
	Integrity int // corrupted
}

// Replay predicts the receiver's verdicts from RFC 4303 section 3.4.3: the number is checked against
// the window, then the ICV, and only an authentic packet moves the window. last is the highest
// number that the receiver had authenticated before; window 0 means that it checks no numbers.
// Predicting ESN's choice of the wrong epoch this way holds as long as the window lies in one epoch.
func (t Truth) Replay(last uint64, window uint32, esn bool) Replay {
	var r Replay
	top := last
	seen := map[uint64]bool{}
	for _, d := range t.Out {
		below := d.Seq <= top && top-d.Seq >= uint64(window)
		switch {
		case window > 0 && below && esn:
			r.MisEpoch++
		case window > 0 && below:
			r.Late++
		case window > 0 && seen[d.Seq]:
			r.Duplicate++
		case d.Fate == Corrupted:
			r.Integrity++
		default:
			r.Accepted++
			seen[d.Seq] = true
			top = max(top, d.Seq)
		}
	}
	return r
}
