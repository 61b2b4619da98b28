// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/traffic"
	"xfrmscope/internal/lab/tunnel"
	"xfrmscope/internal/netns"
)

const (
	wan     = "wan"
	spi     = 0xa2b00001
	packets = 100
	port    = 9000
	pace    = 2 * time.Millisecond
	// patience bounds everything that an emulated machine does slowly.
	patience = 60 * time.Second
	// farVariable names the namespace of the sender for the command that xfrmscope runs.
	farVariable = "KERNEL_TEST_SENDER"
)

// What happens to the packets on their way, by sequence number.
var (
	lost      = []uint32{10, 20, 21, 22, 40, 60, 80}
	corrupted = []uint32{30, 50}
)

var (
	outerA, outerB = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	innerA, innerB = netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1")
)

// world is the tunnel: the sender and the path in namespaces of their own, the receiver in the machine's.
type world struct {
	sender, path *place
	faults       *inject.Injector
}

// place is a network namespace and a socket to configure it by.
type place struct {
	ns     *netns.Handle
	handle *netlink.Handle
	fd     *os.File
}

// newPlace makes a network namespace that lives as long as its descriptor.
func newPlace() (*place, error) {
	type answer struct {
		f   *os.File
		err error
	}
	made := make(chan answer)
	go func() {
		// Never unlocked: the thread ends with the goroutine and takes its namespace along, which the
		// descriptor keeps.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- answer{nil, fmt.Errorf("make network namespace: %w", err)}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		made <- answer{f, err}
	}()
	a := <-made
	if a.err != nil {
		return nil, a.err
	}
	p := &place{fd: a.f}
	var err error
	if p.ns, err = netns.Open(p.name()); err != nil {
		return nil, err
	}
	if p.handle, err = netlink.NewHandleAt(vnetns.NsHandle(a.f.Fd()), unix.NETLINK_ROUTE, unix.NETLINK_XFRM); err != nil {
		return nil, fmt.Errorf("open netlink in namespace: %w", err)
	}
	return p, nil
}

// name is a path to the namespace that other processes can open too.
func (p *place) name() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), p.fd.Fd()) }

func (w *world) environment() []string { return []string{farVariable + "=" + w.sender.name()} }

// here is the machine's own namespace.
func here(f func() error) error { return f() }

// raise builds the tunnel by netlink alone.
func raise() (w *world, err error) {
	w = &world{}
	if w.sender, err = newPlace(); err != nil {
		return nil, err
	}
	if w.path, err = newPlace(); err != nil {
		return nil, err
	}
	own, err := netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_XFRM)
	if err != nil {
		return nil, err
	}
	receiver := &place{handle: own}
	for _, end := range []struct {
		on   *place
		name string
		fd   int
	}{{w.sender, tunnel.PathA, int(w.sender.fd.Fd())}, {receiver, tunnel.PathB, -1}} {
		if err := w.link(end.name, end.fd); err != nil {
			return nil, err
		}
	}
	ends := []struct {
		p                         *place
		do                        traffic.Inside
		outer, peer, inner, other netip.Addr
	}{
		{w.sender, w.sender.ns.Do, outerA, outerB, innerA, innerB},
		{receiver, here, outerB, outerA, innerB, innerA},
	}
	macs := map[netip.Addr]net.HardwareAddr{}
	for _, e := range ends {
		link, err := e.p.handle.LinkByName(wan)
		if err != nil {
			return nil, err
		}
		macs[e.outer] = link.Attrs().HardwareAddr
	}
	key := make([]byte, 20)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	for _, e := range ends {
		if err := e.p.configure(e.outer, e.peer, e.inner, e.other, macs[e.peer], key); err != nil {
			return nil, fmt.Errorf("configure %s: %w", e.outer, err)
		}
		if err := e.do(func() error { return tunnel.OffloadsOff(wan) }); err != nil {
			return nil, err
		}
	}
	if err := w.waitUp(); err != nil {
		return nil, err
	}
	w.faults, err = inject.Open(inject.Path{A: tunnel.PathA, B: tunnel.PathB, Do: w.path.ns.Do},
		inject.Rule{SPI: spi, Action: inject.Drop, Seqs: lost},
		inject.Rule{SPI: spi, Action: inject.Corrupt, Seqs: corrupted})
	return w, err
}

