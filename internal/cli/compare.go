// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"xfrmscope/internal/compare"
	"xfrmscope/internal/compare/load"
	"xfrmscope/internal/privilege"
	"xfrmscope/internal/probe"
	"xfrmscope/internal/report"
)

// marksEvery is the power of two of which recordings mark the multiples: one packet in 16, and at most 64 a
// second and CPU.
const marksEvery = 16

func newCompare() *cobra.Command {
	var o struct {
		nattPorts []uint
		saTable   uint32
		json      bool
		quiet     bool
	}
	cmd := &cobra.Command{
		Use:   "compare A B",
		Short: "Where between two gateways packets are lost, from what was kept at both ends",
		Long: `Joins two files, one from each end of a tunnel, and says for each security association and direction
where its packets were lost: in the sender's host (before a sequence number was given, or between that and
the wire), on the path between, or in the receiver's host (before xfrm, by xfrm, after decryption).

Each file is a recording of 'xfrmscope record' or a capture (pcap, pcapng; reading one needs root or
CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN). A capture shows a wire only: what its host did is then not known. Only the
sequence numbers that both ends account for are compared, so the files need not begin and end together,
and their clocks need not agree: the offset is estimated from packets that both ends saw.

Exit status: 0 nothing lost and no finding, 1 packets were lost or an end has findings, 2 wrong usage,
3 the files cannot be read or joined.`,
		Example: `  xfrmscope compare gw-a.xsr gw-b.xsr
  xfrmscope compare gw-a.xsr peer.pcapng
  xfrmscope compare --json gw-a.xsr gw-b.xsr | jq '.directions[] | {from, to, lost}'
  xfrmscope compare --natt-port 10000 gw-a.pcap gw-b.pcap`,
		Args: takes(2, 2, "two files, one from each end"),
		RunE: work(func(cmd *cobra.Command, args []string) error {
			ports, err := furtherPorts(o.nattPorts)
			if err != nil {
				return err
			}
			opts := load.Options{NATTPorts: ports, SATableSize: o.saTable, IKE: ikeMessage}
			if !o.quiet && isTerminal(cmd.ErrOrStderr()) {
				opts.Progress = progressLine(cmd.ErrOrStderr())
			}
			beforeFiles(cmd.ErrOrStderr(), privilege.ToRead(args...))
			return compareFiles(cmd.Context(), args[0], args[1], opts, o.json, cmd.OutOrStdout())
		}),
	}
	addNATTPorts(cmd.Flags(), &o.nattPorts)
	cmd.Flags().Uint32Var(&o.saTable, "sa-table", probe.DefaultSATableSize, "`SAs` to keep account of in a capture")
	cmd.Flags().BoolVar(&o.json, "json", false, "write JSON (schema "+compare.Schema+")")
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "no progress on long captures")
	return cmd
}

func compareFiles(ctx context.Context, fileA, fileB string, opts load.Options, asJSON bool, out io.Writer) error {
	a, b, err := load.Both(ctx, fileA, fileB, opts)
	if err != nil {
		return err
	}
	doc, err := compare.New(a, b)
	if err != nil {
		return fmt.Errorf("compare %s and %s: %w", fileA, fileB, err)
	}
	write := report.WriteComparison
	if asJSON {
		write = report.WriteComparisonJSON
	}
	if err := write(out, doc); err != nil {
		return fmt.Errorf("write comparison: %w", err)
	}
	if doc.ExitCode() != ExitClean {
		return errFindings
	}
	return nil
}
