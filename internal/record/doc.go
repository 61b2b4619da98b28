// SPDX-License-Identifier: Apache-2.0

// Package record keeps a run in a file: its snapshots in order, what changed from one to the next, and its
// events. A ledger that is given them again says what it said then. docs/recording.md describes the format.
package record
