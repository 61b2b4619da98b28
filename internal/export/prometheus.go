// SPDX-License-Identifier: Apache-2.0

package export

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"
)

// Collector gives the points to Prometheus.
type Collector struct {
	cache   *Cache
	timeout time.Duration
}

// NewCollector prepares to be scraped. A scrape waits for a snapshot no longer than timeout.
func NewCollector(c *Cache, timeout time.Duration) *Collector {
	return &Collector{cache: c, timeout: timeout}
}

// Describe tells of nothing beforehand: a newer kernel may have counters that this build does not know.
func (*Collector) Describe(chan<- *prometheus.Desc) {}

// Collect takes a snapshot and hands over its points. The registry calls it from several goroutines, and
// wants nothing kept between calls but descriptions, which are made anew for each.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	points, err := c.cache.Get(ctx)
	if err != nil && points == nil {
		ch <- prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(err), err)
		return
	}
	descs := map[*Metric]*prometheus.Desc{}
	for i := range points {
		p := &points[i]
		d := descs[p.Metric]
		if d == nil {
			d = prometheus.NewDesc(p.Metric.Name, p.Metric.Help, p.Metric.Labels, nil)
			descs[p.Metric] = d
		}
		ch <- constMetric{d, p}
	}
}

// constMetric is a point. The library's own would make its labels anew for each value; here all the values
// of a tunnel share theirs.
type constMetric struct {
	desc *prometheus.Desc
	*Point
}

func (m constMetric) Desc() *prometheus.Desc { return m.desc }

func (m constMetric) Write(out *dto.Metric) error {
	out.Label = m.Labels.pairs(m.Metric.Labels)
	switch m.Metric.Kind {
	case Counter:
		out.Counter = &dto.Counter{Value: proto.Float64(m.Value)}
	case Gauge:
		out.Gauge = &dto.Gauge{Value: proto.Float64(m.Value)}
	}
	return nil
}
