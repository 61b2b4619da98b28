// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/privilege"
	"xfrmscope/internal/reader"
	"xfrmscope/internal/record"
)

// recordOptions are what `record` can be told.
type recordOptions struct {
	live     liveOptions
	duration time.Duration
	interval time.Duration
	file     string
	force    bool
	maxSize  byteSize
	events   int
}

func newRecord() *cobra.Command {
	var o recordOptions
	cmd := &cobra.Command{
		Use:   "record",
		Short: "Keep a run in a file, for reports later and elsewhere",
		Long: `Watches this gateway's tunnels as 'xfrmscope diagnose' does and writes what it sees to a file: at
first everything, then every interval what changed, and the events as they happen. 'xfrmscope report'
makes of it any report that could have been made live, as text, JSON, Markdown or a page of HTML, for all
of the time or for a part; 'xfrmscope compare' joins the recordings of both ends of a tunnel.

The file is whole up to its last second, however xfrmscope or the machine ends. It holds addresses, SPIs,
policies, counters and headers of IKE, and no packet's content; no key is ever read.

Exit status: 0 recorded, 2 wrong usage, 3 cannot observe or write.`,
		Example: `  xfrmscope record
  xfrmscope record -o night.xsr --for 8h --max-size 500MB
  xfrmscope record -o gw-a.xsr --interval 250ms --interface eth0
  ssh gateway xfrmscope record --for 1m -o - > gateway.xsr`,
		Args: cobra.NoArgs,
		RunE: work(func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return &usageError{err}
			}
			if err := checkDuration(o.duration); err != nil {
				return err
			}
			o.live.marks = marksEvery
			return keepRun(cmd.Context(), &o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		}),
	}
	o.live.addFlags(cmd.Flags())
	addDuration(cmd, &o.duration, 0)
	f := cmd.Flags()
	f.DurationVar(&o.interval, "interval", time.Second, "time between two snapshots, 100ms at least")
	f.StringVarP(&o.file, "output", "o", "", "`file` to write, - for standard output (default: HOST-TIME.xsr in this directory)")
	f.BoolVar(&o.force, "force", false, "overwrite a file that is there")
	f.Var(&o.maxSize, "max-size", "end when the file has so many `bytes`, e.g. 500MB or 500MiB")
	f.IntVar(&o.events, "events", record.DefaultEvents, "at most this many `events` of each kind a second; more are counted and left out")
	return cmd
}

// intervalMin bounds what observing costs.
const intervalMin = 100 * time.Millisecond

// maxSizeMin has room for the first snapshot of a small gateway.
const maxSizeMin = 16_000

func (o *recordOptions) check() error {
	switch {
	case o.interval < intervalMin:
		return fmt.Errorf("--interval %s: %s at least", o.interval, intervalMin)
	case o.maxSize != 0 && o.maxSize < maxSizeMin:
		return fmt.Errorf("--max-size %s: %d bytes at least", &o.maxSize, maxSizeMin)
	case o.events < 1:
		return fmt.Errorf("--events %d: 1 at least", o.events)
	}
	return nil
}

// keepRun records until the duration is over, the context ends or the file has its size.
func keepRun(ctx context.Context, o *recordOptions, stdout, progress io.Writer) (err error) {
	var out io.Writer = stdout
	switch {
	case o.file == "-" && isTerminal(stdout):
		return &usageError{errors.New("--output -: a recording is nothing for a terminal; send it to a file or a pipe")}
	case o.file == "":
		o.file = record.DefaultName(hostname(), time.Now())
	}
	if o.file != "-" {
		f, err := record.NewFile(o.file, o.force)
		if errors.Is(err, record.ErrExists) {
			return &usageError{err}
		}
		if err != nil {
			return err
		}
		out = f
		defer func() { err = closing(f, err) }()
	}
	s, err := openSession(ctx, &o.live)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	s.ledger = nil // the file has it all
	r := recorder{session: s, losses: ledger.New(s.source)}
	if r.writer, err = record.Create(out, s.header(o.interval), record.Options{MaxSize: int64(o.maxSize), EventsPerSecond: o.events}); err != nil {
		return err
	}
	return r.run(ctx, o, progress)
}

