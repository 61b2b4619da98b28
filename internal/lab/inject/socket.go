// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Sizes: the receive buffer holds some thousand packets, more than any scenario has in flight.
const (
	bufferBytes   = 32 << 20
	maxFrameBytes = 1 << 16
)

// port is one end of the path: a packet socket bound to one interface.
type port struct {
	name    string
	fd      int
	dropped uint64 // by the kernel, for want of room in the socket
	taken   uint64
}

// openPort must run inside the path's namespace.
func openPort(name string) (p *port, err error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("find interface %s: %w", name, err)
	}
	// Protocol 0 receives nothing until bind names the interface: no frame of another one slips in.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket (needs CAP_NET_RAW): %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, unix.Close(fd))
		}
	}()
	for _, o := range []struct {
		what          string
		level, option int
		value         int
	}{
		{"receive buffer", unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bufferBytes},
		{"send buffer", unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, bufferBytes},
		{"ignore outgoing", unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.option, o.value); err != nil {
			return nil, fmt.Errorf("set %s of packet socket on %s: %w", o.what, name, err)
		}
	}
	promiscuous := unix.PacketMreq{Ifindex: int32(link.Index), Type: unix.PACKET_MR_PROMISC}
	if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &promiscuous); err != nil {
		return nil, fmt.Errorf("make %s promiscuous: %w", name, err)
	}
	all := uint16(unix.ETH_P_ALL)
	addr := &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: link.Index}
	if err := unix.Bind(fd, addr); err != nil {
		return nil, fmt.Errorf("bind packet socket to %s: %w", name, err)
	}
	return &port{name: name, fd: fd}, nil
}

// receive reads one frame into buf; n is 0 when there is none.
func (p *port) receive(buf []byte) (n int, err error) {
	n, _, err = unix.Recvfrom(p.fd, buf, 0)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return 0, nil
	case errors.Is(err, unix.ENETDOWN):
		return 0, fmt.Errorf("receive on %s: %w (somebody took the interface down)", p.name, err)
	case err != nil:
		return 0, fmt.Errorf("receive on %s: %w", p.name, err)
	}
	return n, nil
}

// readable says whether a frame, or an error, is there to be received.
func (p *port) readable() (bool, error) {
	fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return false, fmt.Errorf("look for frames on %s: %w", p.name, err)
		default:
			return n > 0, nil
		}
	}
}

// send puts one frame on the interface. The socket waits for nothing: a frame that does not go out
// at once is an error, not a delay.
func (p *port) send(frame []byte) error {
	n, err := unix.SendmsgN(p.fd, frame, nil, nil, 0)
	if err != nil {
		return fmt.Errorf("send on %s: %w", p.name, err)
	}
	if n != len(frame) {
		return fmt.Errorf("send on %s: %d of %d bytes", p.name, n, len(frame))
	}
	return nil
}

// statistics adds up what the kernel says since the last call: reading it resets it.
func (p *port) statistics() error {
	s, err := unix.GetsockoptTpacketStats(p.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return fmt.Errorf("read packet statistics of %s: %w", p.name, err)
	}
	p.taken += uint64(s.Packets)
	p.dropped += uint64(s.Drops)
	return nil
}

func (p *port) close() error { return unix.Close(p.fd) }
