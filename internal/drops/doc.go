// SPDX-License-Identifier: Apache-2.0

// Package drops attributes every packet that the kernel drops, IPsec or not: by reason, function, device
// and SA. It attaches when it is opened, counts in the kernel, and lets go when it is closed.
package drops
