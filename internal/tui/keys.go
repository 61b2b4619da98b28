// SPDX-License-Identifier: Apache-2.0

package tui

import "charm.land/bubbles/v2/key"

// keys are what the screens listen to; help.go and docs/watch.md list them.
type keyMap struct {
	Up, Down, PageUp, PageDown, Home, End key.Binding
	Enter, Back, Quit, Help               key.Binding
	Left, Right, Reverse                  key.Binding
	Filter, Tunnels, Pause, Reset         key.Binding
	Findings, Cost, NextSA, PreviousSA    key.Binding
}

var keys = keyMap{
	Up:         bind("↑ k", "row or line up", "up", "k"),
	Down:       bind("↓ j", "row or line down", "down", "j"),
	PageUp:     bind("PgUp", "page up", "pgup", "ctrl+b"),
	PageDown:   bind("PgDn", "page down", "pgdown", "ctrl+f", "space"),
	Home:       bind("Home g", "first row", "home", "g"),
	End:        bind("End G", "last row", "end", "G"),
	Enter:      bind("Enter", "look into the SA, the tunnel or the finding", "enter"),
	Back:       bind("Esc", "back; in the table: take the filter away", "esc", "backspace"),
	Quit:       bind("q Ctrl-C", "quit", "q", "ctrl+c"),
	Help:       bind("?", "this page", "?", "h"),
	Left:       bind("← <", "sort by the column to the left", "left", "<"),
	Right:      bind("→ >", "sort by the column to the right, hidden ones included", "right", ">"),
	Reverse:    bind("S", "reverse the order", "S"),
	Filter:     bind("/", "filter: SPI, address, reqid=…, name, in, out, ended, …", "/"),
	Tunnels:    bind("t", "a row per tunnel, or per SA", "t"),
	Pause:      bind("p", "pause the screen; gathering goes on", "p"),
	Reset:      bind("r", "count from zero from now on", "r"),
	Findings:   bind("f Tab", "findings, with evidence and remedy", "f", "tab"),
	Cost:       bind("c", "what xfrmscope costs and what it lost", "c"),
	NextSA:     bind("n", "next SA of the table", "n"),
	PreviousSA: bind("N", "previous SA of the table", "N"),
}

func bind(shown, does string, pressed ...string) key.Binding {
	return key.NewBinding(key.WithKeys(pressed...), key.WithHelp(shown, does))
}
