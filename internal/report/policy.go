// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// refusalsMax is how many flows are shown; JSON holds all of them.
const refusalsMax = 20

// refusals shows what policies refused, a line a flow; nothing where nothing was.
func (p *printer) refusals(all []ledger.RefusedFlow) {
	if len(all) == 0 {
		return
	}
	p.line("Refused by policy, by flow")
	for i := range all {
		if i == refusalsMax {
			p.line("  … and %d more: see --json", len(all)-i)
			break
		}
		f := &all[i]
		text := fmt.Sprintf("%s  %s, %s: %s", group(f.Packets), f.Cause, f.Dir, f)
		if f.SPI != nil {
			text += fmt.Sprintf(", decrypted by SA %s", *f.SPI)
		}
		if f.Policy != nil {
			text += fmt.Sprintf(", policy index %d", *f.Policy)
		}
		for _, d := range f.Differs {
			text += fmt.Sprintf("; %s %s wanted, %s found", d.Field, d.Wanted, d.Found)
		}
		p.wrap("  ", "      ", text)
	}
	p.line("")
}
