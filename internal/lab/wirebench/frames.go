// SPDX-License-Identifier: Apache-2.0

package main

import "xfrmscope/internal/lab/packet"

const (
	left, right = "192.0.2.1", "192.0.2.2"
	spi         = 0x1000
	payload     = 58   // a frame of 100 bytes
	large       = 1400 // one of 1,442
)

func espFrame(bytes int) *packet.Frame {
	return packet.Eth().IPv4(left, right).ESP(spi, 1, bytes).Frame()
}

func nattFrame() *packet.Frame {
	return packet.Eth().IPv4(left, right).UDP(4500, 4500).ESP(spi, 1, payload-8).Frame()
}

func tcpFrame() *packet.Frame {
	return packet.Eth().IPv4(left, right).TCP(443, 40000).Bytes(make([]byte, payload-12)).Frame()
}