// link puts a pair of devices between the path and one end; fd -1 is the machine's own namespace.
func (w *world) link(name string, fd int) error {
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: name, PeerNamespace: netlink.NsFd(int(w.path.fd.Fd()))}
	veth.Name = wan
	at := w.sender.handle
	if fd < 0 {
		own, err := netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_XFRM)
		if err != nil {
			return err
		}
		defer own.Close()
		at = own
	}
	if err := at.LinkAdd(veth); err != nil {
		return fmt.Errorf("add %s: %w", name, err)
	}
	peer, err := w.path.handle.LinkByName(name)
	if err != nil {
		return err
	}
	if err := w.path.handle.LinkSetUp(peer); err != nil {
		return err
	}
	return w.path.ns.Do(func() error { return tunnel.OffloadsOff(name) })
}

// waitUp waits until the path's devices can send: before that they drop without a word.
func (w *world) waitUp() error {
	for _, name := range []string{tunnel.PathA, tunnel.PathB} {
		for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			link, err := w.path.handle.LinkByName(name)
			if err != nil {
				return err
			}
			if link.Attrs().OperState == netlink.OperUp {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s does not come up", name)
			}
		}
	}
	return nil
}

func prefix(a netip.Addr, bits int) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, 32)}
}

// configure gives an end its addresses, its neighbour, its SA and its policy. The key goes to the kernel
// and nowhere else.
func (p *place) configure(outer, peer, inner, other netip.Addr, mac net.HardwareAddr, key []byte) error {
	h := p.handle
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	link, err := h.LinkByName(wan)
	if err != nil {
		return err
	}
	dir := netlink.XFRM_DIR_OUT
	if outer == outerB {
		dir = netlink.XFRM_DIR_IN
	}
	for _, step := range []func() error{
		func() error { return h.LinkSetUp(lo) },
		func() error { return h.LinkSetUp(link) },
		func() error { return h.AddrAdd(link, &netlink.Addr{IPNet: prefix(outer, 24)}) },
		func() error { return h.AddrAdd(lo, &netlink.Addr{IPNet: prefix(inner, 32)}) },
		func() error {
			return h.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: peer.AsSlice(), HardwareAddr: mac, State: netlink.NUD_PERMANENT})
		},
		func() error {
			return h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: prefix(other, 32), Gw: peer.AsSlice(), Src: inner.AsSlice()})
		},
		func() error {
			return h.XfrmStateAdd(&netlink.XfrmState{
				Src: outerA.AsSlice(), Dst: outerB.AsSlice(), Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL,
				Spi: spi, Reqid: 1, ReplayWindow: 32,
				Aead: &netlink.XfrmStateAlgo{Name: "rfc4106(gcm(aes))", Key: key, ICVLen: 128},
			})
		},
		func() error {
			return h.XfrmPolicyAdd(&netlink.XfrmPolicy{
				Src: prefix(innerA, 32), Dst: prefix(innerB, 32), Dir: dir,
				Tmpls: []netlink.XfrmPolicyTmpl{{Src: outerA.AsSlice(), Dst: outerB.AsSlice(), Proto: netlink.XFRM_PROTO_ESP,
					Mode: netlink.XFRM_MODE_TUNNEL, Reqid: 1}},
			})
		},
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) close() {
	if err := w.faults.Close(); err != nil {
		fmt.Println("init: faults:", err)
	}
}

// send is the command that xfrmscope watches: it sends the packets and waits until those that can arrive
// have arrived.
func send() (err error) {
	far, err := netns.Open(os.Getenv(farVariable))
	if err != nil {
		return err
	}
	flow, err := traffic.Open(traffic.Ends{From: far.Do, To: here, Src: innerA, Dst: innerB, Port: port})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, flow.Close()) }()
	if err := flow.Send(packets, pace); err != nil {
		return err
	}
	want := packets - len(lost) - len(corrupted)
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		n, _ := flow.Delivered()
		if n >= want {
			fmt.Printf("send: sent %d, received %d\n", packets, n)
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("sent %d, received %d, want %d", packets, n, want)
		}
	}
}
