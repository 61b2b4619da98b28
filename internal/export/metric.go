// SPDX-License-Identifier: Apache-2.0

package export

import "slices"

// Kind says how a metric behaves over time.
type Kind string

// The kinds.
const (
	Counter Kind = "counter" // never goes back, except to 0 when xfrmscope starts again
	Gauge   Kind = "gauge"
)

// Metric describes one family of series. The list of them is what docs/metrics.md is made from.
type Metric struct {
	Name   string
	Help   string
	Kind   Kind
	Unit   string // by UCUM, for OTLP
	Labels []string
}

// Point is one value of a metric.
type Point struct {
	Metric *Metric
	Labels *Labels
	Value  float64
}

const (
	unitPackets  = "{packet}"
	unitSeconds  = "s"
	unitBytes    = "By"
	unitMessages = "{message}"
	unitOne      = "1"
)

// section is a group of metrics under one heading of the documentation.
type section struct {
	title   string
	intro   string
	metrics []*Metric
}

// tunnelLabels are what every figure of a tunnel goes by. The SPI is not among them: it changes with each
// rekey and would leave a series behind every time.
var tunnelLabels = []string{"local", "peer", "reqid", "direction"}

func withTunnel(more ...string) []string { return slices.Concat(tunnelLabels, more) }

func packetsOf(name, help string) *Metric {
	return &Metric{Name: "xfrmscope_" + name + "_packets_total", Help: help, Kind: Counter, Unit: unitPackets, Labels: tunnelLabels}
}

func packetsNow(name, help string) *Metric {
	return &Metric{Name: "xfrmscope_" + name + "_packets", Help: help, Kind: Gauge, Unit: unitPackets, Labels: tunnelLabels}
}

func counter(name, unit, help string, labels ...string) *Metric {
	return &Metric{Name: "xfrmscope_" + name + "_total", Help: help, Kind: Counter, Unit: unit, Labels: labels}
}

func gauge(name, unit, help string, labels ...string) *Metric {
	return &Metric{Name: "xfrmscope_" + name, Help: help, Kind: Gauge, Unit: unit, Labels: labels}
}

// Metrics lists every metric that may be exported, in the order of the documentation.
func Metrics() []*Metric {
	var out []*Metric
	for _, s := range sections() {
		out = append(out, s.metrics...)
	}
	return out
}
