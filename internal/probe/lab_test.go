// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/kernel"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/netns"
)

// needBPF skips where programs cannot be loaded, but never in CI.
func needBPF(t testing.TB) *Kernel {
	t.Helper()
	k, err := askOnce()
	if err == nil {
		return k
	}
	// Only a missing privilege is a reason to skip.
	if !errors.Is(err, kernel.ErrCapability) || os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	t.Skip(err)
	return nil
}

var askOnce = sync.OnceValues(AskKernel)

// lab is a network namespace with veth pairs whose far ends lie in a second one.
type lab struct {
	near, far         *netns.Handle
	nearName, farName string
}

func newLab(t testing.TB) *lab {
	t.Helper()
	base := fmt.Sprintf("xp%d-%s", os.Getpid(), strings.ToLower(strings.NewReplacer("/", "-", "Test", "", " ", "").Replace(t.Name())))
	if len(base) > 60 {
		base = base[:60]
	}
	l := &lab{nearName: base + "-n", farName: base + "-f"}
	l.near, l.far = makeNS(t, l.nearName), makeNS(t, l.farName)
	return l
}

func makeNS(t testing.TB, name string) *netns.Handle {
	t.Helper()
	errs := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // ends with the goroutine, in the new namespace
		h, err := vnetns.NewNamed(name)
		if err == nil {
			err = h.Close()
		}
		errs <- err
	}()
	if err := <-errs; err != nil {
		t.Fatalf("make namespace %s: %v", name, err)
	}
	t.Cleanup(func() {
		if err := vnetns.DeleteNamed(name); err != nil {
			t.Errorf("delete namespace %s: %v", name, err)
		}
	})
	h, err := netns.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// veth makes a pair: name in the near namespace, "far-"+name in the far one. Without IPv6 nothing is
// sent on it that a test did not send.
func (l *lab) veth(t testing.TB, name string, addrs ...string) {
	t.Helper()
	must(t, l.near.Do(func() error {
		link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "far-" + name}
		if err := netlink.LinkAdd(link); err != nil {
			return err
		}
		peer, err := netlink.LinkByName("far-" + name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetNsFd(peer, l.far.FD()); err != nil {
			return err
		}
		return quietUp(name, addrs)
	}))
	must(t, l.far.Do(func() error { return quietUp("far-"+name, nil) }))
}

func quietUp(name string, addrs []string) error {
	// /proc/sys shows the network namespace of the thread that opens it.
	err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // without IPv6 there is nothing to switch off
		return err
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetARPOff(link); err != nil {
		return err
	}
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(link)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wire is a packet socket on a device.
type wire struct{ fd, ifindex int }

// open puts a packet socket on the far end (for what the near end receives) or on the near end
// itself (for what it sends).
func openWire(t testing.TB, ns *netns.Handle, dev string) *wire {
	t.Helper()
	w := &wire{}
	must(t, ns.Do(func() error {
		ifi, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		// Protocol 0: it sends and receives nothing.
		w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		w.ifindex = ifi.Index
		return err
	}))
	t.Cleanup(func() { unix.Close(w.fd) })
	return w
}

func (w *wire) send(t testing.TB, frame []byte) {
	t.Helper()
	var err error
	for range 1000 {
		if err = w.try(frame); err == nil {
			return
		}
		// A full queue empties soon; anything else will not go away.
		if !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("send: %v", err)
}

// try sends once. What egress drops comes back as ENOBUFS.
func (w *wire) try(frame []byte) error {
	return unix.Sendto(w.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: w.ifindex, Halen: 6, Protocol: 0x0008})
}

// esp builds an Ethernet frame with an ESP packet of 100 bytes of IP.
func esp(src, dst string, spi, seq uint32) []byte {
	const payload = 80
	b := make([]byte, 14+20+payload)
	copy(b[0:6], []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	copy(b[6:12], []byte{2, 0, 0, 0, 0, 1})
	binary.BigEndian.PutUint16(b[12:], 0x0800)
	ip := b[14:]
	ip[0], ip[8], ip[9] = 0x45, 64, 50
	binary.BigEndian.PutUint16(ip[2:], 20+payload)
	s, d := netip.MustParseAddr(src).As4(), netip.MustParseAddr(dst).As4()
	copy(ip[12:], s[:])
	copy(ip[16:], d[:])
	binary.BigEndian.PutUint32(ip[20:], spi)
	binary.BigEndian.PutUint32(ip[24:], seq)
	return b
}

const (
	peerIP, ownIP = "192.0.2.1", "192.0.2.2"
	ipBytes       = 100
)

func key(spi uint32, dir ledger.Direction) ledger.SAKey {
	dst := ownIP
	if dir == ledger.Out {
		dst = peerIP
	}
	return ledger.SAKey{Dst: netip.MustParseAddr(dst), SPI: ledger.SPI(spi), Proto: ledger.ESP, Direction: dir}
}

// errNo is a kernel's plain no.
var errNo = fmt.Errorf("made to look old: %w", ebpf.ErrNotSupported)
