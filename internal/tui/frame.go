// SPDX-License-Identifier: Apache-2.0

// Package tui shows a live ledger in a terminal. The model is fed with frames, each one look at the
// ledger, and its view is a pure function of what it was fed and of the keys pressed since; it knows
// neither kernels nor sockets nor the command line.
package tui

import (
	"net/netip"
	"time"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/verdict"
)

// Frame is one look at the ledger.
type Frame struct {
	At       time.Time
	Report   ledger.Report
	Findings []verdict.Finding
	Reset    bool    // the account began anew, all at zero, on request
	Scope    string  // what the findings judge: "the whole run", "the last 5m0s"
	CPU      float64 // percent of one CPU that this process used since the frame before
	Events   []Event // that came since the frame before, oldest first
	Skipped  int     // events since the frame before that were too many to be kept here
}

// Event is one thing that happened to one packet.
type Event struct {
	At   time.Time
	Key  EventKey
	Kind string
	Text string
}

// EventKey says which SA an event is about. Events tell no protocol.
type EventKey struct {
	SPI       ledger.SPI
	Dst       netip.Addr
	Direction ledger.Direction
}

func eventKey(sa *ledger.SA) EventKey { return EventKey{sa.SPI, sa.Dst, sa.Direction} }

func saKey(sa *ledger.SA) ledger.SAKey {
	return ledger.SAKey{Dst: sa.Dst, SPI: sa.SPI, Proto: sa.Proto, Direction: sa.Direction}
}
