// SPDX-License-Identifier: Apache-2.0

// Package export turns the ledger into metrics: for Prometheus at scrape and for OTLP at an interval,
// both from the same snapshot, so that they cannot tell different stories. It keeps no counts of its own.
// Figures are the ledger's absolutes since xfrmscope began, the kernel's own where the name says so.
package export
