// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"charm.land/lipgloss/v2"

	"xfrmscope/internal/verdict"
)

// The sixteen colours that every terminal has, in the user's own choice of them. Nothing is told by
// colour alone: with NO_COLOR the words and the marks remain.
var (
	styleTitle    = lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Cyan)
	styleHead     = lipgloss.NewStyle().Bold(true)
	styleDim      = lipgloss.NewStyle().Foreground(lipgloss.BrightBlack)
	styleSelected = lipgloss.NewStyle().Reverse(true)
	styleGood     = lipgloss.NewStyle().Foreground(lipgloss.Green)
	styleWarn     = lipgloss.NewStyle().Foreground(lipgloss.Yellow)
	styleBad      = lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Red)
	styleNote     = lipgloss.NewStyle().Foreground(lipgloss.Cyan)
	stylePaused   = lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Black).Background(lipgloss.Yellow)
)

func severityStyle(s verdict.Severity) lipgloss.Style {
	switch s {
	case verdict.Critical:
		return styleBad
	case verdict.Warning:
		return styleWarn
	case verdict.Info:
	}
	return styleNote
}
