// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// NICTxErrors is packets that a device took to send and did not.
const NICTxErrors ID = "nic-tx-errors"

var txCounters = named("tx_errors", "tx_dropped", "tx_aborted_errors", "tx_carrier_errors", "tx_fifo_errors",
	"tx_heartbeat_errors", "tx_window_errors")

func nicTxErrors(r *ledger.Report) []Finding {
	var out []Finding
	for _, l := range carriers(r) {
		sas := onLink(r, l, ledger.Out)
		c := only(l.Counters, txCounters)
		// tx_errors is the sum of the errors in detail; what was dropped is not among them.
		detail := only(c, func(name string) bool { return name != "tx_errors" && name != "tx_dropped" })
		n := max(c["tx_errors"], largest(detail)) + c["tx_dropped"]
		if n <= 0 || len(sas) == 0 {
			continue
		}
		of := l.Counters["tx_packets"] + n
		f := Finding{
			ID: NICTxErrors, Severity: pathSeverity(n, of), Confidence: sure(counted), Subject: at(l, sas),
			Summary: fmt.Sprintf("%s failed to send %s of %d (%s): they had passed the stack and its queue, and the peer never sees them.",
				l.Name, packets(n), of, share(n, of)),
			Evidence: append(moved(l, "rtnetlink", c, ""),
				Evidence{"host.links." + l.Name + ".tx_packets", l.Counters["tx_packets"], "packets", "rtnetlink", "sent well"}),
			Remedy: []Remedy{
				{For: forHost, Text: "tx_carrier_errors: the link was down or lost its carrier; look for flaps in the log.",
					Commands: []string{"ip -s -s link show dev " + l.Name, "ethtool " + l.Name}},
			},
		}
		attribute(r, &f, l, ledger.PlaceDevice, n)
		if l.RingTxMax > l.RingTx {
			f.Remedy = append(f.Remedy, Remedy{For: forHost,
				Text:     fmt.Sprintf("The transmit ring has %d of at most %d descriptors.", l.RingTx, l.RingTxMax),
				Commands: []string{fmt.Sprintf("ethtool -G %s tx %d", l.Name, l.RingTxMax)}})
		}
		f.Remedy = append(f.Remedy, Remedy{For: forHost,
			Text:     "Rule out segmentation and checksum offloads that the driver gets wrong for ESP: switch them off and see whether the counter stands still.",
			Commands: []string{"ethtool -K " + l.Name + " tx-esp-segmentation off esp-tx-csum-hw-offload off"}})
		if l.Kind != "device" {
			f.Remedy = append(f.Remedy, Remedy{For: forHost,
				Text: fmt.Sprintf("%s is a device of kind %s: it drops what the other end of it does not take. Look there.", l.Name, l.Kind)})
		}
		out = append(out, f)
	}
	return out
}
