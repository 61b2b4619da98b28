// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From include/uapi/linux/xfrm.h.
const (
	xfrmMsgNewAE        = 0x1e
	xfrmaReplayVal      = 10
	xfrmaReplayESNVal   = 23
	aeventIDBytes       = 48
	aeventFlagReplayVal = 2 // XFRM_AE_RVAL
)

// Renumber makes the sender go on from the number after oseq, as a fail-over does that takes over an SA
// with counters of its own (XFRM_MSG_NEWAE).
func (sa SA) Renumber(o Options, oseq uint32) error {
	body := make([]byte, aeventIDBytes)
	copy(body, addressBytes(sa.To.Outer.AsSlice()))
	binary.BigEndian.PutUint32(body[16:], sa.SPI)
	family := uint16(unix.AF_INET)
	if o.Family == 6 {
		family = unix.AF_INET6
	}
	binary.NativeEndian.PutUint16(body[20:], family)
	body[22] = unix.IPPROTO_ESP
	copy(body[24:], addressBytes(sa.From.Outer.AsSlice()))
	binary.NativeEndian.PutUint32(body[40:], aeventFlagReplayVal)
	binary.NativeEndian.PutUint32(body[44:], sa.ReqID)

	// struct xfrm_replay_state, or with ESN and large windows struct xfrm_replay_state_esn.
	attr, kind := make([]byte, 12), uint16(xfrmaReplayVal)
	binary.NativeEndian.PutUint32(attr, oseq)
	if o.ESN || sa.ReplayWindow > 32 {
		words := (sa.ReplayWindow + 31) / 32
		attr, kind = make([]byte, 24+4*words), xfrmaReplayESNVal
		binary.NativeEndian.PutUint32(attr, words)
		binary.NativeEndian.PutUint32(attr[4:], oseq)
		binary.NativeEndian.PutUint32(attr[20:], sa.ReplayWindow)
	}
	head := make([]byte, 4)
	binary.NativeEndian.PutUint16(head, uint16(4+len(attr)))
	binary.NativeEndian.PutUint16(head[2:], kind)
	body = append(append(body, head...), attr...)
	if err := sa.From.Do(func() error { return ask(xfrmMsgNewAE, unix.NLM_F_REPLACE, body) }); err != nil {
		return fmt.Errorf("renumber SA %#x in %s: %w", sa.SPI, sa.From.Name, err)
	}
	return nil
}

func addressBytes(a []byte) []byte { return append(a, make([]byte, 16-len(a))...) }

// ask sends one XFRM message and waits for the kernel's answer.
func ask(kind, flags uint16, body []byte) (err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_XFRM)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	msg := make([]byte, unix.NLMSG_HDRLEN, unix.NLMSG_HDRLEN+len(body))
	*(*unix.NlMsghdr)(unsafe.Pointer(&msg[0])) = unix.NlMsghdr{
		Len: uint32(unix.NLMSG_HDRLEN + len(body)), Type: kind, Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK | flags, Seq: 1,
	}
	if err := unix.Sendto(fd, append(msg, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	if n < unix.NLMSG_HDRLEN+4 {
		return fmt.Errorf("the kernel answered with %d bytes", n)
	}
	if code := int32(binary.NativeEndian.Uint32(answer[unix.NLMSG_HDRLEN:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}
