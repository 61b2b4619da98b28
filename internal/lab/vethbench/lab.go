// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"runtime"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/lab/packet"
	"xfrmscope/internal/lab/tunnel"
)

// sendingCPU does all of the kernel's work, toolCPU runs the observer.
const (
	sendingCPU = 0
	toolCPU    = 1
)

// device is the receiving end of the pair, in the namespace of the gateway.
const device = "vb1"

// lab is a sender and a gateway that forwards what it sends to a device which swallows it: packets end
// as sent ones do, and not as drops, which would be a business of their own.
type lab struct {
	sender, gateway *tunnel.Namespace
	prog            *ebpf.Program
	coll            *ebpf.Collection
	sink            link.Link
	mac             net.HardwareAddr
}

const (
	from = "192.0.2.1"
	to   = "198.51.100.1"
	spi  = 0xc0ffee01
)

func openLab() (l *lab, err error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("remove the memlock limit (needs root): %w", err)
	}
	l = &lab{}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if l.sender, err = tunnel.OpenNamespace("vethbench-a"); err != nil {
		return l, err
	}
	if l.gateway, err = tunnel.OpenNamespace("vethbench-b"); err != nil {
		return l, err
	}
	if err := errors.Join(
		l.sender.Sysctl("ipv6/conf/default/disable_ipv6", "1"), l.gateway.Sysctl("ipv6/conf/default/disable_ipv6", "1"),
		l.sender.IP("link add vb0 type veth peer name "+device+" netns "+l.gateway.Name, "link set vb0 up"),
		l.gateway.IP(
			"link set "+device+" up", "addr add 192.0.2.2/24 dev "+device,
			"link add sink type veth peer name swallow netns "+l.sender.Name, "link set sink up", "addr add 198.51.100.254/24 dev sink",
			"neigh add "+to+" lladdr 02:00:00:00:00:99 dev sink nud permanent",
		),
		l.sender.IP("link set swallow up"),
		l.gateway.Sysctl("ipv4/ip_forward", "1"), l.gateway.WaitUp(device), l.gateway.WaitUp("sink"),
		// GRO is what has a veth device take XDP frames without a program of its own.
		l.gateway.Do(func() error { return tunnel.OffloadsOn(device) }),
		l.gateway.Do(func() error {
			dev, err := net.InterfaceByName(device)
			if err == nil {
				l.mac = dev.HardwareAddr
			}
			return err
		}),
	); err != nil {
		return l, err
	}
	return l, errors.Join(l.sender.Do(l.load), l.sender.Do(l.swallow))
}

// swallow has a device consume what comes, by redirecting it to a device that does not exist; it runs in
// the sender's namespace.
func (l *lab) swallow() (err error) {
	l.sink, err = attach("swallow", asm.Instructions{
		asm.Mov.Imm(asm.R1, math.MaxInt32), asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call(), asm.Return(),
	})
	return err
}

// attach has a device of the thread's namespace run a program on each packet that it receives.
func attach(name string, code asm.Instructions) (link.Link, error) {
	dev, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "Dual BSD/GPL", Instructions: code})
	if err != nil {
		return nil, fmt.Errorf("load a program for %s: %w", name, err)
	}
	defer prog.Close()
	return link.AttachXDP(link.XDPOptions{Program: prog, Interface: dev.Index, Flags: link.XDPDriverMode})
}

// load makes the sending program; it runs in the sender's namespace.
func (l *lab) load() error {
	dev, err := net.InterfaceByName("vb0")
	if err != nil {
		return fmt.Errorf("find vb0: %w", err)
	}
	spec, err := loadSender()
	if err != nil {
		return err
	}
	for name, value := range map[string]uint32{"cfg_device": uint32(dev.Index), "cfg_esp_at": uint32(l.frame(sizes[0]).At(packet.ESP))} {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	if l.coll, err = ebpf.NewCollection(spec); err != nil {
		return fmt.Errorf("load the sender: %w", err)
	}
	l.prog = l.coll.Programs["send"]
	return nil
}

// frame is a packet for the gateway to forward, of so many bytes altogether.
func (l *lab) frame(bytes int) *packet.Frame {
	const headers = 14 + 20 + 8
	f := packet.Eth().IPv4(from, to).ESP(spi, 1, bytes-headers).Frame()
	copy(f.Data, l.mac)
	return f
}

func (l *lab) close() error {
	if l.coll != nil {
		l.coll.Close()
	}
	var errs []error
	if l.sink != nil {
		errs = append(errs, l.sink.Close())
	}
	for _, n := range []*tunnel.Namespace{l.sender, l.gateway} {
		if n != nil {
			errs = append(errs, n.Close())
		}
	}
	return errors.Join(errs...)
}

// send sends the packets and says how long the CPU took for all that became of them.
func (l *lab) send(size, packets int) (took time.Duration, err error) {
	before, err := l.received()
	if err != nil {
		return 0, err
	}
	done := make(chan error, 1)
	go func() {
		done <- l.sender.Do(func() error {
			runtime.LockOSThread() // one more than enter unlocks: the thread ends with its mask
			if err := pin(sendingCPU); err != nil {
				return err
			}
			began := time.Now()
			_, err := l.prog.Run(&ebpf.RunOptions{Data: l.frame(size).Data, Repeat: uint32(packets), Flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES})
			took = time.Since(began)
			return err
		})
	}()
	if err := <-done; err != nil {
		return 0, fmt.Errorf("send: %w", err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		after, err := l.received()
		if err != nil {
			return 0, err
		}
		if n := after - before; n == uint64(packets) {
			return took, nil
		} else if n > uint64(packets) || time.Now().After(deadline) {
			return 0, fmt.Errorf("the gateway forwarded %d packets of %d", n, packets)
		}
	}
}

// received is what the sink has swallowed.
func (l *lab) received() (n uint64, err error) {
	counters, err := l.gateway.Link("sink")
	return counters.TxPackets, err
}

// pin ties the thread to a CPU and puts it ahead of others there.
func pin(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin to CPU %d: %w", cpu, err)
	}
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0); err != nil {
		return fmt.Errorf("ask for real-time priority: %w", err)
	}
	return nil
}

// measure runs one observer's round.
func (l *lab) measure(o observer, program string, size, packets int) (s sample, err error) {
	watch, err := o.start(l, program)
	if err != nil {
		return s, err
	}
	before, err := watch.cpuTime()
	if err != nil {
		return s, errors.Join(err, watch.kill())
	}
	took, err := l.send(size, packets)
	if err != nil {
		return s, errors.Join(err, watch.kill())
	}
	after, err := watch.settled()
	if err != nil {
		return s, errors.Join(err, watch.kill())
	}
	if s.memory, err = watch.resident(); err != nil {
		return s, errors.Join(err, watch.kill())
	}
	seen, err := watch.finish(packets)
	s.began, s.ended = watch.began.Seconds(), watch.ended.Seconds()
	s.kernel = float64(took.Nanoseconds()) / float64(packets)
	s.tool = float64((after - before).Nanoseconds()) / float64(packets)
	s.lost = float64(packets - seen)
	return s, err
}
