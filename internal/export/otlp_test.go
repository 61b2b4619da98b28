// SPDX-License-Identifier: Apache-2.0

package export

import (
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	otlp "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"

	"xfrmscope/internal/ledger"
)

// receiver is an OTLP/HTTP receiver that keeps what is pushed.
type receiver struct {
	t     *testing.T
	paths chan string
	got   chan *collector.ExportMetricsServiceRequest
	auth  chan string
}

func newReceiver(t *testing.T) (*receiver, string) {
	t.Helper()
	r := &receiver{t: t, paths: make(chan string, 100), got: make(chan *collector.ExportMetricsServiceRequest, 100), auth: make(chan string, 100)}
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	return r, s.URL
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body := io.Reader(req.Body)
	if req.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(req.Body)
		if err != nil {
			r.t.Error(err)
			return
		}
		body = z
	}
	raw, err := io.ReadAll(body)
	if err != nil {
		r.t.Error(err)
	}
	var m collector.ExportMetricsServiceRequest
	if err := proto.Unmarshal(raw, &m); err != nil {
		r.t.Error(err)
	}
	r.paths <- req.URL.Path
	r.auth <- req.Header.Get("Authorization")
	r.got <- &m
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// TestPush holds what a receiver gets against what a scrape shows of the same snapshot.
func TestPush(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer of-tidings")
	recv, url := newReceiver(t)
	g := &gateway{sas: 2, lost: 3}
	rolling := ledger.NewRolling(ledger.Source{Kind: ledger.KindLive}, time.Hour)
	rolling.Observe(g.snapshot(100, time.Second))
	rolling.Observe(g.snapshot(100, time.Second))
	sample := Sample{At: g.at, Totals: rolling.Totals(), Report: rolling.Report()}
	c := NewCache(func(context.Context) (Sample, error) { return sample, nil }, Options{Version: "1.2.3"}, time.Hour, time.Minute)
	end, err := Push{URL: url, Interval: 20 * time.Millisecond, Timeout: 10 * time.Second, Host: "gw1", Version: "1.2.3"}.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	first := <-recv.got
	if path, auth := <-recv.paths, <-recv.auth; path != metricsPath || auth != "Bearer of-tidings" {
		t.Errorf("pushed to %s with authorization %q", path, auth)
	}
	if err := end(t.Context()); err != nil {
		t.Error(err)
	}

	resource := map[string]string{}
	series := map[string]float64{}
	for _, rm := range first.ResourceMetrics {
		for _, a := range rm.Resource.Attributes {
			resource[a.Key] = a.Value.GetStringValue()
		}
		for _, sm := range rm.ScopeMetrics {
			for _, m := range sm.Metrics {
				collect(t, m, series)
			}
		}
	}
	if resource["service.name"] != "xfrmscope" || resource["host.name"] != "gw1" || resource["service.version"] != "1.2.3" {
		t.Errorf("resource %v", resource)
	}
	points, err := c.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range points {
		key := seriesKey(p.Metric.Name, p.Metric.Labels, p.Labels.Values)
		got, ok := series[key]
		// Gauges of the snapshot itself are the same snapshot's too: nothing was taken in between.
		if !ok || got != p.Value {
			t.Errorf("%s: pushed %v (%v), scraped %v", key, got, ok, p.Value)
		}
		delete(series, key)
	}
	for key := range series {
		t.Errorf("%s was pushed and is not scraped", key)
	}
}

func seriesKey(name string, labels, values []string) string {
	all := map[string]string{}
	for i, l := range labels {
		all[l] = values[i]
	}
	key := name
	for _, m := range Metrics() {
		if m.Name == name {
			for _, l := range m.Labels {
				key += " " + l + "=" + all[l]
			}
		}
	}
	return key
}

// collect reads one metric. Counters have to be cumulative and monotonic.
func collect(t *testing.T, m *otlp.Metric, into map[string]float64) {
	t.Helper()
	var points []*otlp.NumberDataPoint
	name := m.Name
	if s := m.GetSum(); s != nil {
		if !s.IsMonotonic || s.AggregationTemporality != otlp.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE {
			t.Errorf("%s is no cumulative counter", m.Name)
		}
		points, name = s.DataPoints, name+"_total"
	} else {
		points = m.GetGauge().DataPoints
	}
	if m.Description == "" || m.Unit == "" {
		t.Errorf("%s has no description or no unit", m.Name)
	}
	for _, p := range points {
		var labels, values []string
		for _, a := range p.Attributes {
			labels, values = append(labels, a.Key), append(values, a.Value.GetStringValue())
		}
		into[seriesKey(name, labels, values)] = p.GetAsDouble()
	}
}
