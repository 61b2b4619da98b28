// SPDX-License-Identifier: Apache-2.0

// Package scenario holds xfrmscope to its word on real tunnels: each test builds one, causes faults
// of which the number is known exactly, and demands that xfrmscope's ledger, the kernel's counters
// and the injector's account agree to the packet, and that the right finding is given and no other.
//
// The tests run the xfrmscope binary as its users do. They need a kernel with ESP, which `make
// test-vm` boots.
package scenario
