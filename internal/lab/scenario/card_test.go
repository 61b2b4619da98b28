// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	endian "encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/tunnel"
)

// Sizes of struct virtio_net_hdr, which stands before each packet of a TUN device, and of the Ethernet
// header, which such a device does not have.
const (
	vnetHeader = 10
	ethHeader  = 14
)

// card is a network card of gateway B's that damages frames. A TUN device takes the place of its WAN; what
// comes by the cable is given to the driver, some of it with a header that makes no sense, which the
// driver counts as rx_frame_errors and throws away before any hook. (A TAP device would count and not tell.)
type card struct {
	cable  *os.File
	device *os.File
	damage map[uint32]bool // numbers of ESP packets
	header []byte          // of frames to gateway A
	done   chan error
}

// plugIn puts the card between the cable and gateway B.
func plugIn(t *testing.T, tun *tunnel.Tunnel, seqs []uint32) error {
	t.Helper()
	b := tun.B
	outside, err := tunnel.OpenNamespace(b.Name + "-card")
	if err != nil {
		return err
	}
	c := &card{damage: map[uint32]bool{}, done: make(chan error, 2)}
	c.header = append(append(append(c.header, tun.A.MAC...), b.MAC...), 0x08, 0x00) // IPv4
	t.Cleanup(func() {
		err := errors.Join(closeIf(c.cable), closeIf(c.device))
		for range 2 {
			if c.cable != nil && c.device != nil {
				err = errors.Join(err, <-c.done)
			}
		}
		if err = errors.Join(err, outside.Close()); err != nil {
			t.Errorf("card: %v", err)
		}
	})
	for _, seq := range seqs {
		c.damage[seq] = true
	}
	if err := errors.Join(outside.Sysctl("ipv6/conf/default/disable_ipv6", "1"), b.IP("link set "+tunnel.WAN+" netns "+outside.Name),
		outside.IP("link set "+tunnel.WAN+" up"), outside.WaitUp(tunnel.WAN)); err != nil {
		return err
	}
	if err := outside.Do(func() (err error) { c.cable, err = openCable(tunnel.WAN); return err }); err != nil {
		return err
	}
	if err := b.Do(func() (err error) { c.device, err = openTUN(tunnel.WAN); return err }); err != nil {
		return err
	}
	go func() { c.done <- c.receive() }()
	go func() { c.done <- c.send() }()
	lines := []string{fmt.Sprintf("link set %s up", tunnel.WAN), fmt.Sprintf("addr add %s/24 dev %s", b.Outer, tunnel.WAN)}
	for pair := range tun.A.Inner {
		lines = append(lines, fmt.Sprintf("route add %s/32 via %s dev %s src %s", tun.A.Inner[pair], tun.A.Outer, tunnel.WAN, b.Inner[pair]))
	}
	return errors.Join(b.IP(lines...), b.WaitUp(tunnel.WAN))
}

func closeIf(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}

// openTUN makes a TUN device in the namespace at hand.
func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make TUN device %s: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openCable takes what arrives at a device of the namespace at hand.
func openCable(name string) (*os.File, error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	all := endian.BigEndian.AppendUint16(nil, unix.ETH_P_ALL)
	if err := errors.Join(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: endian.NativeEndian.Uint16(all), Ifindex: link.Index})); err != nil {
		return nil, errors.Join(fmt.Errorf("bind packet socket to %s: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "cable"), nil
}

// receive gives the driver what comes by the cable.
func (c *card) receive() error {
	frame := make([]byte, 4096)
	for {
		n, err := c.cable.Read(frame)
		if err != nil {
			return unlessClosed(err)
		}
		if n < ethHeader+20 || endian.BigEndian.Uint16(frame[12:]) != unix.ETH_P_IP {
			continue
		}
		packet := frame[ethHeader:n]
		bad := len(packet) >= 28 && packet[9] == unix.IPPROTO_ESP && c.damage[endian.BigEndian.Uint32(packet[24:])]
		if err := c.driver(packet, bad); err != nil {
			return unlessClosed(err)
		}
	}
}

// driver takes a packet, or throws it away as damaged.
func (c *card) driver(packet []byte, damaged bool) error {
	header := make([]byte, vnetHeader, vnetHeader+len(packet))
	if damaged {
		header[1] = 0x7f // no kind of segmentation that there is
	}
	_, err := c.device.Write(append(header, packet...))
	if damaged && errors.Is(err, unix.EINVAL) {
		return nil
	}
	if damaged && err == nil {
		return errors.New("invalid run: the driver took a damaged frame")
	}
	return err
}

// send puts on the cable what the driver has to send.
func (c *card) send() error {
	buf := make([]byte, vnetHeader+4096)
	for {
		n, err := c.device.Read(buf)
		if err == nil && buf[vnetHeader]>>4 == 4 {
			_, err = c.cable.Write(append(slices.Clone(c.header), buf[vnetHeader:n]...))
		}
		if err != nil {
			return unlessClosed(err)
		}
	}
}

func unlessClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// TestCardLosesFrames has the card of gateway B's WAN damage frames, whose numbers then look lost on the
// path, and another card more, which carries no SA and of which nothing is to be found.
func TestCardLosesFrames(t *testing.T) {
	tunnel.Need(t)
	const each, noise = 300, 40
	damaged := inject.Every(20, 240, 20)
	var aside *os.File
	b := openPrepared(t, tunnel.Options{}, func(tun *tunnel.Tunnel) error {
		command(t, tun.B.Namespace, "modprobe tun")
		if err := plugIn(t, tun, damaged); err != nil {
			return err
		}
		return tun.B.Do(func() (err error) { aside, err = openTUN("aside"); return err })
	}, nil)
	t.Cleanup(func() { b.must(aside.Close()) })
	b.must(b.tunnel.B.IP("link set aside up"))
	s, back := b.tunnel.AtoB[0], b.tunnel.BtoA[0]
	for range each / 10 {
		b.send(s, 10)
		b.send(back, 5)
	}
	other, frame := card{device: aside}, make([]byte, 64)
	frame[0] = 0x45 // IPv4: since 7 the device looks at that first, and counts what is not IP as dropped
	for range noise {
		b.must(other.driver(frame, true))
	}
	o := b.finish()

	lost := int64(len(damaged))
	diff(t, "frame errors: of the WAN, of the other device", []int64{lost, noise},
		[]int64{o.link(t, tunnel.WAN).Counters["rx_frame_errors"], o.link(t, "aside").Counters["rx_frame_errors"]})
	distinct, _ := b.flows[s.SPI].Delivered()
	diff(t, "datagrams delivered", each-lost, int64(distinct))
	in := o.find(t, s.SPI, "in").Ledger
	diff(t, "sent, lost before the hook, arrived, decapsulated, delivered, unattributed", []int64{each, lost, each - lost, each - lost, each - lost, 0},
		values(in.Sent, in.LostOnPath, in.Arrivals, in.Decapsulated, in.Delivered, in.Unattributed))
	b.checkOut(o, back.SPI, each/2)
	b.checkStat(o, nil)
	o.checkFindings(t, "nic-rx-loss")
	o.checkFolded(t, "nic-rx-loss", "path-loss")
	o.checkSays(t, "nic-rx-loss", tunnel.WAN)
	o.checkSelf(t)
}
