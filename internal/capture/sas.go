// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"strings"
	"time"

	"xfrmscope/internal/ledger"
)

// saInfo is what else is known of an SA.
type saInfo struct {
	reqid uint32
	name  string
	seen  time.Time // when it was last there
}

// goneFor is how long an SA that is gone stays known beyond the packets of it that are held: some may still be
// under way.
const goneFor = time.Minute

// SetSAs tells which SAs there are now, for the comments. Those that are gone stay known for as long as packets
// of them may come or be written, and no longer: a capture may run without end.
func (r *Recorder) SetSAs(sad []ledger.SADEntry, names []ledger.SAName, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range sad {
		info := r.sas[e.Key]
		info.reqid, info.seen = e.ReqID, now
		r.sas[e.Key] = info
	}
	for _, n := range names {
		info := r.sas[n.Key]
		if info.reqid == 0 {
			info.reqid = n.ReqID
		}
		info.name, info.seen = strings.Trim(n.Connection+"/"+n.Child, "/"), now
		r.sas[n.Key] = info
	}
	for key, info := range r.sas {
		if now.Sub(info.seen) > r.opts.Last+r.opts.After+r.opts.Hold+goneFor {
			delete(r.sas, key)
		}
	}
}
