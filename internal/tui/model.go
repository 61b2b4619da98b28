// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"slices"
	"strings"
	"time"
	"unicode"

	"charm.land/bubbles/v2/key"
	"charm.land/bubbles/v2/viewport"
	tea "charm.land/bubbletea/v2"

	"xfrmscope/internal/verdict"
)

// screen is what fills the terminal.
type screen int

const (
	screenTable screen = iota
	screenSA
	screenFindings
	screenFinding
	screenCost
	screenHelp
)

// Options of a Model.
type Options struct {
	Interval time.Duration // between frames
	ASCII    bool          // draw with ASCII only
	Reset    func()        // lets the ledger begin anew with the next frame; nil: it cannot
}

// Model is the state of the screens. It is fed with Frames through Update.
type Model struct {
	opts          Options
	glyphs        glyphs
	width, height int

	history history  // goes on while paused
	frozen  *history // of the frame that is shown: history itself, or a copy while paused
	events  eventLog // goes on while paused
	shown   *Frame
	latest  *Frame // newer than shown only while paused
	cost    cost
	paused  bool
	resets  bool // a reset is on its way

	screens []screen // the last one is on top; never empty
	body    viewport.Model

	base     []row  // of the shown frame, in the report's order
	rows     []*row // filtered and sorted
	cursor   int
	top      int
	selected rowKey // the cursor's, by which it finds its row again
	tunnels  bool
	within   *tunnelKey // only SAs of this tunnel
	sortBy   columnID
	reverse  bool

	filtering bool
	input     string // the filter as it is written
	words     []string

	sa      rowKey // of screenSA
	pick    int    // of the findings
	picked  findingKey
	finding findingKey // of screenFinding
}

// findingKey tells one finding from another for as long as it lasts.
type findingKey struct {
	id      verdict.ID
	subject string
}

func keyOf(f *verdict.Finding) findingKey { return findingKey{f.ID, subjectText(&f.Subject)} }

// New makes a model that waits for its first frame.
func New(o Options) *Model {
	m := &Model{opts: o, frozen: &history{}, glyphs: unicodeGlyphs, width: 80, height: 24, screens: []screen{screenTable}, sortBy: colLost}
	if o.ASCII {
		m.glyphs = asciiGlyphs
	}
	m.body = viewport.New()
	m.body.KeyMap = viewport.KeyMap{} // keys are ours
	m.body.SoftWrap = true            // commands to copy are never cut
	return m
}

// Init asks for nothing: frames and the size come by themselves.
func (m *Model) Init() tea.Cmd { return nil }

// Update takes a frame, a size or a key.
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	var cmd tea.Cmd
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = max(msg.Width, 1), max(msg.Height, 1)
	case Frame:
		m.take(&msg)
	case tea.KeyPressMsg:
		cmd = m.press(msg)
	case tea.PasteMsg:
		if m.filtering {
			m.write(msg.Content)
		}
	}
	m.fill()
	return m, cmd
}

// take files a frame, and shows it unless the view is paused.
func (m *Model) take(f *Frame) {
	m.cost.add(m.latest, f)
	m.history.add(f)
	m.events.add(f)
	m.latest = f
	m.resets = false
	if !m.paused {
		m.show()
	}
}

// show brings the view up to the latest frame.
func (m *Model) show() {
	if m.latest == nil {
		return
	}
	m.shown, m.frozen = m.latest, &m.history
	if m.paused {
		m.frozen = m.history.clone()
	}
	m.base = saRows(&m.shown.Report, m.frozen)
	m.arrange()
	m.repick()
}

// arrange builds the rows from the shown frame, and finds the selected one again.
func (m *Model) arrange() {
	rows := m.base
	if m.within != nil {
		rows = nil
		for i := range m.base {
			if tunnelOf(m.base[i].sa) == *m.within {
				rows = append(rows, m.base[i])
			}
		}
	}
	if m.tunnels {
		rows = tunnelRows(m.base)
	}
	m.rows = sorted(rows, m.words, m.column(), m.reverse)
	if i := slices.IndexFunc(m.rows, func(r *row) bool { return r.key == m.selected }); i >= 0 {
		m.cursor = i
	}
	m.sel(m.cursor)
}

// sel moves the cursor to a row, and remembers which that is.
func (m *Model) sel(i int) {
	m.cursor = max(0, min(i, len(m.rows)-1))
	if m.cursor < len(m.rows) {
		m.selected = m.rows[m.cursor].key
	}
}

func (m *Model) column() *column {
	for i := range allColumns {
		if allColumns[i].id == m.sortBy {
			return &allColumns[i]
		}
	}
	return &allColumns[0]
}

func (m *Model) screen() screen { return m.screens[len(m.screens)-1] }

func (m *Model) push(s screen) {
	if m.screen() != s {
		m.screens = append(m.screens, s)
	}
	m.body.GotoTop()
}

func (m *Model) back() {
	if len(m.screens) > 1 {
		m.screens = m.screens[:len(m.screens)-1]
		m.body.GotoTop()
	}
}

