// SPDX-License-Identifier: Apache-2.0

package verdict

import "xfrmscope/internal/ledger"

// covered says whether a verdict judges the cause.
func covered(c ledger.Cause) bool {
	switch c {
	case ledger.ReplayDuplicate, ledger.ReplayLate, ledger.ReplayUnspecified, ledger.ESNMisEpoch, ledger.IntegrityFailed,
		ledger.NoState, ledger.StateInvalid, ledger.StateExpired, ledger.OutInvalid, ledger.OutExpired,
		ledger.TmplMismatch, ledger.NoPols, ledger.PolBlock, ledger.PolError, ledger.FwdHdrError, ledger.StateMismatch, ledger.EncapMismatch,
		ledger.AcquireError, ledger.StateDirError, ledger.OutNoStates, ledger.OutPolBlock, ledger.OutBundleGenError,
		ledger.OutDirError, ledger.OutPolError, ledger.OutPolDead, ledger.OutBundleCheckError,
		ledger.OutSeqError,
		ledger.ProtoError, ledger.InHdrError, ledger.PolHdrError, ledger.StateModeError, ledger.InnerModeError,
		ledger.InError, ledger.InBufferError, ledger.PolBufferError, ledger.OutError, ledger.OutProtoError:
		return true
	}
	return false
}

// Unjudged lists what xfrm dropped for causes that no verdict covers, by the kernel's counter: silence
// about them would look like health.
func Unjudged(r ledger.Report) map[string]int64 {
	judged := map[string]bool{}
	for _, c := range ledger.Causes() {
		if covered(c) {
			judged[c.Counter()] = true
		}
	}
	out := map[string]int64{}
	for name, n := range r.Kernel.XfrmStat {
		if !judged[name] && n != 0 {
			out[name] += n
		}
	}
	// A cause may hide behind a counter that other causes move too, and without the kernel's totals
	// the causes are all there is.
	add := func(causes map[ledger.Cause]int64) {
		for c, n := range causes {
			switch name := c.Counter(); {
			case covered(c) || n == 0:
			case name == "":
				out[string(c)] += n
			case judged[name]:
				out[name+" ("+string(c)+")"] += n
			case r.Kernel.XfrmStat == nil:
				out[name] += n
			}
		}
	}
	for i := range r.SAs {
		add(r.SAs[i].Xfrm)
	}
	add(r.Kernel.WithoutSA)
	return out
}
