// SPDX-License-Identifier: Apache-2.0

// Package pcap reads capture files: pcap in both byte orders with microseconds or nanoseconds, pcapng
// with any number of interfaces and sections, and either of them compressed by gzip. Packets come out
// as Ethernet frames, whatever the link type was, because that is what the wire program parses.
//
// # Why not pcapgo
//
// gopacket's pcapgo is what the tests hold this reader against. It is not used itself because `read`
// has to say where a file is damaged and must not go on past the damage: pcapgo's pcapng reader checks
// neither a block's length against its content nor the copy of the length at the block's end, so that
// a flipped bit yields invented packets; and it keeps every name resolution and decryption block, so
// that its memory grows with the file. Speed is no reason, BenchmarkRead finds both at 70 to 250 ns a packet.
package pcap
