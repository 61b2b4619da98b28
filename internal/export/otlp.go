// SPDX-License-Identifier: Apache-2.0

package export

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
)

// Push sends the points of every snapshot over OTLP.
type Push struct {
	URL      string // of the receiver; a path is added where it has none
	Interval time.Duration
	Timeout  time.Duration
	Host     string
	Version  string
}

// metricsPath is where a receiver takes metrics (OTLP specification, OTLP/HTTP request).
const metricsPath = "/v1/metrics"

// Open begins to push. What it returns ends that, after a last push. Headers, compression and certificates
// are those of the OTEL_EXPORTER_OTLP_* variables.
func (p Push) Open(ctx context.Context, c *Cache) (end func(context.Context) error, err error) {
	url := p.URL
	if rest := url[strings.Index(url, "//")+2:]; !strings.Contains(strings.TrimSuffix(rest, "/"), "/") {
		url = strings.TrimSuffix(url, "/") + metricsPath
	}
	exporter, err := otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpointURL(url), otlpmetrichttp.WithTimeout(p.Timeout))
	if err != nil {
		return nil, fmt.Errorf("open OTLP receiver %s: %w", p.URL, err)
	}
	about := resource.NewSchemaless(
		attribute.String("service.name", "xfrmscope"), attribute.String("service.version", p.Version),
		attribute.String("host.name", p.Host), attribute.String("service.instance.id", p.Host),
	)
	// What the labels may be is bounded before (Options), and the SDK's own bound would cut it short.
	provider := sdk.NewMeterProvider(sdk.WithResource(about), sdk.WithCardinalityLimit(0),
		sdk.WithReader(sdk.NewPeriodicReader(exporter, sdk.WithInterval(p.Interval), sdk.WithTimeout(p.Timeout))))
	if err := observe(provider.Meter("xfrmscope"), c); err != nil {
		return nil, err
	}
	return provider.Shutdown, nil
}

// observe makes an instrument of each metric and fills all of them from one snapshot.
func observe(meter metric.Meter, c *Cache) error {
	instruments := map[string]metric.Float64Observable{}
	var all []metric.Observable
	for _, m := range Metrics() {
		// A counter's suffix is Prometheus' own, and a receiver of that kind adds it again.
		name := strings.TrimSuffix(m.Name, "_total")
		var o metric.Float64Observable
		var err error
		if m.Kind == Counter {
			o, err = meter.Float64ObservableCounter(name, metric.WithDescription(m.Help), metric.WithUnit(m.Unit))
		} else {
			o, err = meter.Float64ObservableGauge(name, metric.WithDescription(m.Help), metric.WithUnit(m.Unit))
		}
		if err != nil {
			return fmt.Errorf("make instrument %s: %w", name, err)
		}
		instruments[m.Name] = o
		all = append(all, o)
	}
	_, err := meter.RegisterCallback(func(ctx context.Context, to metric.Observer) error {
		points, err := c.Get(ctx)
		for _, p := range points {
			if o := instruments[p.Metric.Name]; o != nil {
				to.ObserveFloat64(o, p.Value, metric.WithAttributeSet(p.Labels.attributes(p.Metric.Labels)))
			}
		}
		return err
	}, all...)
	if err != nil {
		return fmt.Errorf("register instruments: %w", err)
	}
	return nil
}

// attributes are the labels as OTLP wants them.
func (l *Labels) attributes(names []string) attribute.Set {
	out := make([]attribute.KeyValue, len(names))
	for i, n := range names {
		out[i] = attribute.String(n, l.Values[i])
	}
	return attribute.NewSet(out...)
}
