// SPDX-License-Identifier: Apache-2.0

package smp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"xfrmscope/internal/lab/tunnel"
)

const (
	// backlog is what the kernel queues for a processor at most, and window what the lab has under way:
	// less, so that nothing is dropped, and enough to last while the lab itself is not running.
	backlog = 10000
	window  = 3000
	// payload of a datagram: the more there is to decrypt, the less it costs beside that to send.
	payload = 1300
	// chunk is how many datagrams are sent before their packets are taken from the path.
	chunk = 64
	// patience bounds everything that an emulated machine does slowly.
	patience = 90 * time.Second
)

// store holds encrypted packets of gateway A back, in their order, so that they can later be sent faster
// than they were made: to send a frame costs less than to decrypt what is in it.
type store struct {
	t       *testing.T
	in, out int // packet sockets of the path towards A and B
	sender  *net.UDPConn
	frames  [][]byte
	sent    uint64
	arrived *os.File // the counters of the host behind gateway B
	begin   uint64
}

// openStore makes the sockets, and a listener behind gateway B that reads nothing: it is only there so
// that nobody answers.
func openStore(t *testing.T, tn *tunnel.Tunnel) *store {
	t.Helper()
	s := &store{t: t}
	sa := tn.AtoB[0]
	err := tn.Path.Do(func() (err error) {
		if s.in, err = packetSocket(tunnel.PathA, unix.ETH_P_ALL); err != nil {
			return err
		}
		s.out, err = packetSocket(tunnel.PathB, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	to := &net.UDPAddr{IP: sa.Dst.AsSlice(), Port: tunnel.Port}
	var listener *net.UDPConn
	err = tn.B.Host.Do(func() (err error) {
		if s.arrived, err = os.Open("/proc/thread-self/net/snmp"); err != nil {
			return err
		}
		listener, err = net.ListenUDP("udp", to)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := tn.A.Host.Do(func() (err error) {
		s.sender, err = net.DialUDP("udp", &net.UDPAddr{IP: sa.Src.AsSlice()}, to)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.sender.Close(), listener.Close(), s.arrived.Close(), unix.Close(s.in), unix.Close(s.out)); err != nil {
			t.Error(err)
		}
	})
	s.begin = s.counter()
	return s
}

// packetSocket must run inside the path's namespace.
func packetSocket(device string, protocol uint16) (int, error) {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return -1, fmt.Errorf("find interface %s: %w", device, err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open packet socket: %w", err)
	}
	order := binary.BigEndian.AppendUint16(nil, protocol)
	timeout := unix.NsecToTimeval(patience.Nanoseconds())
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20),
		// The gateways send to each other's addresses, not to the path's.
		unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
			&unix.PacketMreq{Ifindex: int32(link.Index), Type: unix.PACKET_MR_PROMISC}),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(order), Ifindex: link.Index}),
	)
	if err != nil {
		return -1, errors.Join(fmt.Errorf("prepare packet socket on %s: %w", device, err), unix.Close(fd))
	}
	return fd, nil
}

// fill has gateway A encrypt until so many packets are in the store.
func (s *store) fill(packets int) {
	s.t.Helper()
	datagram, buf := make([]byte, payload), make([]byte, 2048)
	for len(s.frames) < packets {
		want := len(s.frames) + min(chunk, packets-len(s.frames))
		for range want - len(s.frames) {
			if _, err := s.sender.Write(datagram); err != nil {
				s.t.Fatalf("send through gateway A: %v", err)
			}
		}
		for len(s.frames) < want {
			n, _, err := unix.Recvfrom(s.in, buf, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				s.t.Fatalf("take an encrypted packet from the path: %v", err)
			}
			if isESP(buf[:n]) {
				s.frames = append(s.frames, append(make([]byte, 0, n), buf[:n]...))
			}
		}
	}
}

// isESP looks at the Ethernet type and the protocol of IPv4.
func isESP(frame []byte) bool {
	return len(frame) > 23 && binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_IP && frame[23] == unix.IPPROTO_ESP
}

// send puts the next packets of the store on the wire to gateway B, gap apart, until they or the time are
// over, and returns how many it were when the host behind the gateway has them all.
func (s *store) send(packets int, gap, limit time.Duration) (sent int) {
	s.t.Helper()
	if packets > len(s.frames) {
		s.t.Fatalf("the store has %d packets, wanted %d", len(s.frames), packets)
	}
	end := time.Now().Add(limit)
	for batch := range slices.Chunk(s.frames[:packets], burst(gap)) {
		if time.Now().After(end) {
			break
		}
		s.wait(window)
		if err := sendAll(s.out, batch); err != nil {
			s.t.Fatalf("send to gateway B: %v", err)
		}
		s.sent += uint64(len(batch))
		sent += len(batch)
		time.Sleep(gap)
	}
	s.frames = s.frames[sent:]
	s.wait(0)
	return sent
}

// burst is how many packets go out at once.
func burst(gap time.Duration) int {
	if gap > 0 {
		return 1
	}
	return chunk
}

// message is struct mmsghdr of sendmmsg(2).
type message struct {
	header unix.Msghdr
	sent   uint32
	_      [4]byte
}

// sendAll sends frames with one system call for many of them.
func sendAll(fd int, frames [][]byte) error {
	vectors, messages := make([]unix.Iovec, len(frames)), make([]message, len(frames))
	for i, frame := range frames {
		vectors[i].Base = &frame[0]
		vectors[i].SetLen(len(frame))
		messages[i].header.Iov = &vectors[i]
		messages[i].header.SetIovlen(1)
	}
	for len(messages) > 0 {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&messages[0])), uintptr(len(messages)), 0, 0, 0)
		if errno != 0 && errno != unix.EINTR {
			return errno
		}
		if errno == 0 {
			messages = messages[n:]
		}
	}
	return nil
}

// wait returns when no more than so many packets are under way.
func (s *store) wait(underWay uint64) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); s.sent-(s.counter()-s.begin) > underWay; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("invalid run: of %d packets the host behind gateway B has %d after %s", s.sent, s.counter()-s.begin, patience)
		}
	}
}

// counter is how many IPv4 packets the host behind gateway B has received since it was built. Counters of
// its device would hold what IPv6 says by itself as well.
func (s *store) counter() uint64 {
	s.t.Helper()
	buf := make([]byte, 4096)
	n, err := s.arrived.ReadAt(buf, 0)
	if n == 0 {
		s.t.Fatalf("read counters of the host behind gateway B: %v", err)
	}
	var names []string
	for line := range strings.Lines(string(buf[:n])) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "Ip:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		if i := slices.Index(names, "InReceives"); i >= 0 && i < len(fields) {
			packets, err := strconv.ParseUint(fields[i], 10, 64)
			if err != nil {
				s.t.Fatal(err)
			}
			return packets
		}
	}
	s.t.Fatal("the host behind gateway B does not count InReceives")
	return 0
}
