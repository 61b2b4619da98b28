// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/privilege"
	"xfrmscope/internal/record"
	"xfrmscope/internal/report"
)

// reportOptions are what `report` can be told.
type reportOptions struct {
	format   string
	json     bool
	out      string
	from, to moment
}

var reportFormats = []string{"text", "json", "markdown", "html"}

func newReport() *cobra.Command {
	var o reportOptions
	cmd := &cobra.Command{
		Use:   "report FILE",
		Short: "A report of a recording: text, JSON, Markdown or a page of HTML with plots",
		Long: `Says of a recording what 'xfrmscope diagnose' would have said at its end: the findings, the ledger and what
vouches for it. Needs no privilege, and not the machine where the recording was made.

  text      as diagnose
  json      as diagnose --json (schema xfrmscope/1), with source.kind "recording"
  markdown  with tables, for tickets
  html      one file that refers to no other, with plots: loss over time, reordering, rekeys, MTUs

--from and --to take a part of the time: a duration counts from the recording's beginning. Of a recording
that was cut off or damaged, everything before the damage is reported; the report says so.

Exit status: 0 nothing found, 1 findings, 2 wrong usage, 3 the file cannot be read or is damaged.`,
		Example: `  xfrmscope report night.xsr
  xfrmscope report night.xsr --format html -o night.html
  xfrmscope report night.xsr --from 10m --to 12m30s
  xfrmscope report night.xsr --from 2026-11-20T03:10:00Z --json | jq '.findings[].id'`,
		Args: takes(1, 1, "one recording"),
		RunE: work(func(cmd *cobra.Command, args []string) error {
			if o.json {
				if cmd.Flags().Changed("format") && o.format != "json" {
					return &usageError{errors.New("--json and --format " + o.format + ": choose one")}
				}
				o.format = "json"
			}
			if !slices.Contains(reportFormats, o.format) {
				return &usageError{fmt.Errorf("--format %q: want %s", o.format, strings.Join(reportFormats, ", "))}
			}
			return reportRecording(args[0], &o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		}),
	}
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "text", "`form` of the report: text, json, markdown or html")
	f.BoolVar(&o.json, "json", false, "the same as --format json (schema xfrmscope/1)")
	f.StringVarP(&o.out, "output", "o", "", "`file` for the report (default: standard output)")
	f.Var(&o.from, "from", "begin at this `time`: RFC 3339, or a duration from the recording's beginning such as 90s")
	f.Var(&o.to, "to", "end at this `time`, likewise")
	return cmd
}

// reportRecording replays a recording and writes what comes of it.
func reportRecording(path string, o *reportOptions, stdout, progress io.Writer) (err error) {
	// What a file holds is anybody's guess.
	drop(progress, privilege.ToRead(path), privilege.ToWrite(o.out))
	var span record.ReplayOptions
	if o.from.relative || o.to.relative {
		begin, err := record.Begin(path)
		if err != nil {
			return err
		}
		o.from.base, o.to.base = begin, begin
	}
	span.From, span.To = o.from.time(), o.to.time()
	if !span.From.IsZero() && !span.To.IsZero() && !span.From.Before(span.To) {
		return &usageError{fmt.Errorf("--from %s --to %s: the end is not after the beginning", &o.from, &o.to)}
	}
	if sameFile(path, o.out) {
		return &usageError{fmt.Errorf("--output %s: that is the recording", o.out)}
	}
	run, err := record.Replay(path, span)
	if err != nil {
		return err
	}
	run.Report.Notes = append(run.Report.Notes, run.Notes()...)
	doc := report.New(run.Report)
	if run.Damage != nil {
		fmt.Fprintf(progress, "xfrmscope: %s: %v\n", path, run.Damage)
	}
	out := stdout
	if o.out != "" {
		f, err := os.Create(o.out)
		if err != nil {
			return fmt.Errorf("write report: %w", err)
		}
		defer func() { err = closing(f, err) }()
		out = f
	}
	if err := writeReport(doc, path, span, run.Snapshots, o.format, out); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	var damage *record.DamageError
	switch {
	case errors.As(run.Damage, &damage) && !damage.Cut:
		return fmt.Errorf("the report is of the %s before the damage", run.Stop.Sub(run.Start).Round(time.Millisecond))
	case doc.ExitCode() != ExitClean:
		return errFindings
	}
	return nil
}

// sameFile says whether both names are those of one file.
func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// writeReport writes one form. A page needs the run a second time: only its end tells which SAs are worth a
// plot.
func writeReport(doc report.Document, path string, span record.ReplayOptions, snapshots int, format string, out io.Writer) error {
	switch format {
	case "json":
		return doc.WriteJSON(out)
	case "markdown":
		return doc.WriteMarkdown(out)
	case "html":
		series, err := follow(path, span, snapshots, doc.Worth())
		if err != nil {
			return err
		}
		return doc.WriteHTML(out, series)
	default:
		return doc.WriteText(out)
	}
}

// plotPoints is how finely a page draws a run.
const plotPoints = 240

// follow replays a recording once more and notes how some SAs fared.
func follow(path string, span record.ReplayOptions, snapshots int, keys []ledger.SAKey) (*report.Series, error) {
	series := report.NewSeries(keys)
	every := max(1, (snapshots+plotPoints-1)/plotPoints)
	n := 0
	span.Snapshot = func(s ledger.Snapshot, l *ledger.Ledger) error {
		if n++; n == 1 || n == snapshots || n%every == 0 {
			series.Add(s.At, l.Select(func(k ledger.SAKey) bool { return slices.Contains(keys, k) }))
		}
		return nil
	}
	_, err := record.Replay(path, span)
	return series, err
}

// moment is a time on the command line: absolute, or since the beginning of a recording.
type moment struct {
	text     string
	at       time.Time
	after    time.Duration
	relative bool
	base     time.Time // what after counts from
}

func (m *moment) Type() string   { return "time" }
func (m *moment) String() string { return m.text }

// Set reads either form.
func (m *moment) Set(text string) error {
	m.text = text
	if d, err := time.ParseDuration(text); err == nil {
		if d < 0 {
			return errors.New("a duration from the recording's beginning is not negative")
		}
		m.after, m.relative = d, true
		return nil
	}
	var err error
	if m.at, err = time.Parse(time.RFC3339, text); err != nil {
		return errors.New("want a time such as 2026-11-20T03:10:00Z, or a duration such as 90s")
	}
	return nil
}

// time is the moment, zero where none was given.
func (m *moment) time() time.Time {
	if m.relative {
		return m.base.Add(m.after)
	}
	return m.at
}
