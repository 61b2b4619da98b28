// SPDX-License-Identifier: Apache-2.0

// Package smoke loads and attaches every program of xfrmscope on the kernel at hand, each alone and
// then all together in every way that a plan can choose, and holds the outcome against what that
// kernel is known to have. A program that a kernel cannot run must be declined with the reason that is
// expected there; anything else that does not attach is a failure.
//
// The tests need a kernel with ESP, which `make test-vm` boots.
package smoke
