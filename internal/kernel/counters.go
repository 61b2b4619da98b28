// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// Counter is one of the kernel's xfrm counters.
type Counter struct {
	Number uint32 // index into the kernel's array, LINUX_MIB_XFRM*: differs between kernels
	Name   string // as /proc/net/xfrm_stat prints it, or the enum's name where that is not known
	Known  bool
}

const mibPrefix = "LINUX_MIB_XFRM"

// counterNames are the names of net/xfrm/xfrm_proc.c up to 7.3. All but one are the enum's own with
// other letters in capitals, so that upper case finds them.
var counterNames = []string{
	"XfrmInError", "XfrmInBufferError", "XfrmInHdrError", "XfrmInNoStates", "XfrmInStateProtoError",
	"XfrmInStateModeError", "XfrmInStateSeqError", "XfrmInStateExpired", "XfrmInStateMismatch",
	"XfrmInStateInvalid", "XfrmInTmplMismatch", "XfrmInNoPols", "XfrmInPolBlock", "XfrmInPolError",
	"XfrmOutError", "XfrmOutBundleGenError", "XfrmOutBundleCheckError", "XfrmOutNoStates",
	"XfrmOutStateProtoError", "XfrmOutStateModeError", "XfrmOutStateSeqError", "XfrmOutStateExpired",
	"XfrmOutPolBlock", "XfrmOutPolDead", "XfrmOutPolError", "XfrmFwdHdrError", "XfrmOutStateInvalid",
	"XfrmAcquireError", "XfrmOutStateDirError", "XfrmInStateDirError", "XfrmInIptfsError",
	"XfrmOutNoQueueSpace",
}

// counterName gives the printed name of LINUX_MIB_XFRM<suffix>.
func counterName(suffix string) (string, bool) {
	if suffix == "OUTNOQSPACE" {
		return "XfrmOutNoQueueSpace", true
	}
	for _, name := range counterNames {
		if strings.EqualFold(name, "Xfrm"+suffix) {
			return name, true
		}
	}
	return mibPrefix + suffix, false
}

// Tables are the numbers that this kernel gives to things, by their names in its BTF.
type Tables struct {
	Counters []Counter         // by rising number; slot 0 is not a counter
	Slots    uint32            // __LINUX_MIB_XFRMMAX: length of the kernel's array
	Reasons  map[uint32]string // enum skb_drop_reason without its prefix; nil below 5.17 and its backports
}

// LoadTables reads them from the running kernel's BTF.
func LoadTables(types *btf.Cache) (*Tables, error) {
	spec, err := types.Kernel()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's types (needs CONFIG_DEBUG_INFO_BTF): %w", err)
	}
	return tablesFrom(spec, moduleTypes(types))
}

func tablesFrom(spec *btf.Spec, module func(string) *btf.Spec) (*Tables, error) {
	t := &Tables{}
	// The counters' enum has no name, so all types must be looked at.
	for typ, err := range spec.All() {
		if err != nil {
			return nil, fmt.Errorf("walk the kernel's types: %w", err)
		}
		if enum, ok := typ.(*btf.Enum); ok && enum.Name == "" && len(enum.Values) > 0 && enum.Values[0].Name == mibPrefix+"NUM" {
			t.addCounters(enum)
			break
		}
	}
	if t.Slots == 0 {
		return nil, fmt.Errorf("find enum %s* in the kernel's types: not there: is CONFIG_XFRM_STATISTICS set?", mibPrefix)
	}
	t.Reasons = reasonsFrom(spec, module)
	return t, nil
}

func (t *Tables) addCounters(enum *btf.Enum) {
	for _, v := range enum.Values {
		suffix, ok := strings.CutPrefix(v.Name, mibPrefix)
		switch {
		case v.Name == "__"+mibPrefix+"MAX":
			t.Slots = uint32(v.Value)
		case ok && suffix != "NUM":
			name, known := counterName(suffix)
			t.Counters = append(t.Counters, Counter{uint32(v.Value), name, known})
		}
	}
	slices.SortFunc(t.Counters, func(a, b Counter) int { return int(a.Number) - int(b.Number) })
}

// CounterName names a counter by its number in this kernel.
func (t *Tables) CounterName(number uint32) string {
	for _, c := range t.Counters {
		if c.Number == number {
			return c.Name
		}
	}
	return fmt.Sprintf("xfrm counter %d", number)
}

// ReasonName names a drop reason by its number in this kernel, "" where it gives none.
func (t *Tables) ReasonName(number uint32) string {
	return Reasons(t.Reasons).Name(number)
}

// ReasonNumber finds a drop reason by its name without prefix.
func (t *Tables) ReasonNumber(name string) (uint32, bool) {
	return Reasons(t.Reasons).Number(name)
}
