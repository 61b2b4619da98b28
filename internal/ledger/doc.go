// SPDX-License-Identifier: Apache-2.0

// Package ledger accounts for every packet of every security association. It takes snapshots of what
// the sources counted (the wire, the stack's error paths, the SA database, the kernel's totals),
// subtracts the first from the last, joins them by SA and sorts the packets into bins that must add
// up. What does not add up is a bin of its own, unattributed, and never hidden.
//
// The package knows no kernel: live, offline and recorded runs differ only in who takes the snapshots.
package ledger
