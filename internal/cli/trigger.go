// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"xfrmscope/internal/capture"
	"xfrmscope/internal/export"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/probe"
	"xfrmscope/internal/reader"
	"xfrmscope/internal/record"
	"xfrmscope/internal/trigger"
	"xfrmscope/internal/verdict"
)

// triggerOptions say what findings set off, and how much of it.
type triggerOptions struct {
	texts    []string
	cooldown time.Duration
	length   time.Duration
	keep     int
	quota    byteSize

	rules   []trigger.Rule
	capture string // the folder of captures; "": none
}

// captureBefore is how much of the time before a finding is in a capture. A finding is found late: the ledger
// waits for late packets, and then for the next snapshot.
const captureBefore = 30 * time.Second

// check reads the rules.
func (o *triggerOptions) check() error {
	if o.cooldown < 0 || o.length < time.Second || o.keep < 1 {
		return errors.New("--trigger-cooldown is not negative, --trigger-for at least a second, --trigger-keep at least 1 file")
	}
	if int64(o.quota)/int64(o.keep) < 1<<20 {
		return fmt.Errorf("--trigger-quota %s: at least a megabyte for each of %d files", &o.quota, o.keep)
	}
	for _, text := range o.texts {
		r, err := trigger.Parse(text)
		if err != nil {
			return fmt.Errorf("--trigger %w", err)
		}
		if r.Action == trigger.Capture {
			if o.capture != "" && o.capture != r.Dir {
				return fmt.Errorf("--trigger: captures go to one folder, not to %s and %s", o.capture, r.Dir)
			}
			o.capture = r.Dir
		}
		info, err := os.Stat(r.Dir)
		if err != nil {
			return fmt.Errorf("--trigger: %w", err)
		}
		if !info.IsDir() {
			return fmt.Errorf("--trigger: %s is no folder", r.Dir)
		}
		o.rules = append(o.rules, r)
	}
	return nil
}

// fileBytes is what one file may have, so that all together stay within the quota.
func (o *triggerOptions) fileBytes() int64 { return int64(o.quota) / int64(o.keep) }

// triggers takes captures and recordings when findings begin.
type triggers struct {
	opts     triggerOptions
	session  *session
	progress io.Writer
	watch    *trigger.Watch
	packets  *capture.Recorder // nil: no rule takes captures

	mu      sync.Mutex
	open    []*keeping
	results map[export.Trigger]uint64
}

// keeping is a recording under way.
type keeping struct {
	path   string
	file   *record.File
	writer *record.Writer
	until  time.Time
}

// prepare makes the session copy packets, where a rule wants captures. It comes before the session is opened.
func (o *triggerOptions) prepare(live *liveOptions) {
	if o.capture != "" {
		live.packets = &probe.PacketOptions{}
	}
}

// openTriggers begins to hold packets in memory, where a rule wants captures.
func openTriggers(s *session, o triggerOptions, progress io.Writer) (*triggers, error) {
	t := &triggers{opts: o, session: s, progress: progress, watch: trigger.NewWatch(o.rules, o.cooldown), results: map[export.Trigger]uint64{}}
	for _, r := range o.rules {
		for _, result := range []string{export.Taken, export.Failed, export.Withheld} {
			t.results[export.Trigger{Action: string(r.Action), Result: result}] = 0
		}
	}
	if o.capture == "" {
		return t, nil
	}
	files := capture.Options{
		Path: filepath.Join(o.capture, "xfrmscope-"+time.Now().UTC().Format(fileTime)+".pcapng"), Last: captureBefore, After: 2 * time.Second,
		Files: o.keep, MemoryBytes: min(capture.DefaultMemoryBytes, o.fileBytes()), Wrote: t.wrote,
		Failed: func(err error) {
			t.count(trigger.Capture, export.Failed)
			fmt.Fprintf(t.progress, "xfrmscope: write a capture: %v\n", err)
		},
	}
	if err := files.Check(); err != nil {
		return nil, err
	}
	var err error
	t.packets, err = s.recorder(files, nil, nil)
	return t, err
}

// fileTime is how names of files tell the time, in UTC.
const fileTime = "20060102T150405Z"

// run collects packets until the context ends. A capture that fails does not end the metrics.
func (t *triggers) run(ctx context.Context) error {
	if t.packets == nil {
		return nil
	}
	err := t.packets.Run(ctx, func() error {
		if ctx.Err() == nil {
			return nil // it failed: the other hooks stay
		}
		return t.session.set.Detach()
	})
	if err != nil {
		t.count(trigger.Capture, export.Failed)
		fmt.Fprintf(t.progress, "xfrmscope: captures end: %v\n", err)
	}
	return nil
}

