// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// Who a remedy is for. The names are what the report prints.
const (
	forStrongSwan = "strongSwan"
	forLibreswan  = "libreswan"
	forIproute2   = "iproute2"
	forHost       = "this host"
	forNftables   = "nftables"
	forIptables   = "iptables"
	forPath       = "path"
	forPeer       = "Windows or Cisco peer"
)

// windowRemedies sets the replay window of an SA. No IKE daemon changes it under a running SA, and
// strongSwan's rekeying keeps the configuration that the SA was set up with (child_rekey.c), so the
// SA has to be set up anew.
func windowRemedies(sa *ledger.SA, window int64) []Remedy {
	flag := ""
	if esn(sa) {
		flag = " flag esn"
	}
	return []Remedy{
		{
			For: forStrongSwan,
			Text: "In swanctl.conf, then set the child SA up anew: rekeying keeps the configuration it began with. " +
				"Traffic stops for the exchange in between. For all children: charon.replay_window in strongswan.conf.",
			Commands: []string{
				fmt.Sprintf("connections.<conn>.children.<child>.replay_window = %d", window),
				"swanctl --load-conns",
				"swanctl --terminate --child <child> && swanctl --initiate --child <child>",
			},
		},
		{
			For:  forLibreswan,
			Text: "In the conn section of ipsec.conf, then load and set up the connection anew.",
			Commands: []string{
				fmt.Sprintf("replay-window=%d", window),
				"ipsec auto --replace <conn> && ipsec auto --up <conn>",
			},
		},
		{
			For: forIproute2,
			Text: "An SA's window is fixed when it is added: delete and add it with the keys it has, on both ends " +
				"together, since numbers begin anew. A window above 32 needs no flag of its own; keep the SA's other options.",
			Commands: []string{
				fmt.Sprintf("ip xfrm state delete dst %s proto %s spi %s", sa.Dst, sa.Proto, sa.SPI),
				fmt.Sprintf("ip xfrm state add src %s dst %s proto %s spi %s … replay-window %d%s",
					address(sa), sa.Dst, sa.Proto, sa.SPI, window, flag),
			},
		},
	}
}

func address(sa *ledger.SA) string {
	if !sa.Src.IsValid() {
		return "<peer>"
	}
	return sa.Src.String()
}

// windowCost says what a window of that size costs: struct xfrm_replay_state_esn is kept twice per SA
// (replay_esn and preplay_esn), a bit a number; each number is still accepted once only.
func windowCost(window int64) string {
	return fmt.Sprintf("A window of %d costs %d bytes of bitmap per SA (the kernel keeps two). Each number is still "+
		"accepted once only; what grows is how long a withheld packet stays acceptable: %d packets.",
		window, 2*window/8, window)
}

// pathInsteadOfWindow is for displacements that no window of Linux spans.
func pathInsteadOfWindow(need int64) Remedy {
	return Remedy{
		For: forPath,
		Text: fmt.Sprintf("The latest packet would have needed a window of %d; Linux has none above %d "+
			"(XFRMA_REPLAY_ESN_MAX). Find what holds packets back that long: links of unequal delay in one bundle, "+
			"per-packet load balancing, a priority queue that sorts ESP by DSCP, or a sender whose numbers restarted.", need, maxWindow),
		Commands: []string{
			"swanctl.conf: connections.<conn>.children.<child>.copy_dscp = no   # on the sender: one queue for the whole SA",
		},
	}
}
