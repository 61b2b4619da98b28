// SPDX-License-Identifier: Apache-2.0

package export

import (
	"fmt"
	"io"
	"strings"
)

// WriteDocs writes docs/metrics.md.
func WriteDocs(w io.Writer) error {
	var b strings.Builder
	b.WriteString(`# Metrics

<!-- Generated from the help texts by go test ./internal/export -run TestDocs -update. Do not edit. -->

What ` + "`xfrmscope serve`" + ` exports; [serve.md](serve.md) says how. Bins of the ledger have the names of the
[report's JSON](output.md), and [ledger.md](ledger.md) says how they add up.

A series that is missing says "not observed", 0 says "observed, and none". Counters count from the start of
xfrmscope and never go back but for a new start.

| label | is |
|---|---|
| ` + "`local`, `peer`" + ` | outer addresses of the tunnel: this gateway's, and the other one's |
| ` + "`reqid`" + ` | the number that SAs and policies of one tunnel share; each end has its own |
| ` + "`direction`" + ` | ` + "`in`" + ` for what arrives here, ` + "`out`" + ` for what leaves |

The SPI is a label of ` + "`xfrmscope_sa_info`" + ` alone, because it changes with each rekey. Tunnels beyond
` + "`--max-tunnels`" + ` for each direction, and places of drops beyond ` + fmt.Sprint(DefaultMaxDrops) + `, share series with the label ` + "`other`" + `.
`)
	for _, s := range sections() {
		fmt.Fprintf(&b, "\n## %s\n\n", s.title)
		if s.intro != "" {
			fmt.Fprintf(&b, "%s\n\n", s.intro)
		}
		b.WriteString("| metric | labels | what it says |\n|---|---|---|\n")
		for _, m := range s.metrics {
			labels := "tunnel"
			switch rest, ok := cutLabels(m.Labels); {
			case !ok:
				labels = strings.Join(m.Labels, ", ")
			case len(rest) > 0:
				labels += ", " + strings.Join(rest, ", ")
			}
			fmt.Fprintf(&b, "| `%s` (%s) | %s | %s |\n", m.Name, m.Kind, labels, m.Help)
		}
	}
	b.WriteString("\n\"tunnel\" stands for `local`, `peer`, `reqid` and `direction`.\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// cutLabels takes the labels of a tunnel away; ok is false where a metric does not have all of them.
func cutLabels(labels []string) (rest []string, ok bool) {
	if len(labels) < len(tunnelLabels) {
		return labels, false
	}
	for i, l := range tunnelLabels {
		if labels[i] != l {
			return labels, false
		}
	}
	return labels[len(tunnelLabels):], true
}