// header begins a recording of the session, with a snapshot every interval.
func (s *session) header(interval time.Duration) record.Header {
	return record.Header{Xfrmscope: version, Source: s.source, IntervalS: interval.Seconds(), Boot: bootID(), Devices: observedDevices(s.set.Plan())}
}

// closing closes a recording's file and keeps an earlier error in front.
func closing(f io.Closer, err error) error { return errors.Join(err, f.Close()) }

// recorder moves what a session sees into a file.
type recorder struct {
	session *session
	writer  *record.Writer
	losses  *ledger.Ledger // of what xfrmscope itself lost, and of nothing else
	pruned  time.Time
	told    bool
}

// pruneEvery is how often what is over is let go of. The file has it already.
const pruneEvery = 10 * time.Minute

func (r *recorder) run(ctx context.Context, o *recordOptions, progress io.Writer) error {
	s := r.session
	s.keep = r.snapshot
	// An event that cannot be written is no reason to stop hearing of others: the next snapshot tells.
	if err := s.listen(func(e reader.Event) { _ = r.writer.Event(e) }); err != nil {
		return err
	}
	s.giveUp(&o.live, progress, privilege.ToWrite(o.file))
	err := s.steps(ctx, o.duration, o.interval, func() error {
		if r.told {
			return nil
		}
		r.told = true
		fmt.Fprintln(progress, s.announce(o.duration))
		fmt.Fprintf(progress, "xfrmscope: recording to %s\n", o.file)
		return o.live.ready()
	})
	why := record.EndTime
	switch {
	case errors.Is(err, record.ErrFull):
		why, err = record.EndFull, nil
		fmt.Fprintf(progress, "xfrmscope: %s has reached --max-size %s\n", o.file, &o.maxSize)
	case err != nil:
		why = record.EndError
	case ctx.Err() != nil:
		why = record.EndInterrupted
	}
	if closing := r.writer.Close(why); closing != nil && !errors.Is(err, closing) {
		err = errors.Join(err, closing)
	}
	r.summary(o.file, progress)
	return err
}

// snapshot takes one snapshot to the file.
func (r *recorder) snapshot(snap ledger.Snapshot) error {
	r.losses.Observe(ledger.Snapshot{At: snap.At, Mono: snap.Mono, Self: snap.Self})
	if r.pruned.IsZero() {
		r.pruned = time.Now()
	}
	if err := r.writer.Hooks(r.session.allHooks()); err != nil {
		return err
	}
	if err := r.writer.Snapshot(snap); err != nil {
		return err
	}
	if time.Since(r.pruned) < pruneEvery {
		return nil
	}
	r.pruned = time.Now()
	return r.session.reader.Prune(pruneEvery)
}

// summary says what is in the file and what is not.
func (r *recorder) summary(file string, progress io.Writer) {
	end, bytes := r.writer.Stats()
	lost := r.losses.Report()
	perMinute := ""
	if seconds := lost.Source.DurationS; seconds >= 1 {
		perMinute = fmt.Sprintf(", %s a minute", inBytes(float64(bytes)*60/seconds))
	}
	fmt.Fprintf(progress, "xfrmscope: %s: %d snapshots and %d events of %.1f s, %s%s\n",
		file, end.Snapshots, end.Events, lost.Source.DurationS, inBytes(float64(bytes)), perMinute)
	fmt.Fprintf(progress, "xfrmscope: events left out of the file: %d; withheld by the rate limit: %d; lost because the ring was full: %d; "+
		"packets without a place in a full table: %d\n",
		end.EventsLeftOut, lost.Self.EventsSuppressed, lost.Self.EventsLost, lost.Self.TableFull)
}

// inBytes writes a size for people.
func inBytes(n float64) string {
	for _, unit := range []string{"bytes", "kB", "MB"} {
		if n < 1000 {
			if unit == "bytes" {
				return fmt.Sprintf("%.0f %s", n, unit)
			}
			return fmt.Sprintf("%.1f %s", n, unit)
		}
		n /= 1000
	}
	return fmt.Sprintf("%.1f GB", n)
}

// bootID tells runs of one kernel from those of others; "" where it is not told.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(b))
}
