// SPDX-License-Identifier: Apache-2.0

package record

import (
	"errors"
	"fmt"
	"io"
	"time"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/reader"
)

// ReplayOptions say what of a recording is wanted. The zero value is all of it.
type ReplayOptions struct {
	From, To time.Time // the first and last moments; zero: of the recording
	// Snapshot is called after each snapshot that the ledger has taken, with the ledger as it stands. The
	// first one is the baseline.
	Snapshot func(ledger.Snapshot, *ledger.Ledger) error
	Event    func(reader.Event) error // of the span
}

// Replayed is what a recording holds.
type Replayed struct {
	Header      Header
	Report      ledger.Report
	Hooks       []ledger.Hook
	Start, Stop time.Time // of the snapshots that were taken into account
	Snapshots   int
	Events      int
	End         *End  // nil: it does not end properly, and Damage says how
	Damage      error // *DamageError; everything before it is in the report
}

// Replay gives a recording's snapshots to a ledger.
func Replay(path string, o ReplayOptions) (_ *Replayed, err error) {
	r, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	out, err := r.replay(o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return out, nil
}

// source is that of a report made of the recording.
func (h Header) source() ledger.Source {
	s := h.Source
	if s.Kind == ledger.KindLive {
		s.Kind = ledger.KindRecording
	}
	return s
}

func (r *Reader) replay(o ReplayOptions) (*Replayed, error) {
	out := &Replayed{Header: r.header}
	l := ledger.New(r.header.source())
	take := func(s ledger.Snapshot, hooks []ledger.Hook) error {
		if out.Snapshots++; out.Snapshots == 1 {
			out.Start = s.At
		}
		out.Stop, out.Hooks = s.At, hooks
		l.SetHooks(hooks)
		l.Observe(s)
		if o.Snapshot == nil {
			return nil
		}
		return o.Snapshot(s, l)
	}
	var held *Record // the newest snapshot that is not after From
	for {
		rec, err := r.Next()
		var damage *DamageError
		if errors.As(err, &damage) {
			out.Damage = damage
		} else if err != nil && err != io.EOF {
			return nil, err
		}
		if err != nil {
			break
		}
		switch {
		case rec.End != nil:
			out.End = rec.End
		case rec.Event != nil:
			if rec.Event.Time.Before(o.From) || !o.To.IsZero() && rec.Event.Time.After(o.To) {
				continue
			}
			out.Events++
			if o.Event != nil {
				if err := o.Event(*rec.Event); err != nil {
					return nil, err
				}
			}
		case !o.To.IsZero() && rec.Snapshot.At.After(o.To):
			continue
		case out.Snapshots == 0 && rec.Snapshot.At.Before(o.From):
			held = &rec
		default:
			if held != nil && out.Snapshots == 0 && rec.Snapshot.At.After(o.From) {
				if err := take(*held.Snapshot, held.Hooks); err != nil {
					return nil, err
				}
			}
			if err := take(*rec.Snapshot, rec.Hooks); err != nil {
				return nil, err
			}
		}
	}
	switch {
	case out.Snapshots > 0:
	case held != nil || !o.To.IsZero():
		return nil, errors.New("no two snapshots of the recording lie between the given times")
	case out.Damage != nil:
		return nil, fmt.Errorf("the recording holds no snapshot: %w", out.Damage)
	default:
		return nil, errors.New("the recording holds no snapshot")
	}
	out.Report = l.Report()
	return out, nil
}

// Begin is when a recording's first snapshot was taken.
func Begin(path string) (at time.Time, err error) {
	r, err := Open(path)
	if err != nil {
		return at, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for {
		rec, err := r.Next()
		if err == io.EOF {
			err = errors.New("the recording holds no snapshot")
		}
		if err != nil {
			return at, fmt.Errorf("%s: %w", path, err)
		}
		if rec.Snapshot != nil {
			return rec.Snapshot.At, nil
		}
	}
}

// Notes are what a reader of the report has to know of its recording.
func (p *Replayed) Notes() []string {
	var out []string
	if p.Damage != nil {
		out = append(out, p.Damage.Error()+"; the report is of what stands before")
	}
	if p.End != nil && p.End.EventsLeftOut > 0 {
		out = append(out, fmt.Sprintf("%d events are not in the recording: there were too many in a second; no count depends on them", p.End.EventsLeftOut))
	}
	return out
}
