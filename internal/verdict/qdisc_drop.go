// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"xfrmscope/internal/ledger"
)

// QdiscDrop is packets that the queue of a device dropped on their way out, behind the egress hook.
const QdiscDrop ID = "qdisc-drop"

func qdiscDrop(r *ledger.Report) []Finding {
	var out []Finding
	for _, l := range carriers(r) {
		sas := onLink(r, l, ledger.Out)
		culprits := dropping(l.Qdiscs)
		if len(culprits) == 0 || len(sas) == 0 {
			continue
		}
		n, sent, esp := int64(0), int64(0), int64(0)
		for _, q := range culprits {
			n += q.Drops
		}
		for _, q := range l.Qdiscs {
			if q.Parent == "root" {
				sent += q.Packets
			}
		}
		for _, sa := range sas {
			esp += sa.Wire.Packets
		}
		worst := culprits[0]
		f := Finding{
			ID: QdiscDrop, Severity: pathSeverity(n, sent+n), Confidence: sure(counted), Subject: at(l, sas),
			Summary: fmt.Sprintf("The queue of %s dropped %s of %d (%s): %s. The egress hook stands before the queue and had counted what was of an SA as sent.",
				l.Name, packets(n), sent+n, share(n, sent+n), describe(worst)),
		}
		for _, q := range culprits {
			f.Evidence = append(f.Evidence,
				Evidence{fmt.Sprintf("host.links.%s.qdisc.%s.drops", l.Name, q.Kind), q.Drops, "packets", "rtnetlink",
					fmt.Sprintf("%s at %s; of whatever traffic", describe(q), q.Parent)})
			if q.Overlimits > 0 {
				f.Evidence = append(f.Evidence, Evidence{fmt.Sprintf("host.links.%s.qdisc.%s.overlimits", l.Name, q.Kind),
					q.Overlimits, "times", "rtnetlink", "the rate was reached"})
			}
		}
		f.Evidence = append(f.Evidence,
			Evidence{fmt.Sprintf("host.links.%s.qdisc.packets", l.Name), sent, "packets", "rtnetlink", "let through"},
			Evidence{"ledger.on_wire", esp, "packets", "wire", fmt.Sprintf("ESP of the SAs on %s that reached the queue", l.Name)})
		attribute(r, &f, l, ledger.PlaceQueue, n)
		f.Remedy = queueRemedies(l, worst)
		out = append(out, f)
	}
	return out
}

// dropping lists the queues that dropped, the worst first. A parent counts its children's drops as its
// own (qdisc_tree_reduce_backlog), so one is named only for what its children do not explain. ingress
// and clsact are no queues: their drops are those of filters.
func dropping(all []ledger.QdiscReport) []ledger.QdiscReport {
	var out []ledger.QdiscReport
	for i, q := range all {
		if q.Kind == "clsact" || q.Kind == "ingress" || q.Drops <= 0 {
			continue
		}
		for j, child := range all {
			if j != i && child.Parent != "root" && major(child.Parent) == major(q.Handle) && (q.Parent == "root" || child.Handle != q.Handle) {
				q.Drops -= child.Drops
			}
		}
		if q.Drops > 0 {
			out = append(out, q)
		}
	}
	slices.SortStableFunc(out, func(a, b ledger.QdiscReport) int { return cmp.Compare(b.Drops, a.Drops) })
	return out
}

func major(handle string) string {
	m, _, _ := strings.Cut(handle, ":")
	return m
}

func describe(q ledger.QdiscReport) string {
	s := fmt.Sprintf("%s %s", q.Kind, q.Handle)
	if q.Limit > 0 {
		s += fmt.Sprintf(", limit %d %s", q.Limit, q.LimitUnit)
	}
	return s
}

func queueRemedies(l *ledger.LinkReport, q ledger.QdiscReport) []Remedy {
	where := "root"
	if q.Parent != "root" {
		where = "parent " + q.Parent
	}
	change := fmt.Sprintf("tc qdisc change dev %s %s handle %s %s", l.Name, where, q.Handle, q.Kind)
	look := "tc -s -d qdisc show dev " + l.Name
	var out []Remedy
	switch q.Kind {
	case "pfifo_fast", "noqueue", "mq":
		out = append(out, Remedy{For: forHost,
			Text:     fmt.Sprintf("The queue holds txqueuelen packets, %d now. A longer one rides out bursts and adds delay; a fair one keeps one flow from starving the others.", l.TxQueue),
			Commands: []string{fmt.Sprintf("ip link set dev %s txqueuelen %d", l.Name, max(2*l.TxQueue, 1000)), "tc qdisc replace dev " + l.Name + " root fq_codel"}})
	case "tbf", "htb", "cake", "hfsc":
		out = append(out, Remedy{For: forHost,
			Text: "A shaper: more is sent than its rate allows. Set the rate to what the line carries, with the outer headers of ESP counted in; " +
				"a larger limit or latency only rides out bursts.",
			Commands: []string{look, change + " …   # rate, burst and limit or latency anew"}})
	case "netem":
		out = append(out, Remedy{For: forHost, Text: "netem emulates a bad line: it drops what it was told to, and what exceeds its limit. Nobody needs it outside a laboratory.",
			Commands: []string{look, fmt.Sprintf("tc qdisc del dev %s %s", l.Name, where)}})
	default:
		limit := "limit <packets>"
		if q.Limit > 0 {
			limit = fmt.Sprintf("limit %d", 2*q.Limit)
		}
		out = append(out, Remedy{For: forHost, Text: "A larger limit rides out longer bursts, and adds delay when the line is full for good.",
			Commands: []string{look, change + " " + limit}})
	}
	return append(out, Remedy{For: forHost,
		Text: "If the line is full for good, send less: shape the traffic before it is encrypted, where flows can still be told apart. " +
			"All packets of an SA look like one flow to a fair queue, and like one priority unless DSCP is copied outwards.",
		Commands: []string{"swanctl.conf: connections.<conn>.children.<child>.copy_dscp = out"}})
}
