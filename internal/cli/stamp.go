// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"
)

// timeMode is how lines of events show when they happened.
type timeMode string

const (
	timeAbs   timeMode = "abs"
	timeRel   timeMode = "rel"
	timeDelta timeMode = "delta"
	timeUnix  timeMode = "unix"
)

// Set makes timeMode a command-line flag.
func (m *timeMode) Set(s string) error {
	switch timeMode(s) {
	case timeAbs, timeRel, timeDelta, timeUnix:
		*m = timeMode(s)
		return nil
	}
	return fmt.Errorf("time %q: want abs, rel, delta or unix", s)
}

// String makes timeMode a command-line flag.
func (m *timeMode) String() string { return string(*m) }

// Type names the flag's type in its help.
func (m *timeMode) Type() string { return "mode" }

func addTime(f *pflag.FlagSet, m *timeMode) {
	*m = timeAbs
	f.Var(m, "time", "how lines show the time: abs (RFC 3339 with microseconds), rel (seconds since the first line), "+
		"delta (seconds since the line before) or unix (seconds since 1970); JSON always has the absolute time")
}

// stamper writes times in one mode, line after line.
type stamper struct {
	mode        timeMode
	first, last time.Time
}

func (s *stamper) stamp(t time.Time) string {
	if s.first.IsZero() {
		s.first, s.last = t, t
	}
	before := s.last
	s.last = t
	switch s.mode {
	case timeRel:
		return fmt.Sprintf("%+.6f", t.Sub(s.first).Seconds())
	case timeDelta:
		return fmt.Sprintf("%+.6f", t.Sub(before).Seconds())
	case timeUnix:
		return fmt.Sprintf("%d.%06d", t.Unix(), t.Nanosecond()/1000)
	}
	return t.Format("2006-01-02T15:04:05.000000Z07:00")
}
