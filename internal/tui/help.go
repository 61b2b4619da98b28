// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"fmt"
	"strings"

	"charm.land/bubbles/v2/key"
)

// explained says what the columns mean.
var explained = [][2]string{
	{"SPI", "of the SA; x in front: it has ended, ?: the SA database does not have it"},
	{"DIR", "in: from the peer; out: to the peer; unknown: neither end is this host"},
	{"PEER", "address of the far end; per tunnel: both ends where they fit; SAS: how many the tunnel has"},
	{"REQID", "what ties policies and SAs together; NAME: connection and child by the IKE daemon"},
	{"PKT/S BIT/S", "on the wire since the frame before, outer headers included"},
	{"LOST, LOSS", "packets, and share in percent, that did not cross the wire. In: the peer sent them and they never came. Out: this host dropped them first (XFRM and HOST)"},
	{"LATE", "arrived after a higher number"},
	{"XFRM", "dropped by xfrm"},
	{"HOST", "dropped in this host outside xfrm: firewall, route, queue. In: before decryption. Out: after encryption"},
	{"INNER", "dropped after decryption: by policy, or on the inner path"},
	{"UNATT", "unattributed: went in and is in no bin; no hook saw why"},
	{"LOSS line", "share lost over the recent past: lowest bar none, then from 0 %, 0.1 %, 0.3 %, 1 %, 3 %, 10 %, 30 %; a gap: no packets"},
	{"RATE line", "packets, against the row's own highest"},
	{"? and -", "nobody observes it; there is no such thing for this SA"},
}

// helpLines lists keys and columns.
func (m *Model) helpLines() []string {
	lines := []string{styleHead.Render("Keys")}
	for _, b := range []key.Binding{
		keys.Up, keys.Down, keys.PageUp, keys.PageDown, keys.Home, keys.End, keys.Enter, keys.Back, keys.Left, keys.Right,
		keys.Reverse, keys.Filter, keys.Tunnels, keys.Findings, keys.NextSA, keys.PreviousSA, keys.Pause, keys.Reset, keys.Cost,
		keys.Help, keys.Quit,
	} {
		h := b.Help()
		shown := h.Key
		if m.opts.ASCII {
			shown = asciiKeys(shown)
		}
		lines = append(lines, fmt.Sprintf("  %s %s", fit(shown, 13), h.Desc))
	}
	lines = append(lines, "", styleHead.Render("Columns, in packets since the run began or was reset"))
	for _, e := range explained {
		lines = append(lines, wrapped("  "+fit(e[0], 13)+" ", "                ", e[1], m.width)...)
	}
	lines = append(lines, "", styleHead.Render("Filter"))
	lines = append(lines, wrapped("  ", "  ", "Words, all of which must be somewhere in an SA's SPI, direction, addresses, protocol, reqid=…, if_id=…, name or state (alive, ended, absent).", m.width)...)
	return lines
}

// asciiKeys writes arrows in words.
var arrows = strings.NewReplacer("↑", "Up", "↓", "Down", "←", "Left", "→", "Right")

func asciiKeys(s string) string { return arrows.Replace(s) }

// asciiOnly replaces what a terminal without UTF-8 would garble, each by something as wide.
func asciiOnly(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r < 128:
			return r
		case r == '…':
			return '~'
		case r == 'µ':
			return 'u'
		case r == '×':
			return 'x'
		case r == '±':
			return '~'
		}
		return '?'
	}, s)
}
