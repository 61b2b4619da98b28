// SPDX-License-Identifier: Apache-2.0

// Package load reads the sides of a comparison: recordings, and captures through the wire program.
package load

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"xfrmscope/internal/compare"
	"xfrmscope/internal/ike"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/reader"
	"xfrmscope/internal/record"
	"xfrmscope/internal/replay"
)

// Options say how captures are read.
type Options struct {
	NATTPorts   []uint16
	SATableSize uint32
	Progress    func(replay.Progress)
	// IKE turns an event into an IKE message; false: it is none.
	IKE func(reader.Event) (ike.Message, bool)
}

// Both reads two files and refuses what can be no two ends.
func Both(ctx context.Context, a, b string, o Options) (*compare.Side, *compare.Side, error) {
	infoA, err := os.Stat(a)
	if err != nil {
		return nil, nil, fmt.Errorf("read end A: %w", err)
	}
	infoB, err := os.Stat(b)
	if err != nil {
		return nil, nil, fmt.Errorf("read end B: %w", err)
	}
	if os.SameFile(infoA, infoB) {
		return nil, nil, fmt.Errorf("%s and %s are one file: compare needs a recording or capture from each end of the tunnel", a, b)
	}
	first, err := file(ctx, a, o)
	if err != nil {
		return nil, nil, fmt.Errorf("read end A: %w", err)
	}
	second, err := file(ctx, b, o)
	if err != nil {
		return nil, nil, fmt.Errorf("read end B: %w", err)
	}
	return first, second, nil
}

func file(ctx context.Context, path string, o Options) (*compare.Side, error) {
	r, err := record.Open(path)
	switch {
	case errors.Is(err, record.ErrNotRecording):
		return capture(ctx, path, o)
	case err != nil:
		return nil, err
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("close recording: %w", err)
	}
	return compare.Recording(filepath.Base(path), func(v compare.Visitor) (compare.Whole, error) { return recording(ctx, path, v) })
}

// recording reads one from its beginning to its end.
func recording(ctx context.Context, path string, v compare.Visitor) (compare.Whole, error) {
	replayed, err := record.Replay(path, record.ReplayOptions{
		Snapshot: func(s ledger.Snapshot, l *ledger.Ledger) error {
			if ctx.Err() != nil {
				return fmt.Errorf("read recording: %w", ctx.Err())
			}
			if v.Snapshot == nil {
				return nil
			}
			return v.Snapshot(s, l)
		},
		Event: func(e reader.Event) error {
			if v.Mark == nil || e.Kind != reader.KindMark {
				return nil
			}
			return v.Mark(markOf(e))
		},
	})
	if err != nil {
		return compare.Whole{}, err
	}
	whole := compare.Whole{Report: replayed.Report, Boot: replayed.Header.Boot}
	if replayed.Damage != nil {
		whole.Damage = replayed.Damage.Error()
	}
	return whole, nil
}

func markOf(e reader.Event) compare.Mark {
	return compare.Mark{
		Key: ledger.SAKey{Dst: e.Dst, SPI: e.SPI, Proto: ledger.ESP, Direction: e.Direction},
		Src: e.Src, Seq: uint32(e.Seq), At: e.Time,
	}
}

// capture reads a capture file, every packet of it.
func capture(ctx context.Context, path string, o Options) (*compare.Side, error) {
	name := filepath.Base(path)
	return compare.Capture(name, func(take func(compare.Mark) error) (whole compare.Whole, err error) {
		tracker := ike.NewTracker()
		res, err := replay.Run(ctx, []string{path}, replay.Options{
			NATTPorts: o.NATTPorts, SATableSize: o.SATableSize, Progress: o.Progress,
			Mark: func(e reader.Event) error { return take(markOf(e)) },
			IKE: func(e reader.Event) error {
				if m, ok := o.IKE(e); ok {
					tracker.Observe(m)
				}
				return nil
			},
		})
		if err != nil && (res == nil || res.Packets == 0 || ctx.Err() != nil) {
			return whole, err
		}
		if err != nil {
			whole.Damage = err.Error()
		}
		l := ledger.New(ledger.Source{Kind: ledger.KindCapture, Name: name})
		l.SetHooks([]ledger.Hook{{Name: "captured packets", Attached: true, Why: fmt.Sprintf("%d packets", res.Packets)}})
		l.Observe(res.Begin)
		res.End.IKE = tracker.Report(res.End.At)
		l.Observe(res.End)
		whole.Report = l.Report()
		return whole, nil
	})
}
