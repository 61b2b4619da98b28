// SPDX-License-Identifier: Apache-2.0

// Package smp holds xfrmscope to its word on machines with more than one processor: one of them is kept
// busy by an SA, or by something else, and only the first may be called so.
//
// The tests need a kernel with ESP and two processors: `scripts/vm/test -c 2 KERNEL smp` boots one.
package smp
