// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"xfrmscope/internal/check"
	"xfrmscope/internal/kernel"
	"xfrmscope/internal/privilege"
	"xfrmscope/internal/record"
	"xfrmscope/internal/replay"
	"xfrmscope/internal/report"
)

// checkOptions are the flags of check.
type checkOptions struct {
	live     liveOptions
	expect   []string
	file     string
	duration time.Duration
	settle   time.Duration
	from     []string
	report   string
	junit    string
	tap      string
	json     bool
	github   bool
	command  []string
}

func newCheck() *cobra.Command {
	var o checkOptions
	cmd := &cobra.Command{
		Use:   "check [flags] [-- COMMAND ARGS...]",
		Short: "Hold what happens while a command runs against what you expect: for CI",
		Long: `Attaches, runs COMMAND with its own input and output, waits until packets under way have
settled, and holds the report against each expectation. Without COMMAND it observes for --duration;
with --from it judges a recording or a capture instead of a live kernel.

An expectation is an expression over the report, whose names are the keys of its JSON, and short
forms: loss (packets lost, all SAs), lost_on_path, replay_late, unattributed, findings.none,
findings.has("path-loss"), drops["xfrm_input"] (packets dropped by that kernel function),
xfrm_stat["XfrmInNoStates"], duration (seconds). One that names sa is judged for every SA. Counts are
packets. docs/check.md lists all names. What was not observed fails an expectation.

Without --expect and --expect-file: findings.none and, except of a capture, unattributed == 0.

Exit status: that of COMMAND where it is not 0 (128+n: ended by signal n; 126, 127: it could not be
started); else 0 if all expectations hold, 1 if one does not, 2 for wrong usage, 3 if nothing could be
observed (COMMAND is then not run).`,
		Example: `  xfrmscope check -- ./run-tunnel-test.sh
  xfrmscope check --expect 'loss == 0' --expect 'sa.replay_late < 10' --junit junit.xml -- make test-ipsec
  xfrmscope check --netns gw --duration 30s --expect 'findings.none' --expect 'duration >= 30'
  xfrmscope check --expect-file ipsec.expect --tap - -- ./traffic
  xfrmscope check --from night.xsr --expect 'sa.lost_on_path < 100' --json
  xfrmscope check --from gateway.pcapng --expect 'lost_on_path == 0'`,
		Args: cobra.ArbitraryArgs,
		RunE: work(func(cmd *cobra.Command, args []string) error {
			expected, err := o.read(cmd, args)
			if err != nil {
				return err
			}
			return runCheck(cmd.Context(), &o, expected, cmd.OutOrStdout(), cmd.ErrOrStderr())
		}),
	}
	f := cmd.Flags()
	o.live.addFlags(f)
	f.StringArrayVarP(&o.expect, "expect", "e", nil, "`expression` that must hold, repeatable")
	f.StringVar(&o.file, "expect-file", "", "`file` of expressions, one a line; # begins a comment")
	f.DurationVar(&o.duration, "duration", 30*time.Second, "how long to observe without COMMAND, e.g. 30s, 10m; 0: until Ctrl-C")
	f.DurationVar(&o.settle, "settle", 1500*time.Millisecond, "how long to go on after COMMAND, so that what is missing by then is lost")
	f.StringSliceVar(&o.from, "from", nil, "judge this `file` instead of a live kernel: a recording, or a capture, repeatable")
	f.StringVar(&o.report, "report", "", "write the report with the outcome to this `file`, as JSON (schema xfrmscope/1)")
	f.StringVar(&o.junit, "junit", "", "write the outcome to this `file`, as JUnit XML")
	f.StringVar(&o.tap, "tap", "", "write the outcome to this `file`, as TAP 14; -: to standard output instead of text")
	f.BoolVar(&o.json, "json", false, "print the report with the outcome as JSON (schema xfrmscope/1) instead of text")
	f.BoolVar(&o.github, "github", false, "add GitHub Actions annotations (default: where GITHUB_ACTIONS is true)")
	return cmd
}

