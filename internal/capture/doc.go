// SPDX-License-Identifier: Apache-2.0

// Package capture writes what the packet programs copied to pcapng files: outer and inner packets, each
// with a comment that says which SA it is of and what became of it.
//
// A packet's fate is known only after the packet: it is dropped, or decrypted, after it was on the wire.
// So packets are held for a moment (Options.Hold), joined by SA and sequence number, put in order of time
// and only then written.
package capture
