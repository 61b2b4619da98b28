// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/binary"
	"net"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/lab/packet"
	"xfrmscope/internal/netns"
)

// ikeCmd lets IKEv2 messages pass the device "wan" of $NS, 30 ms apart: ike in|out EXCHANGE ID ask|answer...
// The peer, 192.0.2.1, is the initiator.
func ikeCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 || len(args)%4 != 0 {
		ts.Fatalf("usage: ike in|out exchange id ask|answer...")
	}
	ns, err := netns.Open(ts.Getenv("NS"))
	ts.Check(err)
	defer ns.Close()
	ts.Check(ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for ; len(args) > 0; args = args[4:] {
			exchange, err := strconv.ParseUint(args[1], 10, 8)
			if err != nil {
				return err
			}
			id, err := strconv.ParseUint(args[2], 10, 32)
			if err != nil {
				return err
			}
			src, dst, device, flags := "192.0.2.1", "192.0.2.2", "peer", byte(0x08)
			if args[0] == "out" {
				src, dst, device, flags = dst, src, "wan", 0
			}
			if args[3] == "answer" {
				flags |= 0x20
			}
			via, err := net.InterfaceByName(device)
			if err != nil {
				return err
			}
			h := binary.BigEndian.AppendUint64(nil, 0xa1a2a3a4a5a6a7a8)
			h = binary.BigEndian.AppendUint64(h, 0xb1b2b3b4b5b6b7b8)
			h = append(h, 46, 0x20, byte(exchange), flags)
			h = binary.BigEndian.AppendUint32(h, uint32(id))
			h = append(binary.BigEndian.AppendUint32(h, 80), make([]byte, 52)...)
			frame := packet.Eth().IPv4(src, dst).UDP(500, 500).Bytes(h).Frame()
			if err := unix.Sendto(fd, frame.Data, 0, &unix.SockaddrLinklayer{Ifindex: via.Index}); err != nil {
				return err
			}
			time.Sleep(30 * time.Millisecond)
		}
		return nil
	}))
}
