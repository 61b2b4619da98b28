// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A TC filter belongs to its qdisc and outlives the process that added it, and below 6.6 there is no
// link that would not. So what is attached is not the observer but a stub that tail-calls it through
// a program array which only this process holds. When the last descriptor of a program array goes,
// however the process ends, the kernel empties it (bpf_fd_array_map_clear(), called when the user
// references are gone): the call then fails, the stub returns TC_ACT_UNSPEC as if it were not there,
// and the observer and its maps are freed. The stub itself is removed by Close, or after a SIGKILL by
// the next xfrmscope that attaches to the device, which knows it by its name and its dead owner.

// filterPrefix begins the name of each of our filters; the owner's pid and start time follow.
const filterPrefix = "xfrmscope:"

// filterCount keeps the handles of this process's filters apart; pids have at most 22 bits.
var filterCount atomic.Uint32

// clsactFilter is one filter of ours, and the qdisc if it was not there before.
type clsactFilter struct {
	handle *netlink.Handle // a socket in the device's namespace
	filter *netlink.BpfFilter
	qdisc  netlink.Qdisc // nil: it was there
	calls  *ebpf.Map
	stub   *ebpf.Program
}

// attachClsact puts a program on a device's ingress or egress in front of other filters.
func attachClsact(ifindex int, dir Direction, prog *ebpf.Program, as ebpf.AttachType) (_ *clsactFilter, err error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open route socket: %w", err)
	}
	c := &clsactFilter{handle: handle}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if err := removeStale(handle, ifindex); err != nil {
		return nil, err
	}
	if err := c.makeStub(prog, as); err != nil {
		return nil, err
	}
	if err := c.addQdisc(ifindex); err != nil {
		return nil, err
	}
	return c, c.addFilter(ifindex, dir)
}

// makeStub builds the program that stands in for prog. Both have to be loaded for the same kind of
// attachment, or newer kernels refuse the call (bpf_prog_map_compatible()).
func (c *clsactFilter) makeStub(prog *ebpf.Program, as ebpf.AttachType) error {
	calls, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "xfrmscope_calls", Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1,
	})
	if err != nil {
		return fmt.Errorf("make program array: %w", err)
	}
	c.calls = calls
	c.stub, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "xfrmscope_stub", Type: ebpf.SchedCLS, AttachType: as, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.LoadMapPtr(asm.R2, calls.FD()),
			asm.Mov.Imm(asm.R3, 0),
			asm.FnTailCall.Call(),
			asm.Mov.Imm(asm.R0, int32(netlink.TC_ACT_UNSPEC)),
			asm.Return(),
		},
	})
	if err != nil {
		return fmt.Errorf("load stub: %w", err)
	}
	if err := calls.Put(uint32(0), prog); err != nil {
		return fmt.Errorf("put program into its array: %w", err)
	}
	return nil
}

// addQdisc makes sure that there is a clsact. One that was there stays as it is.
func (c *clsactFilter) addQdisc(ifindex int) error {
	q := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: ifindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	switch err := c.handle.QdiscAdd(q); {
	case err == nil:
		c.qdisc = q
		return nil
	case errors.Is(err, unix.EEXIST):
		return nil
	default:
		return fmt.Errorf("add clsact qdisc: %w", err)
	}
}

// addFilter takes the first priority that the filters already there leave to a filter of ours, so
// that none of them can drop a packet before it is counted. In a priority of BPF filters the newest
// comes first (cls_bpf_change() adds at the head).
func (c *clsactFilter) addFilter(ifindex int, dir Direction) error {
	parent := uint32(netlink.HANDLE_MIN_INGRESS)
	if dir == Egress {
		parent = netlink.HANDLE_MIN_EGRESS
	}
	handle := uint32(os.Getpid())<<8 | filterCount.Add(1)&0xff
	name, err := filterName()
	if err != nil {
		return err
	}
	var errs []error
	for prio := uint16(1); prio <= 4; prio++ {
		f := &netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{
				LinkIndex: ifindex, Parent: parent, Priority: prio, Protocol: unix.ETH_P_ALL,
				Handle: handle,
			},
			Fd: c.stub.FD(), Name: name, DirectAction: true,
		}
		err := c.handle.FilterAdd(f)
		if err == nil {
			c.filter = f
			return nil
		}
		errs = append(errs, fmt.Errorf("priority %d: %w", prio, err))
	}
	return fmt.Errorf("add TC filter: %w", errors.Join(errs...))
}

