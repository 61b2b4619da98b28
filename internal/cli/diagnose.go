// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"xfrmscope/internal/report"
)

func newDiagnose() *cobra.Command {
	var o struct {
		live     liveOptions
		duration time.Duration
		json     bool
	}
	cmd := &cobra.Command{
		Use:   "diagnose",
		Short: "What is wrong with my tunnels, on what evidence, and what do I type?",
		Long: `Watches this gateway's tunnels for a while and reports what is wrong, how sure that is, on what
evidence, and the commands that fix it; then the loss ledger of each SA: every packet the peer sent
is in exactly one place, and what cannot be explained is shown as unattributed.

Ctrl-C ends early and still reports. Nothing is changed on the gateway, no packet is touched, no key
is read.

Exit status: 0 nothing found, 1 findings that ask for action, 2 wrong usage, 3 cannot observe.`,
		Example: `  xfrmscope diagnose
  xfrmscope diagnose --for 5m --interface eth0
  xfrmscope diagnose --netns gw --json | jq '.findings[].id'`,
		Args: cobra.NoArgs,
		RunE: work(func(cmd *cobra.Command, _ []string) error {
			if err := checkDuration(o.duration); err != nil {
				return err
			}
			doc, err := diagnose(cmd.Context(), &o.live, o.duration, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return conclude(doc, o.json, cmd.OutOrStdout())
		}),
	}
	o.live.addFlags(cmd.Flags())
	addDuration(cmd, &o.duration, 30*time.Second)
	cmd.Flags().BoolVar(&o.json, "json", false, "report as JSON (schema xfrmscope/1)")
	return cmd
}

// diagnose observes for d, or until the context ends, and returns what it found.
func diagnose(ctx context.Context, o *liveOptions, d time.Duration, progress io.Writer) (doc report.Document, err error) {
	s, err := openSession(ctx, o)
	if err != nil {
		return doc, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.listen(nil); err != nil {
		return doc, err
	}
	s.giveUp(o, progress)
	if err := s.observe(ctx); err != nil {
		return doc, err
	}
	fmt.Fprintln(progress, s.announce(d))
	if err := o.ready(); err != nil {
		return doc, err
	}
	if err := s.watch(ctx, d); err != nil {
		return doc, err
	}
	// The context may have ended the watching; the report is still owed.
	last, cancel := lastWord(ctx)
	defer cancel()
	if err := s.observe(last); err != nil {
		return doc, err
	}
	return report.New(s.ledger.Report()), nil
}

// conclude prints a document and turns its findings into the exit code.
func conclude(doc report.Document, asJSON bool, out io.Writer) error {
	var err error
	if asJSON {
		err = doc.WriteJSON(out)
	} else {
		err = doc.WriteText(out)
	}
	switch {
	case err != nil:
		return fmt.Errorf("write report: %w", err)
	case doc.ExitCode() != ExitClean:
		return errFindings
	}
	return nil
}
