// SPDX-License-Identifier: Apache-2.0

// Package kernel says what the running kernel offers: features found by trying them, symbols and
// their addresses, the numbers that this kernel gives to its counters and drop reasons, and the
// capabilities of this process. It leaves nothing attached.
package kernel