// Close removes the filter, then the qdisc if it was ours and nobody uses it by now.
func (c *clsactFilter) Close() error {
	var errs []error
	if c.filter != nil {
		if err := c.handle.FilterDel(c.filter); err != nil && !gone(err) {
			errs = append(errs, fmt.Errorf("remove TC filter: %w", err))
		}
		c.filter = nil
	}
	if c.qdisc != nil {
		errs = append(errs, removeQdisc(c.handle, c.qdisc))
		c.qdisc = nil
	}
	if c.stub != nil {
		errs = append(errs, c.stub.Close())
		c.stub = nil
	}
	if c.calls != nil {
		errs = append(errs, c.calls.Close())
		c.calls = nil
	}
	if c.handle != nil {
		c.handle.Close()
		c.handle = nil
	}
	return errors.Join(errs...)
}

// removeQdisc deletes a clsact that holds no filter.
func removeQdisc(h *netlink.Handle, q netlink.Qdisc) error {
	link := indexed(q.Attrs().LinkIndex)
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := h.FilterList(link, parent)
		if gone(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list TC filters: %w", err)
		}
		if len(filters) > 0 {
			return nil
		}
	}
	if err := h.QdiscDel(q); err != nil && !gone(err) {
		return fmt.Errorf("remove clsact qdisc: %w", err)
	}
	return nil
}

// gone says that there is nothing left to remove: the device or its qdisc went before us.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL)
}

func indexed(ifindex int) netlink.Link {
	return &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: ifindex}}
}

// removeStale removes the filters that an xfrmscope left behind which was killed.
func removeStale(h *netlink.Handle, ifindex int) error {
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := h.FilterList(indexed(ifindex), parent)
		if gone(err) {
			continue // no clsact: no filter
		}
		if err != nil {
			return fmt.Errorf("list TC filters: %w", err)
		}
		for _, f := range filters {
			b, ok := f.(*netlink.BpfFilter)
			if !ok || !isStale(b.Name) {
				continue
			}
			if err := h.FilterDel(b); err != nil && !gone(err) {
				return fmt.Errorf("remove filter %s of a process that is gone: %w", b.Name, err)
			}
		}
	}
	return nil
}

// filterName says whose a filter is: a pid may be reused, a pid with its start time is not, and both
// mean something only within one pid namespace.
func filterName() (string, error) {
	start, err := startTime(os.Getpid())
	if err != nil {
		return "", err
	}
	space, err := pidNamespace()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s%d:%d:%d", filterPrefix, os.Getpid(), start, space), nil
}

// isStale says whether a filter is one of ours and its owner has ended. When in doubt it is not.
func isStale(name string) bool {
	rest, ok := strings.CutPrefix(name, filterPrefix)
	if !ok {
		return false
	}
	var pid int
	var start, space uint64
	if n, err := fmt.Sscanf(rest, "%d:%d:%d", &pid, &start, &space); err != nil || n != 3 {
		return false
	}
	if here, err := pidNamespace(); err != nil || here != space {
		return false
	}
	is, err := startTime(pid)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return true
	}
	return err == nil && is != start
}

func pidNamespace() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return 0, fmt.Errorf("identify pid namespace: %w", err)
	}
	return st.Ino, nil
}

// startTime is field 22 of /proc/PID/stat, in clock ticks since boot.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read start time of process %d: %w", pid, err)
	}
	// The second field is the command in parentheses and may hold anything.
	i := strings.LastIndexByte(string(b), ')')
	fields := strings.Fields(string(b[i+1:]))
	if i < 0 || len(fields) < 20 {
		return 0, fmt.Errorf("read start time of process %d: unexpected form", pid)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}
