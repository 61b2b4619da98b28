// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"

	"xfrmscope/internal/bpfobj"
)

// stackPlace is a hook in the stack, independent of the kernel at hand.
type stackPlace struct {
	program  string // the fentry one; its twin is called program_kprobe
	function string
	costs    string
}

// audits are the functions that xfrm calls for packets it is about to drop. They fire only then.
var audits = []stackPlace{
	{"audit_replay", "xfrm_audit_state_replay",
		"a replayed packet is not told from a late one, and lateness is not measured"},
	{"audit_icvfail", "xfrm_audit_state_icvfail",
		"an ESN packet from below the window is not told from a forged or corrupted one"},
	{"audit_notfound", "xfrm_audit_state_notfound",
		"packets without an SA are counted, but not with their SPI and number"},
	{"audit_notfound_simple", "xfrm_audit_state_notfound_simple",
		"IPv6 packets without an SA for their destination options or routing header are not told apart"},
	{"audit_replay_overflow", "xfrm_audit_state_replay_overflow",
		"an outbound SA that has used up its sequence numbers is known only by its counter"},
}

// kfreeName is the hook that counts; the audit hooks only explain.
const kfreeName = "kfree_skb"

const costKfree = "xfrm drops are not attributed to SAs and causes beyond what the audit hooks see: the kernel's own counters must do"

// noStack says why no program in the stack can work on this kernel: all of them find the kernel's fields by its
// types and read them. To find out by loading each of them would take its time. Empty: they may.
func (c Capabilities) noStack() string {
	switch {
	case refused(c.BTF):
		return fmt.Sprintf("no BTF: %v", c.BTF)
	case refused(c.Memory):
		return c.Memory.Error()
	}
	return ""
}

func stackHooks(caps Capabilities) []Hook {
	kfree := Hook{Name: kfreeName, Costs: costKfree, Try: []Candidate{{Program: kfreeName, Way: WayRawTP}}}
	if why := caps.noStack(); why != "" {
		kfree.Try, kfree.Why = nil, []string{why}
	}
	hooks := []Hook{kfree}
	for _, place := range audits {
		hooks = append(hooks, functionHook(caps, place))
	}
	return hooks
}

// functionHook prefers fentry, which costs a third of a kprobe and reads its arguments directly.
func functionHook(caps Capabilities, place stackPlace) Hook {
	h := Hook{Name: place.function, Costs: place.costs}
	if why, gone := caps.Missing[place.function]; gone {
		h.Why = append(h.Why, why)
		return h
	}
	if why := caps.noStack(); why != "" {
		h.Why = append(h.Why, why)
		return h
	}
	if refused(caps.Fentry) {
		h.Why = append(h.Why, fmt.Sprintf("fentry: %v", caps.Fentry))
	} else {
		h.Try = append(h.Try, Candidate{Program: place.program, Way: WayFentry})
	}
	if refused(caps.Kprobe) {
		h.Why = append(h.Why, fmt.Sprintf("kprobe: %v", caps.Kprobe))
	} else {
		h.Try = append(h.Try, Candidate{Program: place.program + bpfobj.KprobeSuffix, Way: WayKprobe})
	}
	return h
}
