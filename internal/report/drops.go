// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"strings"

	"xfrmscope/internal/ledger"
)

// stageNames say in a reader's words where a packet was.
var stageNames = map[ledger.DropStage]string{
	ledger.BeforeXfrm: "received, still encrypted",
	ledger.AfterDecap: "decrypted",
	ledger.AtEgress:   "encapsulated, on its way out",
	ledger.IKEPacket:  "IKE",
	ledger.Keepalive:  "NAT keepalive",
}

const dropsMax = 20 // rows; JSON holds all

// drops lists what the kernel dropped outside xfrm's own counters, where and why.
func (p *printer) drops(d *Document) {
	var lost, other []ledger.Drop
	for _, x := range d.Drops {
		if x.Lost {
			lost = append(lost, x)
		} else {
			other = append(other, x)
		}
	}
	if len(lost) > 0 {
		p.line("Dropped by this host outside xfrm")
		p.dropRows(lost)
		p.line("")
	}
	if len(other) > 0 {
		p.line("Freed where packets that were dealt with are freed too, so in no bin")
		p.dropRows(other)
		p.line("")
	}
}

func (p *printer) dropRows(list []ledger.Drop) {
	for i, x := range list {
		if i == dropsMax {
			p.line("  … and %d more (--json lists them all)", len(list)-i)
			return
		}
		p.wrap(fmt.Sprintf("  %8s  ", group(x.Packets)), "            ", dropWhose(&x)+": "+dropWhere(&x))
	}
}

func dropWhose(x *ledger.Drop) string {
	s := stageNames[x.Stage]
	switch {
	case x.SPI != 0:
		s += fmt.Sprintf(", SA %s to %s", x.SPI, x.Dst)
	case x.Src.IsValid() && x.Dst.IsValid():
		s += fmt.Sprintf(", %s to %s", x.Src, x.Dst)
	}
	return s
}

// dropWhere names the place, then what the kernel calls it.
func dropWhere(x *ledger.Drop) string {
	parts := []string{string(x.Place)}
	if x.Hook != "" {
		parts[0] += " " + x.Hook
	}
	if x.Function != "" {
		f := "in " + x.Function
		if x.Module != "" {
			f += " [" + x.Module + "]"
		}
		parts = append(parts, f)
	}
	if x.Reason != "" && x.Reason != "NOT_SPECIFIED" {
		parts = append(parts, "reason "+x.Reason)
	}
	if x.Ifindex != 0 {
		parts = append(parts, fmt.Sprintf("interface %d", x.Ifindex))
	}
	return strings.Join(parts, ", ")
}

// dropRemark sums an SA's drops of some stages by place, as the causes of its bin.
func dropRemark(d *Document, sa *ledger.SA, stage ledger.DropStage) string {
	sum := map[ledger.Place]int64{}
	for _, x := range d.Drops {
		if x.Lost && x.Stage == stage && x.SPI == sa.SPI && x.Dst == sa.Dst && x.Proto == sa.Proto && x.Direction == sa.Direction {
			sum[x.Place] += x.Packets
		}
	}
	return strings.Join(pairsOf(sum), ", ")
}
