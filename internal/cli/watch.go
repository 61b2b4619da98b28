// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
	"github.com/charmbracelet/x/term"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/reader"
	"xfrmscope/internal/report"
	"xfrmscope/internal/tui"
)

// watchOptions are the flags of watch.
type watchOptions struct {
	live     liveOptions
	duration time.Duration
	interval time.Duration
	window   time.Duration
	plain    bool
}

func newWatch() *cobra.Command {
	var o watchOptions
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "The live ledger on a screen: a row per SA, and all about one of them",
		Long: `Shows the loss ledger of every SA as it grows: packets and bits a second, what was lost on the path, came
late, was dropped by xfrm, elsewhere in this host or after decryption, and what is unattributed, with
the recent past as a line of bars. Enter looks into one SA: its ledger, its replay window against how
late packets came, reordering, rekeys, path MTU, TCP inside, events. Findings stand below. What
xfrmscope itself costs is always in view. ? lists the keys.

Where the output is no terminal, or a dumb one, and with --plain: a line per SA and interval, in columns
that do not change. NO_COLOR is honoured.

Exit status: 0 nothing found, 1 findings that ask for action at the end, 2 wrong usage, 3 cannot
observe.`,
		Example: `  xfrmscope watch
  xfrmscope watch --netns gw --interval 5s --stats
  xfrmscope watch --plain --for 1m | awk '!/^#/ && $12 > 0'
  NO_COLOR=1 xfrmscope watch --interface eth0`,
		Args: cobra.NoArgs,
		RunE: work(func(cmd *cobra.Command, _ []string) error {
			switch {
			case o.interval < 100*time.Millisecond:
				return &usageError{fmt.Errorf("--interval %s: at least 100ms", o.interval)}
			case o.window != 0 && o.window < 2*o.interval:
				return &usageError{fmt.Errorf("--window %s: at least twice the interval, or 0 for the whole run", o.window)}
			}
			if err := checkDuration(o.duration); err != nil {
				return err
			}
			return watch(cmd.Context(), &o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		}),
	}
	o.live.addFlags(cmd.Flags())
	addDuration(cmd, &o.duration, 0)
	cmd.Flags().DurationVar(&o.interval, "interval", time.Second, "`time` from one look to the next, at least 100ms")
	cmd.Flags().DurationVar(&o.window, "window", 10*time.Minute,
		"figures and findings cover the last one to two of this `time`; 0: the whole run, and memory grows with every SA that ends")
	cmd.Flags().BoolVar(&o.plain, "plain", false, "a line per SA and interval instead of a screen")
	o.live.addStats(cmd.Flags())
	return cmd
}

// watcher hands what a session sees to a screen or a pipe.
type watcher struct {
	session *session
	reset   atomic.Bool
	cpu     cpuMeter
	last    *tui.Frame
	began   time.Time // when the account first began, or was last reset
	renewed bool      // it was reset

	mu      sync.Mutex
	events  []tui.Event
	skipped int
}

// eventsBetween bounds the events kept between two frames; more of them nobody reads.
const eventsBetween = 4096

func watch(ctx context.Context, o *watchOptions, stdout, stderr io.Writer) (err error) {
	s, err := openSession(ctx, &o.live)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if o.window > 0 {
		s.roll(o.window)
	}
	w := &watcher{session: s}
	if err := s.listen(w.hear); err != nil {
		return err
	}
	s.giveUp(&o.live, stderr)
	out, isFile := stdout.(*os.File)
	if !o.plain && isFile && term.IsTerminal(out.Fd()) && !dumbTerminal() {
		err = w.screen(ctx, o, out)
	} else {
		err = w.pipe(ctx, o, stdout, stderr)
	}
	if err != nil || w.last == nil {
		return err
	}
	if err := tui.Summary(stderr, w.last); err != nil {
		return fmt.Errorf("write summary: %w", err)
	}
	if (report.Document{Findings: w.last.Findings}).ExitCode() != ExitClean {
		return errFindings
	}
	return nil
}

// dumbTerminal says whether the terminal cannot move its cursor.
func dumbTerminal() bool {
	name := os.Getenv("TERM")
	return name == "" || name == "dumb"
}

// pipe writes lines.
func (w *watcher) pipe(ctx context.Context, o *watchOptions, stdout, stderr io.Writer) error {
	p := tui.NewPlain(stdout)
	return w.each(ctx, o, func(first bool, f *tui.Frame) error {
		if first {
			fmt.Fprintln(stderr, w.session.announce(o.duration))
		}
		if err := p.Write(f); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		return nil
	})
}

