// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"xfrmscope/internal/ike"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/privilege"
	"xfrmscope/internal/probe"
	"xfrmscope/internal/reader"
	"xfrmscope/internal/replay"
	"xfrmscope/internal/report"
)

func newRead() *cobra.Command {
	var o struct {
		nattPorts []uint
		saTable   uint32
		json      bool
		quiet     bool
	}
	cmd := &cobra.Command{
		Use:   "read FILE...",
		Short: "The same account of capture files, through the same compiled program",
		Long: `Reads pcap and pcapng files (also gzip'ed; Ethernet, raw IP, Linux cooked and null/loopback link
types) as one stream, in the order given, and accounts every ESP packet exactly as on a live interface:
the packets are fed to the very XDP program, in the kernel, which needs root or CAP_BPF,
CAP_PERFMON and CAP_NET_ADMIN. Of a damaged file, all that stands before the damage is reported.

A capture shows one point of the path: what the kernel behind it did with the packets is not in it.

Exit status: 0 nothing found, 1 findings, 2 wrong usage, 3 a file cannot be read or is damaged.`,
		Example: `  xfrmscope read gateway.pcapng
  xfrmscope read --json part1.pcap.gz part2.pcap.gz | jq '.sas[] | {spi, wire}'`,
		Args: takes(1, -1, "the name of a capture file, or of several"),
		RunE: work(func(cmd *cobra.Command, args []string) error {
			ports, err := furtherPorts(o.nattPorts)
			if err != nil {
				return err
			}
			opts := replay.Options{SATableSize: o.saTable, NATTPorts: ports}
			if !o.quiet && isTerminal(cmd.ErrOrStderr()) {
				opts.Progress = progressLine(cmd.ErrOrStderr())
			}
			opts.Loaded = onlyFiles(cmd.ErrOrStderr(), privilege.ToRead(args...))
			return read(cmd.Context(), args, opts, o.json, cmd.OutOrStdout())
		}),
	}
	addNATTPorts(cmd.Flags(), &o.nattPorts)
	cmd.Flags().Uint32Var(&o.saTable, "sa-table", probe.DefaultSATableSize, "`SAs` to keep account of")
	cmd.Flags().BoolVar(&o.json, "json", false, "report as JSON (schema xfrmscope/1)")
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "no progress on long files")
	return cmd
}

// read reports what the files hold. An error comes after the report of what could be read.
func read(ctx context.Context, files []string, opts replay.Options, asJSON bool, out io.Writer) error {
	doc, some, readErr := account(ctx, files, opts)
	if !some {
		return readErr
	}
	err := conclude(doc, asJSON, out)
	if readErr != nil {
		// The exit code says that the account is not whole, whatever was found.
		if errors.Is(err, errFindings) {
			err = nil
		}
		return errors.Join(readErr, err)
	}
	return err
}

// account gives the report of capture files. some says whether there is any: an error may come with the
// report of what could be read.
func account(ctx context.Context, files []string, opts replay.Options) (doc report.Document, some bool, err error) {
	tracker := ike.NewTracker()
	opts.IKE = func(e reader.Event) error {
		if m, ok := ikeMessage(e); ok {
			tracker.Observe(m)
		}
		return nil
	}
	res, readErr := replay.Run(ctx, files, opts)
	if res == nil || res.Packets == 0 && readErr != nil {
		return doc, false, readErr
	}
	l := ledger.New(ledger.Source{Kind: ledger.KindCapture, Name: strings.Join(files, " "), Kernel: kernelRelease()})
	l.SetHooks([]ledger.Hook{{Name: "captured packets", Attached: true, Why: fmt.Sprintf("%d packets", res.Packets)}})
	l.Observe(res.Begin)
	res.End.IKE = tracker.Report(res.End.At)
	l.Observe(res.End)
	return report.New(l.Report()), true, readErr
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// progressLine rewrites one line of a terminal.
func progressLine(w io.Writer) func(replay.Progress) {
	return func(p replay.Progress) {
		share := ""
		if p.Size > 0 {
			share = fmt.Sprintf(" %3d %%", p.Bytes*100/p.Size)
		}
		fmt.Fprintf(w, "\r\x1b[K%s%s, %d packets", p.File, share, p.Packets)
		if p.Bytes >= p.Size {
			fmt.Fprint(w, "\r\x1b[K")
		}
	}
}
