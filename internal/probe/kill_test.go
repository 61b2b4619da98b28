// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

const childEnv = "XFRMSCOPE_TEST_CHILD"

// TestMain lets the test binary be its own child, which attaches and waits to be killed.
func TestMain(m *testing.M) {
	if ns := os.Getenv(childEnv); ns != "" {
		child(ns)
	}
	os.Exit(m.Run())
}

func child(ns string) {
	k, err := AskKernel()
	if err == nil {
		mode := ModeXDP // on the way in; out there is only TC
		if os.Getenv(childEnv+"_OLD") != "" {
			k.Capabilities.TCX, k.Capabilities.XDPLink, mode = errNo, errNo, ModeAuto
		}
		_, err = Open(k, Options{Netns: ns, Mode: mode})
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready")
	time.Sleep(time.Minute) // an orphan ends by itself
	os.Exit(1)
}

// kill runs a child that observes the lab's near end and ends it by SIGKILL.
func (l *lab) kill(t *testing.T, env ...string) {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(append(os.Environ(), childEnv+"="+l.nearName), env...)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Errorf("child: %q, %v", line, err)
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed; that is what it says
}

// settled waits until the device's state is as wanted: descriptors of a dead process are closed
// shortly after it.
func (l *lab) settled(t *testing.T, dev string, want state) {
	t.Helper()
	var got state
	for range 500 {
		if got = l.state(t, dev); cmp.Equal(want, got) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("after SIGKILL (-want +got):\n%s", cmp.Diff(want, got))
}

func TestKilledLeavesNothing(t *testing.T) {
	if k := needBPF(t); refused(k.Capabilities.TCX) {
		t.Skip("this kernel has no links for TC: see TestKilledClsactLeavesStubs")
	}
	l := newLab(t)
	l.veth(t, "wan", ownIP+"/24")
	before := l.state(t, "wan")
	l.kill(t)
	l.settled(t, "wan", before)
}

// TestKilledClsactLeavesStubs says exactly what remains where the kernel has no links for TC, that
// it is inert, and that the next run removes it.
func TestKilledClsactLeavesStubs(t *testing.T) {
	k := *needBPF(t)
	k.Capabilities.TCX, k.Capabilities.XDPLink = errNo, errNo
	l := newLab(t)
	l.veth(t, "wan", ownIP+"/24")
	before := l.state(t, "wan")
	l.kill(t, childEnv+"_OLD=1")
	left := state{Clsact: true, FiltersIn: []string{"xfrmscope"}, FOut: []string{"xfrmscope"}}
	l.settled(t, "wan", left)
	l.inert(t, "wan")

	s, err := Open(&k, Options{Netns: l.nearName, WireOnly: true})
	must(t, err)
	if diff := cmp.Diff(left, l.state(t, "wan")); diff != "" {
		t.Errorf("with the next run (-want +got): its own filters alone:\n%s", diff)
	}
	must(t, s.Close())
	// The qdisc was there when the next run came, so it stays: it may be somebody else's by now.
	before.Clsact = true
	if diff := cmp.Diff(before, l.state(t, "wan")); diff != "" {
		t.Errorf("after the next run (-want +got):\n%s", diff)
	}
}

// inert waits until the stubs on a device have nothing left to call, which is as soon as the kernel has
// let go of the dead process's programs.
func (l *lab) inert(t *testing.T, dev string) {
	t.Helper()
	var err error
	for range 500 {
		if err = l.near.Do(func() error { return stubsCallNothing(dev) }); err == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error(err)
}

func stubsCallNothing(dev string) error {
	nl, err := netlink.LinkByName(dev)
	if err != nil {
		return err
	}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := netlink.FilterList(nl, parent)
		if err != nil {
			return err
		}
		for _, f := range filters {
			if err := callsNothing(ebpf.ProgramID(f.(*netlink.BpfFilter).Id)); err != nil {
				return err
			}
		}
	}
	return nil
}

func callsNothing(id ebpf.ProgramID) error {
	prog, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return err
	}
	defer prog.Close()
	info, err := prog.Info()
	if err != nil {
		return err
	}
	maps, _ := info.MapIDs()
	if len(maps) != 1 {
		return fmt.Errorf("the stub has %d maps, want its program array", len(maps))
	}
	calls, err := ebpf.NewMapFromID(maps[0])
	if err != nil {
		return err
	}
	defer calls.Close()
	var target uint32
	if err := calls.Lookup(uint32(0), &target); !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("the stub still calls program %d (%v)", target, err)
	}
	return nil
}
