// SPDX-License-Identifier: Apache-2.0

package export

import (
	"time"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/verdict"
)

// Sample is everything that one snapshot gives to export.
type Sample struct {
	At       time.Time
	Took     time.Duration
	Totals   ledger.Totals     // since xfrmscope began
	Report   ledger.Report     // of the last minutes
	IKE      *ledger.IKE       // since xfrmscope began; nil: not observed
	Findings []verdict.Finding // of the last minutes
	XfrmStat map[string]uint64 // the kernel's own, absolute; nil: not readable
	Programs []Program
	MapBytes map[string]uint64
	Triggers map[Trigger]uint64 // what findings set off so far
}

// Trigger is what became of something that a finding set off.
type Trigger struct{ Action, Result string }

// The results.
const (
	Taken    = "taken"
	Failed   = "failed"
	Withheld = "withheld"
)

// Program is what one program in the kernel costs.
type Program struct {
	Name    string
	Runs    uint64
	Seconds float64
}

// Options of a Points. Zero values mean the defaults.
type Options struct {
	MaxTunnels int      // series of more are summed up as "other"
	MaxDrops   int      // likewise for the places where packets were dropped
	Lost       []string // the causes that self-accounting knows, so that all of them begin at 0
	Version    string
	GoVersion  string
}

// Defaults of Options.
const (
	DefaultMaxTunnels = 4096
	DefaultMaxDrops   = 1024
)
