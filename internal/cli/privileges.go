// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/privilege"
)

// giveUp drops what the session no longer needs once everything is attached, opened and entered: what loads programs,
// attaches them, looks into the kernel's memory, shows its addresses and enters namespaces. The kernel asks for
// CAP_NET_ADMIN with each dump of SAs, policies and nftables, and to take away a clsact filter.
func (s *session) giveUp(o *liveOptions, progress io.Writer, needs ...privilege.Need) {
	needs = append(needs, privilege.Need{Cap: unix.CAP_NET_ADMIN}, privilege.ToWrite(o.readyFile))
	if source, err := s.set.Source(); err == nil && source.Lost != nil {
		needs = append(needs, toReadMaps(source.Lost))
	}
	if s.names != nil {
		needs = append(needs, privilege.ToConnect(s.names.Path())) // strongSwan may be started anew
	}
	drop(progress, needs...)
}

// drop gives up everything else. An observer with too many privileges is still one, so a failure is told and no more.
func drop(progress io.Writer, needs ...privilege.Need) {
	if err := privilege.Drop(needs...); err != nil {
		fmt.Fprintf(progress, "xfrmscope: some privileges are kept to the end: %v\n", err)
	}
}

// toReadMaps keeps what reading maps takes: below Linux 5.19, where unprivileged BPF is disabled, bpf(2) asks for CAP_BPF
// whatever it is to do.
func toReadMaps(m *ebpf.Map) privilege.Need {
	return privilege.Need{Cap: unix.CAP_BPF, Or: unix.CAP_SYS_ADMIN, Try: func() error {
		_, err := m.NextKeyBytes(nil)
		return err
	}}
}

// onlyFiles gives up what loading a program took, before captures are read with it: what a file holds is anybody's guess.
func onlyFiles(progress io.Writer, needs ...privilege.Need) func(*ebpf.Map) {
	return func(m *ebpf.Map) { drop(progress, append(needs, toReadMaps(m))...) }
}

// beforeFiles gives up all but what loads a program, for files that may be captures.
func beforeFiles(progress io.Writer, needs ...privilege.Need) {
	// Lifting the limit takes a privilege of its own; where it cannot be done, loading says so.
	_ = rlimit.RemoveMemlock()
	// The wire program computes with pointers, which the verifier lets those do only who may look into the kernel's memory.
	drop(progress, append(needs, privilege.Need{Cap: unix.CAP_BPF, Or: unix.CAP_SYS_ADMIN},
		privilege.Need{Cap: unix.CAP_PERFMON, Or: unix.CAP_SYS_ADMIN}, privilege.Need{Cap: unix.CAP_NET_ADMIN})...)
}