// read checks what no flag parser can and compiles the expectations; nil: the defaults.
func (o *checkOptions) read(cmd *cobra.Command, args []string) ([]*check.Expectation, error) {
	changed := cmd.Flags().Changed
	usage := func(format string, a ...any) error { return &usageError{fmt.Errorf(format, a...)} }
	switch at := cmd.ArgsLenAtDash(); {
	case len(args) > 0 && at != 0:
		return nil, usage("%q: the command comes after --, as in xfrmscope check -- %s", args[0], strings.Join(args, " "))
	case len(args) > 0 && changed("duration"):
		return nil, usage("--duration is for observing without a command; this one runs for as long as it takes")
	case len(args) > 0 && len(o.from) > 0:
		return nil, usage("--from judges a file: there is nothing to run a command for")
	case at == 0 && len(args) == 0:
		return nil, usage("there is no command after --")
	case o.duration < 0 || o.settle < 0:
		return nil, usage("--duration %s, --settle %s: a duration is not negative", o.duration, o.settle)
	case o.json && o.tap == "-":
		return nil, usage("--json and --tap - both want standard output")
	case o.report == "-":
		return nil, usage("--report -: to standard output the report goes with --json")
	case o.junit == "-":
		return nil, usage("--junit -: want the name of a file")
	}
	if len(args) > 0 {
		o.command = args
	}
	if !changed("github") {
		o.github = os.Getenv("GITHUB_ACTIONS") == "true"
	}
	var expected []*check.Expectation
	add := func(source, where string) error {
		e, err := check.Compile(source, where)
		if err != nil {
			return &usageError{err}
		}
		expected = append(expected, e)
		return nil
	}
	for _, source := range o.expect {
		if err := add(source, "--expect"); err != nil {
			return nil, err
		}
	}
	if o.file != "" {
		b, err := os.ReadFile(o.file)
		if err != nil {
			return nil, usage("read expectations: %w", err)
		}
		for i, line := range strings.Split(string(b), "\n") {
			if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			if err := add(line, fmt.Sprintf("%s:%d", o.file, i+1)); err != nil {
				return nil, err
			}
		}
	}
	if expected == nil && o.file != "" {
		return nil, usage("%s holds no expression", o.file)
	}
	return expected, nil
}

// runCheck observes, judges and tells.
func runCheck(ctx context.Context, o *checkOptions, expected []*check.Expectation, out, errOut io.Writer) error {
	if err := o.tryFiles(); err != nil {
		return err
	}
	begin := time.Now()
	doc, command, err := o.observe(ctx, errOut)
	if err != nil {
		return o.failed(command, err, errOut)
	}
	if expected == nil {
		expected = check.Defaults(doc)
	}
	facts := check.Facts{Report: doc}
	if len(o.from) == 0 {
		facts.Function = kernelFunctions()
	}
	results, err := check.Judge(facts, expected)
	if err != nil {
		return o.failed(command, err, errOut)
	}
	suite := check.Suite{Outcome: check.Conclude(command, results), Host: hostname(), Start: begin, Took: time.Since(begin)}
	if err := o.tell(suite, doc, out, errOut); err != nil {
		return o.failed(command, err, errOut)
	}
	if suite.ExitStatus != ExitClean {
		return &statusError{suite.ExitStatus}
	}
	return nil
}

// failed ends a check that could not be brought to its end. The status of a command that failed itself
// is kept. Files that nothing was written to are taken away: an empty one is no outcome.
func (o *checkOptions) failed(command *check.Command, err error, errOut io.Writer) error {
	for _, path := range []string{o.report, o.junit, o.tap} {
		if info, statErr := os.Stat(path); path != "" && path != "-" && statErr == nil && info.Mode().IsRegular() && info.Size() == 0 {
			err = errors.Join(err, os.Remove(path))
		}
	}
	if command == nil || command.ExitStatus == 0 {
		return err
	}
	fmt.Fprintf(errOut, "xfrmscope: %v\n", err)
	return &statusError{command.ExitStatus}
}

// kernelFunctions tells whether the kernel has a function, by a symbol table that is read when the first is
// asked for: a module may have come while the command ran.
func kernelFunctions() func(string) error {
	var symbols *kernel.Symbols
	var err error
	return func(name string) error {
		if symbols == nil && err == nil {
			symbols, err = kernel.LoadSymbols()
		}
		switch {
		case err != nil:
			return err
		case len(symbols.Function(name)) == 0:
			return fmt.Errorf("this kernel has no function %s", name)
		}
		return nil
	}
}

