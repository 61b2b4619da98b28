// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"maps"
	"slices"
	"strings"
)

// The causes that the stack programs tell apart, in the order of enum cause (bpf/lib/abi.h).
const (
	ReplayDuplicate     Cause = "replay_duplicate"
	ReplayLate          Cause = "replay_late"
	ReplayUnspecified   Cause = "replay_unspecified"
	ESNMisEpoch         Cause = "esn_mis_epoch"
	IntegrityFailed     Cause = "integrity_failed"
	ProtoError          Cause = "proto_error"
	NoState             Cause = "no_state"
	StateInvalid        Cause = "state_invalid"
	StateExpired        Cause = "state_expired"
	StateMismatch       Cause = "state_mismatch"
	StateModeError      Cause = "state_mode_error"
	StateDirError       Cause = "state_dir_error"
	AcquireError        Cause = "acquire_error"
	InError             Cause = "in_error"
	InBufferError       Cause = "in_buffer_error"
	InHdrError          Cause = "in_hdr_error"
	InIptfsError        Cause = "in_iptfs_error"
	TmplMismatch        Cause = "tmpl_mismatch"
	NoPols              Cause = "no_pols"
	PolBlock            Cause = "pol_block"
	PolError            Cause = "pol_error"
	FwdHdrError         Cause = "fwd_hdr_error"
	OutError            Cause = "out_error"
	OutBundleGenError   Cause = "out_bundle_gen_error"
	OutBundleCheckError Cause = "out_bundle_check_error"
	OutNoStates         Cause = "out_no_states"
	OutProtoError       Cause = "out_proto_error"
	OutModeError        Cause = "out_mode_error"
	OutSeqError         Cause = "out_seq_error"
	OutExpired          Cause = "out_expired"
	OutInvalid          Cause = "out_invalid"
	OutDirError         Cause = "out_dir_error"
	OutPolBlock         Cause = "out_pol_block"
	OutPolDead          Cause = "out_pol_dead"
	OutPolError         Cause = "out_pol_error"
	OutNoQueueSpace     Cause = "out_no_queue_space"
	OtherCause          Cause = "other"
	EncapMismatch       Cause = "encap_mismatch"
	OutDefaultBlock     Cause = "out_default_block" // moves no counter
	OutInterface        Cause = "out_interface"     // moves no counter
	InnerModeError      Cause = "inner_mode_error"
	PolHdrError         Cause = "pol_hdr_error"
	PolBufferError      Cause = "pol_buffer_error"
)

// counterOf says which counter of /proc/net/xfrm_stat the kernel moves for a cause
// (include/uapi/linux/snmp.h, LINUX_MIB_XFRM*; the names are those of net/xfrm/xfrm_proc.c).
var counterOf = map[Cause]string{
	ReplayDuplicate:     "XfrmInStateSeqError",
	ReplayLate:          "XfrmInStateSeqError",
	ReplayUnspecified:   "XfrmInStateSeqError",
	ESNMisEpoch:         "XfrmInStateProtoError",
	IntegrityFailed:     "XfrmInStateProtoError",
	ProtoError:          "XfrmInStateProtoError",
	NoState:             "XfrmInNoStates",
	StateInvalid:        "XfrmInStateInvalid",
	StateExpired:        "XfrmInStateExpired",
	StateMismatch:       "XfrmInStateMismatch",
	EncapMismatch:       "XfrmInStateMismatch",
	StateModeError:      "XfrmInStateModeError",
	StateDirError:       "XfrmInStateDirError",
	AcquireError:        "XfrmAcquireError",
	InError:             "XfrmInError",
	InBufferError:       "XfrmInBufferError",
	InHdrError:          "XfrmInHdrError",
	InIptfsError:        "XfrmInIptfsError",
	TmplMismatch:        "XfrmInTmplMismatch",
	NoPols:              "XfrmInNoPols",
	PolBlock:            "XfrmInPolBlock",
	PolError:            "XfrmInPolError",
	FwdHdrError:         "XfrmFwdHdrError",
	InnerModeError:      "XfrmInStateModeError",
	PolHdrError:         "XfrmInHdrError",
	PolBufferError:      "XfrmInBufferError",
	OutError:            "XfrmOutError",
	OutBundleGenError:   "XfrmOutBundleGenError",
	OutBundleCheckError: "XfrmOutBundleCheckError",
	OutNoStates:         "XfrmOutNoStates",
	OutProtoError:       "XfrmOutStateProtoError",
	OutModeError:        "XfrmOutStateModeError",
	OutSeqError:         "XfrmOutStateSeqError",
	OutExpired:          "XfrmOutStateExpired",
	OutInvalid:          "XfrmOutStateInvalid",
	OutDirError:         "XfrmOutStateDirError",
	OutPolBlock:         "XfrmOutPolBlock",
	OutPolDead:          "XfrmOutPolDead",
	OutPolError:         "XfrmOutPolError",
	OutNoQueueSpace:     "XfrmOutNoQueueSpace",
}

// Counter names the counter of /proc/net/xfrm_stat that the kernel moves for this cause, or "" where
// there is none of that name.
func (c Cause) Counter() string { return counterOf[c] }

// Outbound says whether the cause belongs to the output path.
func (c Cause) Outbound() bool { return strings.HasPrefix(string(c), "out_") }

// AfterDecap says whether xfrm drops for this cause only once the packet was decrypted and counted
// in the SA's own lifetime counter (__xfrm_policy_check, __xfrm_route_forward). XfrmInStateMismatch
// is the selector's there; xfrm_input() counts a wrong encapsulation by it, which is EncapMismatch.
func (c Cause) AfterDecap() bool {
	switch c {
	case TmplMismatch, NoPols, PolBlock, PolError, FwdHdrError, StateMismatch, InnerModeError, PolHdrError, PolBufferError:
		return true
	}
	return false
}

// AfterNumbering says whether an outbound packet had already used up its sequence number when xfrm
// dropped it: xfrm_output_one numbers first and encrypts then.
func (c Cause) AfterNumbering() bool { return c == OutProtoError }

// Causes lists every cause that maps to a kernel counter, sorted.
func Causes() []Cause { return slices.Sorted(maps.Keys(counterOf)) }
