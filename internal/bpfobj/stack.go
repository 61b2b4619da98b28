// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/cilium/ebpf"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -cflags "-O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -I../../bpf/headers -I../../bpf/lib -nostdinc" Stack ../../bpf/stack.bpf.c

// The kernel's types of bpf/lib/abi.h and bpf/lib/stack_maps.h that only the stack programs use.
type (
	Cause      = StackCause
	Site       = StackSite
	StackKey   = StackStackKey
	StackCount = StackStackCount
	RefusalKey = StackRefusalKey
	Refusal    = StackRefusal
)

// What shadow_sync returns: enum sync of bpf/stack.bpf.c.
const (
	SyncDone    = 0
	SyncBusy    = 1 // it interrupted kfree_skb on that CPU: run it again
	SyncNoNetns = 2 // pick_netns has not been run
)

// AuditHooks are the programs that sit on the kernel's xfrm_audit_state_* functions, by the name of
// the fentry program; the kprobe twin's name has the suffix KprobeSuffix.
var AuditHooks = []string{
	"audit_replay", "audit_icvfail", "audit_notfound", "audit_notfound_simple", "audit_replay_overflow",
}

// KprobeSuffix makes the name of a kprobe twin from that of its fentry program.
const KprobeSuffix = "_kprobe"

// StackConfig is what the stack programs must be told about the kernel before they are loaded.
type StackConfig struct {
	Sites        []Site            // sorted by start, not overlapping; nil: the symbols are not readable
	HasReason    bool              // the kernel has enum skb_drop_reason
	XfrmPolicy   uint32            // its number of SKB_DROP_REASON_XFRM_POLICY, 0: none
	HaveKfree    bool              // kfree_skb will be attached
	HaveAudit    bool              // audit_replay and audit_icvfail, or their twins, will be attached
	CounterSlots uint32            // __LINUX_MIB_XFRMMAX
	Counters     map[uint32]string // kernel counter names as in /proc/net/xfrm_stat, by LINUX_MIB_XFRM* number
	EventsPerSec uint32            // per CPU and cause; 0: as compiled
}

// ConfigureStack writes it into the object's constants.
func ConfigureStack(spec *ebpf.CollectionSpec, c StackConfig) error {
	var vars StackVariableSpecs
	if err := spec.Assign(&vars); err != nil {
		return fmt.Errorf("find the stack programs' settings: %w", err)
	}
	sites := make([]Site, vars.CfgSites.Size()/uint32(unsafe.Sizeof(Site{})))
	if len(c.Sites) > len(sites) {
		return fmt.Errorf("set sites of dropped packets: %d, room for %d", len(c.Sites), len(sites))
	}
	for i := range sites {
		sites[i].Start, sites[i].End = math.MaxUint64, math.MaxUint64
	}
	copy(sites[:], c.Sites)
	causes := make([]uint32, vars.CfgCauseOfMib.Size()/4)
	for i := range causes {
		causes[i] = uint32(StackCauseCAUSE_OTHER)
	}
	if int(c.CounterSlots) > len(causes) {
		return fmt.Errorf("set xfrm counters: this kernel has %d, room for %d", c.CounterSlots, len(causes))
	}
	for number, name := range c.Counters {
		if int(number) < len(causes) {
			causes[number] = uint32(CauseOfCounter(name))
		}
	}
	settings := []struct {
		to    *ebpf.VariableSpec
		value any
	}{
		{vars.CfgSites, sites},
		{vars.CfgFilterLocations, flag(len(c.Sites) > 0)},
		{vars.CfgHasReason, flag(c.HasReason)},
		{vars.CfgReasonXfrmPolicy, c.XfrmPolicy},
		{vars.CfgHaveKfree, flag(c.HaveKfree)},
		{vars.CfgHaveAudit, flag(c.HaveAudit)},
		{vars.CfgMibSlots, c.CounterSlots},
		{vars.CfgCauseOfMib, causes},
	}
	for _, s := range settings {
		if err := s.to.Set(s.value); err != nil {
			return fmt.Errorf("set %s of the stack programs: %w", s.to.Name, err)
		}
	}
	if c.EventsPerSec == 0 {
		return nil
	}
	if err := vars.CfgEventsPerSec.Set(c.EventsPerSec); err != nil {
		return fmt.Errorf("set cfg_events_per_sec of the stack programs: %w", err)
	}
	return nil
}

