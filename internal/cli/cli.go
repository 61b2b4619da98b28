// SPDX-License-Identifier: Apache-2.0

// Package cli is xfrmscope's command line: a file per command, each of them thin.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// The exit codes of every command.
const (
	ExitClean    = 0 // nothing found
	ExitFindings = 1 // findings of severity warning or critical
	ExitUsage    = 2 // the command line is wrong
	ExitObserve  = 3 // cannot observe: privileges, kernel, interface, file
)

// runError marks an error that came from doing the work, not from reading the command line.
type runError struct{ err error }

func (e *runError) Error() string { return e.err.Error() }
func (e *runError) Unwrap() error { return e.err }

// usageError marks an argument that no flag parser can judge.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// statusError ends a command that did its work and has an exit status of its own to give, with nothing
// printed.
type statusError struct{ status int }

func (e *statusError) Error() string { return fmt.Sprintf("exit status %d", e.status) }

// errFindings ends a command that did its work and found something: exit 1, nothing printed.
var errFindings = errors.New("findings")

// Main runs one command and returns its exit code. The first SIGINT, SIGTERM or SIGHUP ends the observation
// and still reports; a second SIGINT or SIGTERM ends the program. A terminal may hang up twice: the shell passes on
// what the kernel has told the command as well.
func Main(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	// Started by nohup, a command outlives its terminal.
	if !signal.Ignored(syscall.SIGHUP) {
		var hungUp func()
		ctx, hungUp = signal.NotifyContext(ctx, syscall.SIGHUP)
		defer hungUp()
	}

	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	return exitCode(cmd, err, stderr)
}

// exitCode prints a command's error, if it has anything to say, and turns it into an exit code.
func exitCode(cmd *cobra.Command, err error, stderr io.Writer) int {
	var run *runError
	var usage *usageError
	var status *statusError
	switch {
	case err == nil:
		return ExitClean
	case errors.As(err, &status):
		return status.status
	case errors.Is(err, errFindings):
		return ExitFindings
	case errors.As(err, &usage), !errors.As(err, &run):
		what := "for the commands"
		if cmd.HasParent() {
			what = "for examples and all flags"
		}
		fmt.Fprintf(stderr, "xfrmscope: %v\nRun '%s --help' %s.\n", err, cmd.CommandPath(), what)
		return ExitUsage
	default:
		fmt.Fprintf(stderr, "xfrmscope: %v\n", err)
		return ExitObserve
	}
}

// Root is the command line as a tree, for what is generated from it.
func Root() *cobra.Command { return newRoot() }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "xfrmscope",
		Short: "Where the packets of an IPsec tunnel go",
		Long: `xfrmscope tells the operator of a Linux IPsec gateway where the packets go: per security
association, with evidence and the fix.

Start with 'xfrmscope diagnose' on the gateway, or 'xfrmscope read FILE' on a capture.

Exit status: 0 nothing found, 1 findings, 2 wrong usage, 3 cannot observe.`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate(versionLine())
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(
		newDiagnose(),
		newWatch(),
		newRead(),
		newTrace(),
		newServe(),
		newDrops(),
		newRecord(),
		newReport(),
		newCheck(),
		newCapture(),
		newDoctor(),
		newProbe(),
		newCompare(),
	)
	return root
}

// takes says how many arguments a command wants, and what they are; most < 0: any number.
func takes(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || most >= 0 && len(args) > most {
			return &usageError{fmt.Errorf("%s: %d given, want %s", strings.TrimPrefix(cmd.CommandPath(), "xfrmscope "), len(args), what)}
		}
		return nil
	}
}

// work wraps a command's function so that its errors are told from those of the flag parser.
func work(f func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := f(cmd, args)
		if err == nil || errors.Is(err, errFindings) {
			return err
		}
		return &runError{err}
	}
}
