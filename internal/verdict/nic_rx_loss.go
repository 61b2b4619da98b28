// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"regexp"

	"xfrmscope/internal/ledger"
)

// NICRxLoss is frames that the network card or its driver lost before any hook could see them.
const NICRxLoss ID = "nic-rx-loss"

// Counters that tell of frames lost for want of room, and of frames that came damaged
// (struct rtnl_link_stats64). rx_dropped is not among them: it also counts frames of protocols that
// nobody listens to, on a healthy host as well.
var (
	roomCounters   = named("rx_missed_errors", "rx_fifo_errors", "rx_over_errors")
	damageCounters = named("rx_crc_errors", "rx_frame_errors", "rx_length_errors")
)

// driverRoom finds drivers' counters of frames lost for want of room. What a card leaves out because
// it is addressed to others, and what XDP drops, is no loss.
var (
	driverRoom    = regexp.MustCompile(`(?i)rx.*(no_?(buf|dma|desc|mem)|miss|fifo|out_of_buf|discard|nodesc|over(run|flow)|drop)|no_rx_(buf|desc)`)
	driverIgnored = regexp.MustCompile(`(?i)xdp|steer|filter|csum|checksum|vlan|mac_|alloc`)
)

func driverRoomCounters(name string) bool {
	return driverRoom.MatchString(name) && !driverIgnored.MatchString(name)
}

// rxLoss is what a device lost of what it received.
type rxLoss struct {
	room, damaged, total int64
	evidence             []Evidence
}

func lostAtCard(l *ledger.LinkReport) rxLoss {
	room, damaged := only(l.Counters, roomCounters), only(l.Counters, damageCounters)
	driver := only(l.DriverCounters, driverRoomCounters)
	x := rxLoss{room: max(largest(room), largest(driver))}
	for _, n := range damaged {
		x.damaged += n
	}
	x.total = max(x.room+x.damaged, l.Counters["rx_errors"])
	x.evidence = append(x.evidence, moved(l, "rtnetlink", room, "")...)
	x.evidence = append(x.evidence, moved(l, "driver", driver, "may count the same frames under several names")...)
	x.evidence = append(x.evidence, moved(l, "rtnetlink", damaged, "damaged: cable, transceiver or the port opposite")...)
	x.evidence = append(x.evidence, moved(l, "rtnetlink", only(l.Counters, named("rx_errors")), "may hold those above")...)
	return x
}

func nicRxLoss(r *ledger.Report) []Finding {
	var out []Finding
	for _, l := range carriers(r) {
		sas := onLink(r, l, ledger.In)
		x := lostAtCard(l)
		if x.total <= 0 || len(sas) == 0 {
			continue
		}
		lost := lostOnPath(sas)
		f := Finding{
			ID:         NICRxLoss,
			Severity:   pathSeverity(x.total, l.Counters["rx_packets"]+x.total),
			Confidence: sure(counted), // the card does not say whose frames they were
			Subject:    at(l, sas),
			Evidence:   x.evidence,
		}
		what := "before any hook in the kernel could see them"
		if x.damaged > x.room {
			what = "because they came damaged"
		}
		f.Summary = fmt.Sprintf("%s lost %s of %d (%s) %s", l.Name, frames(x.total), l.Counters["rx_packets"]+x.total,
			share(x.total, l.Counters["rx_packets"]+x.total), what)
		switch {
		case lost == 0:
			f.Severity = Info
			f.Summary += "; none of them was of an SA: no sequence number is missing."
		case x.total*2 < lost:
			f.Confidence, f.spares = sure(inferred), []ID{PathLoss}
			f.Summary += fmt.Sprintf("; the inbound SAs on it miss %d, so most was lost elsewhere.", lost)
		default:
			f.Summary += fmt.Sprintf("; the inbound SAs on it miss %d, and the loss is here rather than on the path.", lost)
		}
		f.Evidence = append(f.Evidence,
			Evidence{"host.links." + l.Name + ".rx_packets", l.Counters["rx_packets"], "packets", "rtnetlink", "received well"},
			Evidence{"ledger.lost_on_path", lost, "packets", "wire", fmt.Sprintf("of the inbound SAs on %s", l.Name)})
		f.Remedy = rxRemedies(l, x)
		out = append(out, f)
	}
	return out
}

func frames(n int64) string {
	if n == 1 {
		return "1 frame"
	}
	return fmt.Sprintf("%d frames", n)
}

func rxRemedies(l *ledger.LinkReport, x rxLoss) []Remedy {
	var out []Remedy
	if x.damaged > 0 {
		out = append(out, Remedy{For: forPath,
			Text:     "Damaged frames come from the cable, the transceiver or a port whose speed or duplex does not match. Exchange them one by one and look at both ends.",
			Commands: []string{"ethtool " + l.Name, "ethtool -m " + l.Name}})
	}
	if x.room == 0 {
		return append(out, watchDriver(l))
	}
	switch {
	case l.RingRxMax > l.RingRx:
		out = append(out, Remedy{For: forHost,
			Text: fmt.Sprintf("The receive ring has %d of at most %d descriptors: a larger one rides out longer bursts. "+
				"On most drivers the link goes down for a moment.", l.RingRx, l.RingRxMax),
			Commands: []string{fmt.Sprintf("ethtool -G %s rx %d", l.Name, l.RingRxMax)}})
	case l.RingRxMax > 0:
		out = append(out, Remedy{For: forHost,
			Text: fmt.Sprintf("The receive ring has its full size, %d descriptors: the CPU that empties it is too slow. Spread the queues over more CPUs.", l.RingRx)})
	}
	return append(out,
		Remedy{For: forHost,
			Text: fmt.Sprintf("%s has %d receive queues. ESP between two gateways is one flow to most cards: the SPI must be part of the hash, or one queue gets all.",
				l.Name, max(l.RxQueues, 1)),
			Commands: []string{
				"ethtool -l " + l.Name + "   # and -L … combined N, where the card has more",
				"ethtool -N " + l.Name + " rx-flow-hash esp4 sdfn   # hash by SPI, where the driver can",
			}},
		Remedy{For: forHost, Text: "Pause frames move the wait to the switch instead of losing frames.",
			Commands: []string{"ethtool -a " + l.Name}},
		watchDriver(l))
}

func watchDriver(l *ledger.LinkReport) Remedy {
	return Remedy{For: forHost, Text: "See which of the driver's counters go on rising.",
		Commands: []string{"ethtool -S " + l.Name + " | grep -iE 'drop|miss|no_buf|fifo|err'"}}
}

// cardEvidence is what the device that an SA was seen on lost itself, for the finding that its packets
// are missing.
func cardEvidence(r *ledger.Report, sa *ledger.SA) []Evidence {
	var out []Evidence
	for _, l := range carriers(r) {
		if !r.Host.On(l.Index, sa.Ifindex) {
			continue
		}
		out = append(out, lostAtCard(l).evidence...)
		out = append(out, moved(l, "rtnetlink", only(l.Counters, named("rx_dropped")),
			"dropped by the driver or by a full backlog, or of a protocol that nobody listens to")...)
	}
	return out
}
