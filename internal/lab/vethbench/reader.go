// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The ring of the AF_PACKET reader: 32 MiB in blocks of 1 MiB.
const (
	blockBytes = 1 << 20
	blocks     = 32
	frameBytes = 2048
)

// readPackets takes every packet of the device out of a TPACKET_V3 ring and looks for ESP in it, as a
// program would that keeps sequence numbers, but keeps none.
func readPackets(name string) error {
	dev, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a packet socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return fmt.Errorf("ask for TPACKET_V3: %w", err)
	}
	req := unix.TpacketReq3{Block_size: blockBytes, Block_nr: blocks, Frame_size: frameBytes, Frame_nr: blocks * blockBytes / frameBytes, Retire_blk_tov: 10}
	if err := unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return fmt.Errorf("make the ring: %w", err)
	}
	ring, err := unix.Mmap(fd, 0, blockBytes*blocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the ring: %w", err)
	}
	defer unix.Munmap(ring)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: dev.Index}); err != nil {
		return fmt.Errorf("bind to %s: %w", name, err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	fmt.Fprintln(os.Stderr, "reading")
	var esp int
	for block := 0; ; block = (block + 1) % blocks {
		b := ring[block*blockBytes : (block+1)*blockBytes]
		for statusOf(b)&unix.TP_STATUS_USER == 0 {
			select {
			case <-stop:
				fmt.Fprintf(os.Stderr, "%d packets read\n", esp)
				return nil
			default:
			}
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100); err != nil && !errors.Is(err, unix.EINTR) {
				return fmt.Errorf("wait for packets: %w", err)
			}
		}
		esp += readBlock(b)
		release(b)
	}
}

// readBlock counts a block's packets that are ESP over IPv4.
func readBlock(b []byte) (esp int) {
	ne := binary.NativeEndian
	at := int(ne.Uint32(b[16:]))
	for range ne.Uint32(b[12:]) {
		next, mac := int(ne.Uint32(b[at:])), int(ne.Uint16(b[at+24:]))
		frame := b[at+mac:]
		if binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_IP && frame[14+9] == unix.IPPROTO_ESP {
			esp++
		}
		at += next
	}
	return esp
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// status is where a block says whose it is (struct tpacket_hdr_v1 behind version and offset).
func status(b []byte) *uint32 { return (*uint32)(unsafe.Pointer(&b[8])) }

func statusOf(b []byte) uint32 { return atomic.LoadUint32(status(b)) }

// release gives a block back to the kernel.
func release(b []byte) { atomic.StoreUint32(status(b), unix.TP_STATUS_KERNEL) }
