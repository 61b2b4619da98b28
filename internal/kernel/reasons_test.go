// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// types is a kernel's, or a module's, with these enums.
func types(t *testing.T, enums ...*btf.Enum) *btf.Spec {
	t.Helper()
	b, err := btf.NewBuilder(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range enums {
		if _, err := b.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

func enum(name string, values ...btf.EnumValue) *btf.Enum {
	return &btf.Enum{Name: name, Size: 4, Values: values}
}

// TestReasons names reasons of the core and of subsystems, whose types are in a module, built in, or nowhere.
func TestReasons(t *testing.T) {
	core := enum("skb_drop_reason", btf.EnumValue{Name: "SKB_NOT_DROPPED_YET", Value: 0}, btf.EnumValue{Name: "SKB_DROP_REASON_NO_SOCKET", Value: 3})
	subsystems := enum("skb_drop_reason_subsys",
		btf.EnumValue{Name: "SKB_DROP_REASON_SUBSYS_CORE", Value: 0}, btf.EnumValue{Name: "SKB_DROP_REASON_SUBSYS_MAC80211_UNUSABLE", Value: 1},
		btf.EnumValue{Name: "SKB_DROP_REASON_SUBSYS_OPENVSWITCH", Value: 2}, btf.EnumValue{Name: "SKB_DROP_REASON_SUBSYS_FUTURE", Value: 3},
		btf.EnumValue{Name: "SKB_DROP_REASON_SUBSYS_NUM", Value: 4})
	ovs := enum("ovs_drop_reason", btf.EnumValue{Name: "__OVS_DROP_REASON", Value: 2 << 16},
		btf.EnumValue{Name: "OVS_DROP_LAST_ACTION", Value: 2<<16 + 1}, btf.EnumValue{Name: "OVS_DROP_METER", Value: 2<<16 + 2})
	wireless := enum("mac80211_drop_reason", btf.EnumValue{Name: "RX_CONTINUE", Value: 1}, btf.EnumValue{Name: "___RX_DROP_UNUSABLE", Value: 1 << 16},
		btf.EnumValue{Name: "___RX_DROP_U_MIC_FAIL", Value: 1<<16 + 1})

	asked := ""
	r := reasonsFrom(types(t, core, subsystems, wireless), func(module string) *btf.Spec {
		asked += module
		return types(t, ovs)
	})
	if asked != "openvswitch" {
		t.Errorf("modules asked: %q, want openvswitch alone", asked)
	}
	for number, want := range map[uint32]string{
		0: "SKB_NOT_DROPPED_YET", 3: "NO_SOCKET", 99: "reason 99", 1<<16 + 1: "MAC80211_UNUSABLE:U_MIC_FAIL",
		2<<16 + 2: "OPENVSWITCH:METER", 2<<16 + 77: "OPENVSWITCH:77", 3<<16 + 5: "FUTURE:5",
	} {
		if got := r.Name(number); got != want {
			t.Errorf("reason %#x is %q, want %q", number, got, want)
		}
	}
	if n, ok := r.Number("openvswitch:meter"); !ok || n != 2<<16+2 {
		t.Errorf("openvswitch:meter is %#x, %v", n, ok)
	}
	absent := reasonsFrom(types(t, core, subsystems), func(string) *btf.Spec { return nil })
	if got := absent.Name(2<<16 + 2); got != "OPENVSWITCH:2" {
		t.Errorf("without the module: %q", got)
	}
	if none := reasonsFrom(types(t, subsystems), nil); none != nil || none.Name(3) != "" {
		t.Errorf("a kernel without reasons has %v", none)
	}
}
