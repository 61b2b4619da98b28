// SPDX-License-Identifier: Apache-2.0

package export

import (
	"slices"
	"strings"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// Labels are the values of one set of labels, shared by the points that have them.
type Labels struct {
	Values []string

	highs []high
	used  time.Time

	once sync.Once
	made []*dto.LabelPair // for Prometheus
}

// high is the highest value that a counter has shown under these labels.
type high struct {
	metric *Metric
	value  float64
}

// rise gives what a counter shows: its value, or the highest before where it went back. The ledger takes
// back what it gave when it learns better, a lost packet that was only late for instance; a counter that
// goes back would be taken for a restart, and all that it had counted be counted again.
func (l *Labels) rise(m *Metric, v float64) float64 {
	for i := range l.highs {
		if h := &l.highs[i]; h.metric == m {
			h.value = max(h.value, v)
			return h.value
		}
	}
	l.highs = append(l.highs, high{m, max(0, v)})
	return max(0, v)
}

// shelf keeps sets of labels from one sample to the next.
type shelf[K comparable] map[K]*Labels

func (s shelf[K]) get(key K, now time.Time, values func() []string) *Labels {
	l := s[key]
	if l == nil {
		l = &Labels{Values: values()}
		s[key] = l
	}
	l.used = now
	return l
}

func (s shelf[K]) forget(now time.Time) {
	for k, l := range s {
		if now.Sub(l.used) > kept {
			delete(s, k)
		}
	}
}

func joined(values []string) string { return strings.Join(values, "\xff") }

// pairs are the labels as Prometheus wants them: sorted by name.
func (l *Labels) pairs(names []string) []*dto.LabelPair {
	l.once.Do(func() {
		for i, n := range names {
			l.made = append(l.made, &dto.LabelPair{Name: &n, Value: &l.Values[i]})
		}
		slices.SortFunc(l.made, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
	})
	return l.made
}