func flag(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// causeOfCounter names the cause that a counter stands for by itself, before the stack programs
// refine it.
var causeOfCounter = map[string]Cause{
	"XfrmInError":             StackCauseCAUSE_IN_ERROR,
	"XfrmInBufferError":       StackCauseCAUSE_IN_BUFFER_ERROR,
	"XfrmInHdrError":          StackCauseCAUSE_IN_HDR_ERROR,
	"XfrmInNoStates":          StackCauseCAUSE_NO_STATE,
	"XfrmInStateProtoError":   StackCauseCAUSE_PROTO_ERROR,
	"XfrmInStateModeError":    StackCauseCAUSE_STATE_MODE_ERROR,
	"XfrmInStateSeqError":     StackCauseCAUSE_REPLAY_UNSPECIFIED,
	"XfrmInStateExpired":      StackCauseCAUSE_STATE_EXPIRED,
	"XfrmInStateMismatch":     StackCauseCAUSE_STATE_MISMATCH,
	"XfrmInStateInvalid":      StackCauseCAUSE_STATE_INVALID,
	"XfrmInTmplMismatch":      StackCauseCAUSE_TMPL_MISMATCH,
	"XfrmInNoPols":            StackCauseCAUSE_NO_POLS,
	"XfrmInPolBlock":          StackCauseCAUSE_POL_BLOCK,
	"XfrmInPolError":          StackCauseCAUSE_POL_ERROR,
	"XfrmOutError":            StackCauseCAUSE_OUT_ERROR,
	"XfrmOutBundleGenError":   StackCauseCAUSE_OUT_BUNDLE_GEN_ERROR,
	"XfrmOutBundleCheckError": StackCauseCAUSE_OUT_BUNDLE_CHECK_ERROR,
	"XfrmOutNoStates":         StackCauseCAUSE_OUT_NO_STATES,
	"XfrmOutStateProtoError":  StackCauseCAUSE_OUT_PROTO_ERROR,
	"XfrmOutStateModeError":   StackCauseCAUSE_OUT_MODE_ERROR,
	"XfrmOutStateSeqError":    StackCauseCAUSE_OUT_SEQ_ERROR,
	"XfrmOutStateExpired":     StackCauseCAUSE_OUT_EXPIRED,
	"XfrmOutPolBlock":         StackCauseCAUSE_OUT_POL_BLOCK,
	"XfrmOutPolDead":          StackCauseCAUSE_OUT_POL_DEAD,
	"XfrmOutPolError":         StackCauseCAUSE_OUT_POL_ERROR,
	"XfrmFwdHdrError":         StackCauseCAUSE_FWD_HDR_ERROR,
	"XfrmOutStateInvalid":     StackCauseCAUSE_OUT_INVALID,
	"XfrmAcquireError":        StackCauseCAUSE_ACQUIRE_ERROR,
	"XfrmOutStateDirError":    StackCauseCAUSE_OUT_DIR_ERROR,
	"XfrmInStateDirError":     StackCauseCAUSE_STATE_DIR_ERROR,
	"XfrmInIptfsError":        StackCauseCAUSE_IN_IPTFS_ERROR,
	"XfrmOutNoQueueSpace":     StackCauseCAUSE_OUT_NO_QUEUE_SPACE,
}

// CauseOfCounter gives that cause; a counter of a kernel to come is StackCauseCAUSE_OTHER.
func CauseOfCounter(name string) Cause {
	if cause, ok := causeOfCounter[name]; ok {
		return cause
	}
	return StackCauseCAUSE_OTHER
}