// press acts on a key.
func (m *Model) press(k tea.KeyPressMsg) tea.Cmd {
	switch {
	case k.String() == "ctrl+c":
		return tea.Quit
	case m.filtering:
		m.typeFilter(k)
	case key.Matches(k, keys.Quit):
		return tea.Quit
	case key.Matches(k, keys.Help):
		m.push(screenHelp)
	case key.Matches(k, keys.Cost):
		m.push(screenCost)
	case key.Matches(k, keys.Findings):
		m.push(screenFindings)
	case key.Matches(k, keys.Pause):
		m.paused = !m.paused
		m.show()
	case key.Matches(k, keys.Reset):
		if m.opts.Reset != nil {
			m.opts.Reset()
			m.resets = true
		}
	case m.screen() == screenTable:
		m.pressTable(k)
	case m.screen() == screenFindings && m.pressFindings(k):
	case key.Matches(k, keys.Back):
		m.back()
	case m.screen() == screenSA && key.Matches(k, keys.NextSA, keys.PreviousSA):
		m.otherSA(key.Matches(k, keys.NextSA))
	default:
		m.pressBody(k)
	}
	return nil
}

func (m *Model) pressTable(k tea.KeyPressMsg) {
	page := max(1, m.tableHeight()-1)
	switch {
	case key.Matches(k, keys.Up):
		m.sel(m.cursor - 1)
	case key.Matches(k, keys.Down):
		m.sel(m.cursor + 1)
	case key.Matches(k, keys.PageUp):
		m.sel(m.cursor - page)
	case key.Matches(k, keys.PageDown):
		m.sel(m.cursor + page)
	case key.Matches(k, keys.Home):
		m.sel(0)
	case key.Matches(k, keys.End):
		m.sel(len(m.rows) - 1)
	case key.Matches(k, keys.Left):
		m.sortBeside(-1)
	case key.Matches(k, keys.Right):
		m.sortBeside(+1)
	case key.Matches(k, keys.Reverse):
		m.reverse = !m.reverse
		m.arrange()
	case key.Matches(k, keys.Tunnels):
		m.tunnels, m.within = !m.tunnels, nil
		if !shownFor(m.column(), m.tunnels) {
			m.sortBy, m.reverse = colLost, false
		}
		m.arrange()
	case key.Matches(k, keys.Filter):
		m.filtering = true
	case key.Matches(k, keys.Enter):
		m.enter()
	case key.Matches(k, keys.Back):
		switch {
		case len(m.words) > 0:
			m.input, m.words = "", nil
		case m.within != nil:
			key := *m.within
			m.within, m.tunnels = nil, true
			m.selected = rowKey{tunnel: key}
		}
		m.arrange()
	}
}

// enter looks into the row under the cursor.
func (m *Model) enter() {
	if m.cursor >= len(m.rows) {
		return
	}
	if r := m.rows[m.cursor]; r.sa != nil {
		m.sa = r.key
		m.push(screenSA)
	} else {
		m.within, m.tunnels = &r.key.tunnel, false
		if !shownFor(m.column(), false) {
			m.sortBy, m.reverse = colLost, false
		}
		m.cursor, m.top = 0, 0
		m.arrange()
	}
}

// otherSA goes on to the next or the previous SA of the table.
func (m *Model) otherSA(next bool) {
	i := slices.IndexFunc(m.rows, func(r *row) bool { return r.key == m.sa })
	if next {
		i++
	} else {
		i--
	}
	if i >= 0 && i < len(m.rows) && m.rows[i].sa != nil {
		m.sel(i)
		m.sa = m.rows[i].key
		m.body.GotoTop()
	}
}

func shownFor(c *column, tunnels bool) bool { return c.sas && !tunnels || c.tunnels && tunnels }

// sortBeside sorts by the column beside the present one.
func (m *Model) sortBeside(step int) {
	i := slices.IndexFunc(allColumns, func(c column) bool { return c.id == m.sortBy })
	for i += step; i >= 0 && i < len(allColumns); i += step {
		if shownFor(&allColumns[i], m.tunnels) {
			m.sortBy, m.reverse = allColumns[i].id, false
			m.arrange()
			return
		}
	}
}

// typeFilter takes a key while the filter is being written; the table follows each letter.
func (m *Model) typeFilter(k tea.KeyPressMsg) {
	switch k.String() {
	case "enter":
		m.filtering = false
	case "esc":
		m.filtering = false
		m.write("\x15")
	case "backspace", "ctrl+h":
		runes := []rune(m.input)
		m.input = string(runes[:max(0, len(runes)-1)])
		m.write("")
	case "ctrl+u":
		m.write("\x15")
	default:
		m.write(k.Text)
	}
}

// filterMax bounds what a filter can be; an address is 39 characters at most.
const filterMax = 100

// write adds text to the filter; the kill character, as a terminal would have it, takes all of it away.
func (m *Model) write(text string) {
	for _, r := range text {
		switch {
		case r == '\x15':
			m.input = ""
		case unicode.IsPrint(r) && len(m.input) < filterMax:
			m.input += string(r)
		}
	}
	m.words = strings.Fields(strings.ToLower(m.input))
	m.arrange()
}

// pressBody scrolls.
func (m *Model) pressBody(k tea.KeyPressMsg) {
	switch {
	case key.Matches(k, keys.Up):
		m.body.ScrollUp(1)
	case key.Matches(k, keys.Down):
		m.body.ScrollDown(1)
	case key.Matches(k, keys.PageUp):
		m.body.PageUp()
	case key.Matches(k, keys.PageDown):
		m.body.PageDown()
	case key.Matches(k, keys.Home):
		m.body.GotoTop()
	case key.Matches(k, keys.End):
		m.body.GotoBottom()
	}
}
