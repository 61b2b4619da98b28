// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"xfrmscope/internal/host"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/verdict"
)

// review judges what is configured: the ledger of a single look, with nothing attached. It is nil where
// the SAs cannot be read.
func review(ctx context.Context, sadb *saDatabase, machine *host.Source, settings ledger.Host) ([]verdict.Finding, error) {
	if sadb.missing != nil {
		return nil, nil
	}
	snap := ledger.Snapshot{At: time.Now(), SAD: append([]ledger.SADEntry{}, sadb.sas...), Host: &settings}
	if err := sadb.policies(ctx, &snap); err != nil {
		return nil, err
	}
	snap.PMTU = &ledger.PMTUInput{Routes: machine.Routes(snap.SAD, settings.Links)}
	l := ledger.New(ledger.Source{Kind: ledger.KindLive})
	l.Observe(snap)
	return verdict.Review(l.Report()), nil
}

// writeReview lists the flaws; how to mend them is in the report of diagnose, and in JSON.
func (d *diagnosis) writeReview(b *strings.Builder) {
	if d.Review == nil {
		return
	}
	b.WriteString("\nCONFIGURATION\n")
	if len(d.Review) == 0 {
		b.WriteString("  ok        nothing to say about SAs, policies and settings\n")
	}
	for _, f := range d.Review {
		fmt.Fprintf(b, "  %-8s  %s: %s\n", f.Severity, f.ID, f.Summary)
		for _, r := range f.Remedy {
			if len(r.Commands) > 0 {
				writeDetail(b, r.For, r.Commands[0])
				break
			}
		}
	}
}
