// SPDX-License-Identifier: Apache-2.0

// Package libipsec tests the wire side of xfrmscope against real IKEv2 on any kernel: strongSwan
// with its ESP in user space (kernel-libipsec) in two network namespaces gives a true exchange, true
// ESP in UDP and true rekeys. What xfrmscope counts is held against an independent capture, taken on
// the same interface and read by tshark, to the packet.
package libipsec
