// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

func stackSpec(t *testing.T) *ebpf.CollectionSpec {
	t.Helper()
	spec, err := LoadStack()
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// Every audit hook has its twin, on the function that its name says.
func TestStackTwins(t *testing.T) {
	spec := stackSpec(t)
	for _, name := range AuditHooks {
		target := "xfrm_audit_state_" + strings.TrimPrefix(name, "audit_")
		fentry, kprobe := spec.Programs[name], spec.Programs[name+KprobeSuffix]
		if fentry == nil || kprobe == nil {
			t.Errorf("%s: fentry %v, kprobe %v", name, fentry, kprobe)
			continue
		}
		if fentry.AttachTo != target || fentry.AttachType != ebpf.AttachTraceFEntry || kprobe.AttachTo != target || kprobe.Type != ebpf.Kprobe {
			t.Errorf("%s sits on %s, its twin on %s; want %s", name, fentry.AttachTo, kprobe.AttachTo, target)
		}
	}
	if want := 2*len(AuditHooks) + 3; len(spec.Programs) != want {
		t.Errorf("%d programs, want %d", len(spec.Programs), want)
	}
}

// The causes that the loader sets must be causes that the programs know how to sort.
func TestCauseOfCounter(t *testing.T) {
	names, err := EnumNames(stackSpec(t), "cause")
	if err != nil {
		t.Fatal(err)
	}
	refined := map[string]bool{"none": true, "replay_duplicate": true, "replay_late": true, "esn_mis_epoch": true, "integrity_failed": true, "other": true,
		"encap_mismatch": true, "out_default_block": true, "out_interface": true,
		"inner_mode_error": true, "pol_hdr_error": true, "pol_buffer_error": true}
	plain := map[Cause]string{}
	for counter := range causeOfCounter {
		cause := CauseOfCounter(counter)
		if other, taken := plain[cause]; taken {
			t.Errorf("%s and %s both are cause %d", counter, other, cause)
		}
		plain[cause] = counter
	}
	for i, name := range names {
		if _, ok := plain[Cause(i)]; ok == refined[name] {
			t.Errorf("cause %s: counter %q, refined %v", name, plain[Cause(i)], refined[name])
		}
	}
	if CauseOfCounter("XfrmInNovelty") != StackCauseCAUSE_OTHER {
		t.Error("a counter to come has a cause")
	}
}

// No program of ours may be able to reach keys: the pointers to them are not even declared.
func TestStackDeclaresNoKeys(t *testing.T) {
	var state *btf.Struct
	if err := stackSpec(t).Types.TypeByName("xfrm_state", &state); err != nil {
		t.Fatal(err)
	}
	if len(state.Members) == 0 {
		t.Fatal("struct xfrm_state is empty")
	}
	for _, m := range state.Members {
		switch m.Name {
		case "aalg", "ealg", "calg", "aead", "data", "security":
			t.Errorf("struct xfrm_state declares %s", m.Name)
		}
	}
}

// ConfigureStack refuses what does not fit, and sets what does.
func TestConfigureStack(t *testing.T) {
	spec := stackSpec(t)
	good := StackConfig{CounterSlots: 33, Counters: map[uint32]string{4: "XfrmInNoStates"}, Sites: []Site{{Start: 1, End: 2, Kind: 3}}, EventsPerSec: 5}
	if err := ConfigureStack(spec, good); err != nil {
		t.Fatal(err)
	}
	var sites [256]Site
	var causes [48]uint32
	var filter, rate uint32
	for name, to := range map[string]any{"cfg_sites": &sites, "cfg_cause_of_mib": &causes, "cfg_filter_locations": &filter, "cfg_events_per_sec": &rate} {
		if err := spec.Variables[name].Get(to); err != nil {
			t.Fatal(err)
		}
	}
	if sites[0] != good.Sites[0] || sites[1].Start != ^uint64(0) || sites[255].Start != ^uint64(0) {
		t.Errorf("sites %v, %v ... %v", sites[0], sites[1], sites[255])
	}
	if causes[4] != uint32(StackCauseCAUSE_NO_STATE) || causes[5] != uint32(StackCauseCAUSE_OTHER) || filter != 1 || rate != 5 {
		t.Errorf("causes %v, filter %d, rate %d", causes, filter, rate)
	}
	if err := ConfigureStack(spec, StackConfig{Sites: make([]Site, 257)}); err == nil {
		t.Error("257 sites were accepted")
	}
	if err := ConfigureStack(spec, StackConfig{CounterSlots: 49}); err == nil {
		t.Error("49 counters were accepted")
	}
}

// Each way of setting the constants is another program to the verifier.
func TestStackLoads(t *testing.T) {
	needBPF(t)
	for i := range 8 {
		config := StackConfig{HasReason: i&1 != 0, HaveAudit: i&2 != 0, HaveKfree: true, CounterSlots: 33}
		if i&4 != 0 {
			config.Sites = []Site{{Start: 1, End: 2}}
		}
		t.Run(fmt.Sprintf("%+v", config), func(t *testing.T) {
			spec := stackSpec(t)
			if err := ConfigureStack(spec, config); err != nil {
				t.Fatal(err)
			}
			for name := range spec.Programs {
				if name != "kfree_skb" && name != "pick_netns" && name != "shadow_sync" {
					delete(spec.Programs, name)
				}
			}
			coll, err := ebpf.NewCollection(spec)
			if err != nil {
				t.Fatalf("%+v", err)
			}
			defer coll.Close()
			// Before pick_netns there is nothing to prime, and the program says so.
			got, err := coll.Programs["shadow_sync"].Run(&ebpf.RunOptions{Flags: 1})
			if err != nil || got != SyncNoNetns {
				t.Errorf("shadow_sync without a namespace: %d, %v", got, err)
			}
			if got, err = coll.Programs["pick_netns"].Run(&ebpf.RunOptions{}); err != nil || got != 1 {
				t.Errorf("pick_netns: %d, %v", got, err)
			}
			if got, err = coll.Programs["shadow_sync"].Run(&ebpf.RunOptions{Flags: 1}); err != nil || got != SyncDone {
				t.Errorf("shadow_sync: %d, %v", got, err)
			}
			var shadows []StackShadow
			if err := coll.Maps["shadows"].Lookup(uint32(0), &shadows); err != nil {
				t.Fatal(err)
			}
			primed := 0
			for _, s := range shadows {
				primed += int(s.Primed)
			}
			if primed != 1 {
				t.Errorf("%d CPUs are primed, want the one it ran on", primed)
			}
		})
	}
}