// look takes the findings of now.
func (t *triggers) look(findings []verdict.Finding, now time.Time) {
	for _, f := range t.watch.Look(findings, now) {
		switch {
		case f.Withheld, f.Rule.Action == trigger.Record && t.recordingTo(f.Rule.Dir):
			t.count(f.Rule.Action, export.Withheld)
		case f.Rule.Action == trigger.Capture:
			t.packets.Trigger("finding " + string(f.ID) + ": " + f.Why)
		default:
			if err := t.begin(f, now); err != nil {
				t.count(trigger.Record, export.Failed)
				fmt.Fprintf(t.progress, "xfrmscope: record because of %s: %v\n", f.ID, err)
			}
		}
	}
}

// wrote is told of each capture.
func (t *triggers) wrote(f capture.File) {
	t.count(trigger.Capture, export.Taken)
	// Those of earlier runs count as well.
	if err := trigger.MakeRoom(t.opts.capture, "xfrmscope-*.pcapng", t.opts.keep+1); err != nil {
		fmt.Fprintf(t.progress, "xfrmscope: %v\n", err)
	}
	fmt.Fprintf(t.progress, "xfrmscope: wrote %s: %d packets, because of %s\n", f.Name, f.Packets, f.Trigger)
}

func (t *triggers) count(a trigger.Action, result string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.results[export.Trigger{Action: string(a), Result: result}]++
}

// counts are the results so far.
func (t *triggers) counts() map[export.Trigger]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make(map[export.Trigger]uint64, len(t.results))
	for k, n := range t.results {
		out[k] = n
	}
	return out
}

// begin opens a recording.
func (t *triggers) begin(f trigger.Firing, now time.Time) error {
	if err := trigger.MakeRoom(f.Rule.Dir, "xfrmscope-*.xsr", t.opts.keep); err != nil {
		return err
	}
	k := &keeping{until: now.Add(t.opts.length)}
	k.path = filepath.Join(f.Rule.Dir, fmt.Sprintf("xfrmscope-%s-%s.xsr", f.ID, now.UTC().Format(fileTime)))
	var err error
	if k.file, err = record.NewFile(k.path, false); err != nil {
		return err
	}
	if k.writer, err = record.Create(k.file, t.session.header(recordEvery), record.Options{MaxSize: t.opts.fileBytes()}); err != nil {
		return errors.Join(err, k.file.Close(), os.Remove(k.path))
	}
	fmt.Fprintf(t.progress, "xfrmscope: recording to %s for %s, because of %s: %s\n", k.path, t.opts.length, f.ID, f.Why)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open = append(t.open, k)
	return nil
}

// recordEvery is how often a recording under way wants a snapshot.
const recordEvery = time.Second

// recording says whether one is under way.
func (t *triggers) recording() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.open) > 0
}

// recordingTo says whether one is under way that goes to this folder. A second one beside it would hold the same, and
// each takes memory and has its share of the quota.
func (t *triggers) recordingTo(dir string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.open, func(k *keeping) bool { return filepath.Dir(k.path) == dir })
}

// hear gives an event to the recordings under way.
func (t *triggers) hear(e reader.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range t.open {
		_ = k.writer.Event(e) // the next snapshot tells what is wrong
	}
}

// snapshot gives a snapshot to the recordings under way, and ends those whose time is over. A recording that
// fails ends; nothing else does.
func (t *triggers) snapshot(snap ledger.Snapshot) {
	t.mu.Lock()
	open := t.open
	t.mu.Unlock()
	for _, k := range open {
		err := k.writer.Hooks(t.session.allHooks())
		if err == nil {
			err = k.writer.Snapshot(snap)
		}
		switch {
		case errors.Is(err, record.ErrFull):
			t.end(k, record.EndFull, nil)
		case err != nil:
			t.end(k, record.EndError, err)
		case !snap.At.Before(k.until):
			t.end(k, record.EndTime, nil)
		}
	}
}

// end closes a recording.
func (t *triggers) end(k *keeping, why string, err error) {
	t.mu.Lock()
	left := make([]*keeping, 0, len(t.open))
	for _, o := range t.open {
		if o != k {
			left = append(left, o)
		}
	}
	t.open = left
	t.mu.Unlock()
	if e := errors.Join(k.writer.Close(why), k.file.Close()); err == nil && e != nil {
		err = e
	}
	if err != nil {
		t.count(trigger.Record, export.Failed)
		fmt.Fprintf(t.progress, "xfrmscope: record to %s: %v\n", k.path, err)
		return
	}
	t.count(trigger.Record, export.Taken)
}

// Close ends what is under way; what was recorded stays whole.
func (t *triggers) Close() error {
	t.mu.Lock()
	open := t.open
	t.mu.Unlock()
	for _, k := range open {
		t.end(k, record.EndInterrupted, nil)
	}
	return nil
}
