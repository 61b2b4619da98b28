// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// Reasons are this kernel's reasons for drops by their numbers: enum skb_drop_reason without its prefix,
// and those of the subsystems that have reasons of their own. nil below 5.17 and its backports.
type Reasons map[uint32]string

// A reason's upper half is the number of the subsystem that gives it (include/net/dropreason.h,
// SKB_DROP_REASON_SUBSYS_SHIFT).
const subsystemShift = 16

const subsystemPrefix = "SKB_DROP_REASON_SUBSYS_"

// subsystemReasons tells where a subsystem's reasons are defined: module, enum and what its names begin
// with. Subsystems that are not here are shown by name and number.
var subsystemReasons = map[string]struct{ module, enum, prefix string }{
	"OPENVSWITCH":       {"openvswitch", "ovs_drop_reason", "OVS_DROP_"},
	"MAC80211_UNUSABLE": {"mac80211", "mac80211_drop_reason", "___RX_DROP_"},
	"MAC80211_MONITOR":  {"mac80211", "mac80211_drop_reason", "___RX_DROP_"},
}

// LoadReasons reads them from the running kernel's BTF and that of its modules.
func LoadReasons(types *btf.Cache) (Reasons, error) {
	spec, err := types.Kernel()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's types (needs CONFIG_DEBUG_INFO_BTF): %w", err)
	}
	return reasonsFrom(spec, moduleTypes(types)), nil
}

// moduleTypes gives those of a loaded module; nil: it is not loaded, or has none (before 5.11).
func moduleTypes(types *btf.Cache) func(string) *btf.Spec {
	return func(module string) *btf.Spec {
		spec, err := types.Module(module)
		if err != nil {
			return nil
		}
		return spec
	}
}

func reasonsFrom(spec *btf.Spec, module func(string) *btf.Spec) Reasons {
	var core *btf.Enum
	if err := spec.TypeByName("skb_drop_reason", &core); err != nil {
		return nil
	}
	out := make(Reasons, len(core.Values))
	for _, v := range core.Values {
		// Other enums share the prefix, so only this one is read.
		out[uint32(v.Value)] = strings.TrimPrefix(v.Name, "SKB_DROP_REASON_")
	}
	var subsystems *btf.Enum
	if err := spec.TypeByName("skb_drop_reason_subsys", &subsystems); err != nil {
		return out // before 6.4
	}
	for _, s := range subsystems.Values {
		name, ok := strings.CutPrefix(s.Name, subsystemPrefix)
		if !ok || s.Value == 0 || name == "NUM" {
			continue
		}
		out.addSubsystem(name, uint32(s.Value), spec, module)
	}
	return out
}

// addSubsystem adds a subsystem's own reasons, each as SUBSYSTEM:NAME, and, at the subsystem's number alone,
// its name for reasons without one.
func (r Reasons) addSubsystem(name string, number uint32, spec *btf.Spec, module func(string) *btf.Spec) {
	r[number<<subsystemShift] = name
	where, ok := subsystemReasons[name]
	if !ok {
		return
	}
	var enum *btf.Enum
	if spec.TypeByName(where.enum, &enum) != nil {
		// Not built in.
		if spec = module(where.module); spec == nil || spec.TypeByName(where.enum, &enum) != nil {
			return
		}
	}
	for _, v := range enum.Values {
		if uint32(v.Value)>>subsystemShift != number || uint32(v.Value)&(1<<subsystemShift-1) == 0 || strings.HasSuffix(v.Name, "_MAX") {
			continue
		}
		if _, taken := r[uint32(v.Value)]; !taken {
			r[uint32(v.Value)] = name + ":" + strings.TrimPrefix(v.Name, where.prefix)
		}
	}
}

// Name names a reason, "" where the kernel gives none.
func (r Reasons) Name(number uint32) string {
	if r == nil {
		return ""
	}
	if name, ok := r[number]; ok {
		return name
	}
	if name, ok := r[number&^(1<<subsystemShift-1)]; ok && number>>subsystemShift != 0 {
		return fmt.Sprintf("%s:%d", name, number&(1<<subsystemShift-1))
	}
	return fmt.Sprintf("reason %d", number)
}

// Number finds a reason by its name, in whatever case.
func (r Reasons) Number(name string) (uint32, bool) {
	for number, n := range r {
		if strings.EqualFold(n, name) {
			return number, true
		}
	}
	return 0, false
}