// observe gives the report to be judged, and how the command ended where one was run.
func (o *checkOptions) observe(ctx context.Context, progress io.Writer) (doc report.Document, command *check.Command, err error) {
	if len(o.from) > 0 {
		doc, err = o.offline(ctx, progress)
		return doc, nil, err
	}
	s, err := openSession(ctx, &o.live)
	if err != nil {
		return doc, nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.listen(nil); err != nil {
		return doc, nil, err
	}
	if err := s.observe(ctx); err != nil {
		return doc, nil, err
	}
	if o.command == nil {
		s.giveUp(&o.live, progress, o.files()...)
		fmt.Fprintln(progress, s.announce(o.duration))
	}
	if err := o.live.ready(); err != nil {
		return doc, nil, err
	}
	if o.command == nil {
		err = s.watch(ctx, o.duration)
	} else {
		command, err = o.run(ctx, s, progress)
	}
	if err != nil {
		return doc, command, err
	}
	last, cancel := lastWord(ctx)
	defer cancel()
	if err := s.observe(last); err != nil {
		return doc, command, err
	}
	return report.New(s.ledger.Report()), command, nil
}

// run runs the command under observation, which goes on until what was missing at its end has settled.
// From here on a signal ends the command, and the observation only with it.
func (o *checkOptions) run(ctx context.Context, s *session, progress io.Writer) (*check.Command, error) {
	if ctx.Err() != nil {
		return nil, errors.New("interrupted before the command was started")
	}
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.watch(watching, 0) }()
	// Not before: the command is to have all that the user has.
	command, err := check.Run(o.command, func() { s.giveUp(&o.live, progress, o.files()...) })
	if err == nil {
		select {
		case <-time.After(o.settle):
		case watchErr := <-ended: // it does not end by itself unless it failed
			return command, errors.Join(errors.New("observation ended before the command"), watchErr)
		}
	}
	stop()
	return command, errors.Join(err, <-ended)
}

// offline gives the report of a recording, or of captures.
func (o *checkOptions) offline(ctx context.Context, progress io.Writer) (doc report.Document, err error) {
	probe, err := o.live.probeOptions()
	if err != nil {
		return doc, err
	}
	needs := append(o.files(), privilege.ToRead(o.from...))
	beforeFiles(progress, needs...)
	if len(o.from) == 1 {
		run, err := record.Replay(o.from[0], record.ReplayOptions{})
		var damage *record.DamageError
		switch {
		case errors.Is(err, record.ErrNotRecording):
		case err != nil:
			return doc, err
		case errors.As(run.Damage, &damage) && !damage.Cut:
			return doc, fmt.Errorf("%s: %w", o.from[0], run.Damage)
		default:
			if run.Damage != nil {
				fmt.Fprintf(progress, "xfrmscope: %s: %v\n", o.from[0], run.Damage)
			}
			run.Report.Notes = append(run.Report.Notes, run.Notes()...)
			return report.New(run.Report), nil
		}
	}
	doc, _, err = account(ctx, o.from, replay.Options{SATableSize: probe.SATableSize, NATTPorts: probe.NATTPorts[1:], // the first is always there
		Loaded: onlyFiles(progress, needs...)})
	return doc, err
}

// files are those that the outcome is written to.
func (o *checkOptions) files() []privilege.Need {
	return []privilege.Need{privilege.ToWrite(o.report, o.junit, o.tap)}
}

// tryFiles finds out before the command runs whether the outcome can be written.
func (o *checkOptions) tryFiles() error {
	for _, path := range []string{o.report, o.junit, o.tap} {
		if path == "" || path == "-" {
			continue
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
		if err != nil {
			return fmt.Errorf("write outcome: %w", err)
		}
		if err := f.Close(); err != nil {
			return fmt.Errorf("write outcome: %w", err)
		}
	}
	return nil
}

// tell writes the outcome in every form that was asked for. What a person reads goes to standard output,
// or to standard error where a command has standard output to itself.
func (o *checkOptions) tell(s check.Suite, doc report.Document, out, errOut io.Writer) error {
	whole := check.Document{Document: doc, Check: s.Outcome}
	junit := func(w io.Writer) error { return s.WriteJUnit(w, check.Properties(whole, version)) }
	var errs []error
	for _, f := range []struct {
		path  string
		write func(io.Writer) error
	}{{o.report, whole.WriteJSON}, {o.junit, junit}, {o.tap, s.WriteTAP}} {
		if f.path != "" && f.path != "-" {
			errs = append(errs, writeFile(f.path, f.write))
		}
	}
	text := out
	if o.command != nil {
		text = errOut
	}
	switch {
	case o.json:
		errs = append(errs, whole.WriteJSON(out))
	case o.tap == "-":
		errs = append(errs, s.WriteTAP(out))
	default:
		errs = append(errs, s.WriteText(text))
	}
	if o.github {
		errs = append(errs, s.WriteGitHub(errOut))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("write outcome: %w", err)
	}
	return nil
}

func writeFile(path string, write func(io.Writer) error) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return write(f)
}