// screen runs the terminal until it is quit, the context ends or the time is up.
func (w *watcher) screen(ctx context.Context, o *watchOptions, out *os.File) error {
	model := tui.New(tui.Options{Interval: o.interval, ASCII: !utf8Locale(), Reset: func() { w.reset.Store(true) }})
	options := []tea.ProgramOption{tea.WithOutput(out), tea.WithoutSignalHandler()}
	if os.Getenv("NO_COLOR") != "" { // any value but the empty one: no-color.org
		options = append(options, tea.WithColorProfile(colorprofile.ASCII))
	}
	program := tea.NewProgram(model, options...)

	run, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() {
		err := w.each(run, o, func(_ bool, f *tui.Frame) error { program.Send(*f); return nil })
		// The time is up, or nothing can be observed any more. Quitting twice does no harm.
		program.Quit()
		done <- err
	}()
	_, err := program.Run()
	stop()
	if err != nil {
		err = fmt.Errorf("run the screen: %w", err)
	}
	return errors.Join(err, <-done)
}

// each makes frames of the session's reports.
func (w *watcher) each(ctx context.Context, o *watchOptions, fn func(first bool, f *tui.Frame) error) error {
	return w.session.steps(ctx, o.duration, o.interval, func() error {
		reset := w.reset.Swap(false)
		if reset {
			w.session.restart()
			// Reading anew needs a context that lives: the last step comes after the given one's end.
			again, cancel := lastWord(ctx)
			defer cancel()
			if err := w.session.observe(again); err != nil {
				return err
			}
		}
		first := w.last == nil
		f, err := w.frame(reset)
		if err != nil {
			return err
		}
		w.last = f
		if err := fn(first, f); err != nil || !first {
			return err
		}
		return o.live.ready()
	})
}

func (w *watcher) frame(reset bool) (*tui.Frame, error) {
	cpu, err := w.cpu.percent(time.Now())
	if err != nil {
		return nil, err
	}
	var doc report.Document
	if w.session.rolling != nil {
		doc = report.New(w.session.rolling.Report())
	} else {
		doc = report.New(w.session.ledger.Report())
	}
	if w.renewed = w.renewed || reset; reset || w.last == nil {
		w.began = doc.Source.Start
	}
	// Rates go by when the snapshot was taken, not by when it is shown.
	at := doc.Source.Start.Add(time.Duration(doc.Source.DurationS * float64(time.Second)))
	f := &tui.Frame{At: at, Report: doc.Report, Findings: doc.Findings, Reset: reset, CPU: cpu}
	switch {
	case !doc.Source.Start.Equal(w.began):
		f.Scope = "the last " + tui.Lasting(at.Sub(doc.Source.Start))
	case w.renewed:
		f.Scope = "the time since the reset"
	default:
		f.Scope = "the whole run"
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	f.Events, f.Skipped = w.events, w.skipped
	w.events, w.skipped = nil, 0
	return f, nil
}

// hear keeps an event for the next frame.
func (w *watcher) hear(e reader.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.IKE != nil || e.SPI == 0 {
		return // about no SA
	}
	if len(w.events) == eventsBetween {
		w.skipped++
		return
	}
	w.events = append(w.events, tui.Event{At: e.Time, Kind: e.Kind, Text: eventText(e),
		Key: tui.EventKey{SPI: e.SPI, Dst: e.Dst, Direction: e.Direction}})
}

// eventText is the line of trace without what the screen shows already: time, kind, direction and SPI.
func eventText(e reader.Event) string {
	if _, rest, ok := strings.Cut(e.Line(e.Time.Local().Format("15:04:05.000000")), " spi="); ok {
		if _, rest, ok = strings.Cut(rest, " "); ok {
			return rest
		}
	}
	return e.Line(e.Time.Local().Format("15:04:05.000000"))
}

// cpuMeter measures what this process uses from one frame to the next.
type cpuMeter struct {
	at   time.Time
	used time.Duration
}

func (c *cpuMeter) percent(now time.Time) (float64, error) {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	used := time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	var percent float64
	if took := now.Sub(c.at); !c.at.IsZero() && took > 0 {
		percent = 100 * float64(used-c.used) / float64(took)
	}
	c.at, c.used = now, used
	return percent, nil
}

// utf8Locale says whether the terminal was said to know UTF-8.
func utf8Locale() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := os.Getenv(name); v != "" {
			v = strings.ToLower(v)
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}
