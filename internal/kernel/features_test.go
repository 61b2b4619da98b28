// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

func TestAnswer(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want State
	}{
		{nil, Yes},
		{ebpf.ErrNotSupported, No},
		{unix.EPERM, Unknown},
		{errors.New("anything"), Unknown},
	} {
		if got := answer(tc.err); got.State != tc.want || !errors.Is(got.Err, tc.err) {
			t.Errorf("answer(%v) is %+v, want %s", tc.err, got, tc.want)
		}
	}
}

func TestProbeFeatures(t *testing.T) {
	if os.Geteuid() != 0 {
		needRoot(t, errors.New("needs root"))
	}
	f := ProbeFeatures(btf.NewCache())
	t.Logf("%+v", f)
	// These hold on every kernel that xfrmscope supports.
	for name, a := range map[string]Answer{"BTF": f.BTF, "ring buffer": f.RingBuffer, "raw tracepoint": f.RawTracepoint, "reading memory": f.ReadMemory, "run on CPU": f.RunOnCPU} {
		if !a.OK() {
			t.Errorf("%s: %s: %v", name, a.State, a.Err)
		}
	}
	for name, a := range map[string]Answer{"atomics": f.Atomics, "tcx": f.TCX, "cast": f.Cast, "XDP metadata": f.XDPMetadata} {
		if a.State == Unknown {
			t.Errorf("%s: no clear answer: %v", name, a.Err)
		}
	}
	if a := Fentry("no_such_function_in_any_kernel"); a.State != No {
		t.Errorf("fentry on an absent function: %s: %v", a.State, a.Err)
	}
	t.Logf("fentry: %+v", Fentry("xfrm_audit_state_replay"))
	t.Logf("kprobe: %+v", Kprobe("xfrm_audit_state_replay"))
}

func TestMissingCapabilities(t *testing.T) {
	const all = 1<<unix.CAP_BPF | 1<<unix.CAP_PERFMON | 1<<unix.CAP_NET_ADMIN
	if err := missing(all); err != nil {
		t.Error(err)
	}
	if err := missing(1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN); err != nil {
		t.Error(err)
	}
	err := missing(1<<unix.CAP_BPF | 1<<unix.CAP_SYS_PTRACE)
	if !errors.Is(err, ErrCapability) || !strings.Contains(err.Error(), "CAP_PERFMON, CAP_NET_ADMIN") || strings.Contains(err.Error(), "CAP_BPF") {
		t.Errorf("error is %v", err)
	}
}

func TestRelease(t *testing.T) {
	release, err := Release()
	if err != nil || !strings.Contains(release, ".") {
		t.Errorf("release %q: %v", release, err)
	}
}
