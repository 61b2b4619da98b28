// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/cilium/ebpf"

	"xfrmscope/internal/export"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/reader"
	"xfrmscope/internal/verdict"
)

// metering turns a session's snapshots into samples for export.
type metering struct {
	session  *session
	programs map[string]*ebpf.Program
	mapBytes map[string]uint64

	triggers *triggers

	xfrmStat map[string]uint64 // of the newest snapshot
	ike      *ledger.IKE
}

func openMetering(s *session, t *triggers) (*metering, error) {
	source, err := s.set.Source()
	if err != nil {
		return nil, err
	}
	m := &metering{session: s, triggers: t, programs: source.Programs}
	// Read once: the large ones are allocated when they are made.
	if m.mapBytes, err = reader.MapBytes(source.Maps); err != nil {
		return nil, err
	}
	before := s.keep
	s.keep = func(snap ledger.Snapshot) error {
		if before != nil {
			if err := before(snap); err != nil {
				return err
			}
		}
		m.xfrmStat, m.ike = snap.XfrmStat, snap.IKE
		m.triggers.snapshot(snap)
		return nil
	}
	return m, nil
}

func (m *metering) options(maxTunnels int) export.Options {
	o := export.Options{MaxTunnels: maxTunnels, Version: version, GoVersion: runtime.Version()}
	if names, err := reader.LoadNames(); err == nil {
		o.Lost = names.Lost
	}
	return o
}

// sample takes a snapshot. The cache sees to it that it is not called twice at once.
func (m *metering) sample(ctx context.Context) (export.Sample, error) {
	s := m.session
	if err := s.observe(ctx); err != nil {
		return export.Sample{}, err
	}
	out := export.Sample{
		At: time.Now(), Totals: s.rolling.Totals(), Report: s.rolling.Report(),
		XfrmStat: m.xfrmStat, IKE: m.ike, MapBytes: m.mapBytes, Triggers: m.triggers.counts(),
	}
	out.Findings = verdict.Judge(out.Report)
	for name, p := range m.programs {
		stats, err := p.Stats()
		if err != nil {
			continue // before 5.12 the kernel does not tell
		}
		out.Programs = append(out.Programs, export.Program{Name: name, Runs: stats.RunCount, Seconds: stats.Runtime.Seconds()})
	}
	return out, nil
}

// judge takes a sample every interval, whether or not anybody scrapes: findings need one, and so does the
// rolling ledger. While a recording is under way it takes them as often as that wants.
func (m *metering) judge(ctx context.Context, cache *export.Cache, interval time.Duration, progress io.Writer) error {
	failing := false
	for {
		wait := interval
		if m.triggers.recording() {
			wait = min(wait, recordEvery)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		sample, err := cache.Sample(ctx)
		if ctx.Err() != nil {
			return nil
		}
		// A failure is said once, and shows in xfrmscope_up and in /-/ready while it lasts.
		if err != nil && !failing {
			fmt.Fprintf(progress, "xfrmscope: take snapshot: %v\n", err)
		}
		if failing = err != nil; !failing {
			m.triggers.look(sample.Findings, time.Now())
		}
	}
}
