// SPDX-License-Identifier: Apache-2.0

package pcap

import "fmt"

// FormatError means that a file is no capture file that can be read.
type FormatError struct {
	Name string
	What string
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("read %s: %s; give a pcap or pcapng file, which may be compressed by gzip", e.Name, e.What)
}

// DamageError means that a capture file is truncated or corrupt. All packets before Offset were
// delivered, none after it will be.
type DamageError struct {
	Name       string
	Offset     int64 // where the record that could not be read begins
	Compressed bool  // Offset counts uncompressed bytes
	Packets    uint64
	Err        error
}

func (e *DamageError) Error() string {
	of := ""
	if e.Compressed {
		of = " of its uncompressed content"
	}
	return fmt.Sprintf("read %s: damaged at byte %d%s, after %d packets: %v; everything before that was read, "+
		"for the rest copy the file again or, if it is still being written, wait until it is closed",
		e.Name, e.Offset, of, e.Packets, e.Err)
}

func (e *DamageError) Unwrap() error { return e.Err }

// LinkTypeError means that packets were captured on a kind of link that is not understood. In a pcapng
// file only the packets of one interface are concerned, and reading can go on with the next packet.
type LinkTypeError struct {
	Name      string
	Interface string // as the file names it, may be empty
	Type      LinkType
}

func (e *LinkTypeError) Error() string {
	on := ""
	if e.Interface != "" {
		on = " on interface " + e.Interface
	}
	return fmt.Sprintf("read %s: link type %v%s is not understood; understood are Ethernet, raw IP, "+
		"Linux cooked (v1, v2) and BSD null/loopback: capture on the device that carries the IPsec packets, "+
		"or on \"any\"", e.Name, e.Type, on)
}
