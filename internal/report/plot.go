// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"math"
	"time"
)

// Plots are drawn in units of which this many make up the width of the page.
const (
	plotWidth = 1000.0
	plotLeft  = 70.0
	plotRight = 970.0
)

// plot is a drawing, as the template writes it down.
type plot struct {
	Title  string
	Note   string
	Height float64
	Grid   []shape // behind everything
	Areas  []shape
	Rects  []shape
	Lines  []shape
	Texts  []label
	Legend []legend
}

// shape is a rectangle, a line or a path. Class names its colour in the style sheet.
type shape struct {
	X, Y, W, H float64 // of a line: from X,Y to W,H
	Path       string
	Class      string
	Tip        string
}

type label struct {
	X, Y   float64
	Anchor string // start, middle, end
	Class  string
	Text   string
}

type legend struct{ Class, Text string }

func (p *plot) rect(x, y, w, h float64, class, tip string) {
	p.Rects = append(p.Rects, shape{X: round(x), Y: round(y), W: round(math.Max(w, 0.6)), H: round(h), Class: class, Tip: tip})
}

func (p *plot) line(x1, y1, x2, y2 float64, class string) {
	l := shape{X: round(x1), Y: round(y1), W: round(x2), H: round(y2), Class: class}
	if class == "grid" {
		p.Grid = append(p.Grid, l)
		return
	}
	p.Lines = append(p.Lines, l)
}

func (p *plot) text(x, y float64, anchor, class, format string, args ...any) {
	p.Texts = append(p.Texts, label{round(x), round(y), anchor, class, fmt.Sprintf(format, args...)})
}

func round(v float64) float64 { return math.Round(v*10) / 10 }

// clock is a time axis.
type clock struct{ from, to time.Time }

func (c clock) x(at time.Time) float64 {
	span := c.to.Sub(c.from)
	if span <= 0 {
		return plotLeft
	}
	share := float64(at.Sub(c.from)) / float64(span)
	return plotLeft + min(1, max(0, share))*(plotRight-plotLeft)
}

// steps between two marks of a time axis.
var timeSteps = []time.Duration{
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour,
}

// axis draws the time below a plot and thin lines up through it.
func (c clock) axis(p *plot, top, bottom float64) {
	span := c.to.Sub(c.from)
	step := timeSteps[len(timeSteps)-1]
	for _, s := range timeSteps {
		if span <= 9*s {
			step = s
			break
		}
	}
	for span/9 > step { // nine times the step of the longest run would overflow
		step *= 2
	}
	format := "15:04:05"
	switch {
	case step < time.Second:
		format = "15:04:05.0"
	case step >= time.Minute && span >= 24*time.Hour:
		format = "2 Jan 15:04"
	case step >= time.Minute:
		format = "15:04"
	}
	for at := c.from.Truncate(step); !at.After(c.to); at = at.Add(step) {
		if at.Before(c.from) {
			continue
		}
		x := c.x(at)
		p.line(x, top, x, bottom, "grid")
		p.text(x, bottom+16, "middle", "tick", "%s", at.UTC().Format(format))
	}
	p.line(plotLeft, bottom, plotRight, bottom, "axis")
}

// ceiling is a round number that is not below n.
func ceiling(n float64) float64 {
	if n <= 5 {
		return math.Max(1, math.Ceil(n))
	}
	unit := math.Pow(10, math.Floor(math.Log10(n)))
	for _, f := range []float64{1, 1.5, 2, 3, 4, 5, 6, 8, 10} {
		if f*unit >= n {
			return f * unit
		}
	}
	return 10 * unit
}

// amount writes a number for an axis.
func amount(n float64) string {
	switch {
	case n >= 1e9:
		return trim(n/1e9) + "G"
	case n >= 1e6:
		return trim(n/1e6) + "M"
	case n >= 1e4:
		return trim(n/1e3) + "k"
	case n != math.Trunc(n):
		return fmt.Sprintf("%.1f", n)
	}
	return group(int64(n))
}

func trim(n float64) string {
	if n == math.Trunc(n) {
		return fmt.Sprintf("%.0f", n)
	}
	return fmt.Sprintf("%.1f", n)
}
