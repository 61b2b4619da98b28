// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"charm.land/bubbles/v2/key"
	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
)

// text is what is on the screen.
func (s *stage) text() string { return ansi.Strip(s.model.View().Content) }

func (s *stage) want(t *testing.T, parts ...string) {
	t.Helper()
	text := s.text()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is not on the screen:\n%s", p, text)
		}
	}
}

func (s *stage) wantNot(t *testing.T, parts ...string) {
	t.Helper()
	text := s.text()
	for _, p := range parts {
		if strings.Contains(text, p) {
			t.Errorf("%q is on the screen:\n%s", p, text)
		}
	}
}

// order is the SPIs of the table from top to bottom.
func (s *stage) order() (out []string) {
	for _, r := range s.model.rows {
		if r.sa != nil {
			out = append(out, r.sa.SPI.String())
		}
	}
	return out
}

// TestSortByEveryColumn walks through all columns and holds the order of the rows against figures that
// the table is not asked for.
func TestSortByEveryColumn(t *testing.T) {
	s := crowded(30)
	s.press(slices.Repeat([]string{"left"}, len(allColumns))...)
	if s.model.sortBy != colSPI {
		t.Fatalf("the leftmost column is %v", s.model.sortBy)
	}
	seen := map[columnID]bool{}
	for range allColumns {
		c := s.model.column()
		if c.tunnels && !c.sas {
			t.Errorf("sorted by %s, which SAs do not have", c.title)
		}
		seen[c.id] = true
		up := s.order()
		if !slices.IsSortedFunc(s.model.rows, func(a, b *row) int {
			if c.falling {
				a, b = b, a
			}
			return c.order(a, b)
		}) {
			t.Errorf("not sorted by %s: %v", c.title, up)
		}
		s.press("S")
		if !slices.IsSortedFunc(s.model.rows, func(a, b *row) int {
			if !c.falling {
				a, b = b, a
			}
			return c.order(a, b)
		}) {
			t.Errorf("not sorted the other way round by %s: %v", c.title, s.order())
		}
		// The column sorted by is always shown, whatever else is not.
		head := ansi.Strip(s.model.headLine(layout(s.model.rows, s.model.sortBy, false, 80)))
		if !strings.ContainsAny(head, "▲▼") {
			t.Errorf("sorted by %s, and the head does not say so: %q", c.title, head)
		}
		s.press("S", "right")
	}
	if len(seen) != len(allColumns)-1 { // all but SAS
		t.Errorf("%d of %d columns were sorted by", len(seen), len(allColumns))
	}
	// By loss, what lost most comes first: of every seventh SA, those that lost 3 packets twice.
	s = crowded(30)
	if got := s.order()[:2]; !slices.Equal(got, []string{"0x0000100e", "0x00001007"}) {
		t.Errorf("the worst two are %v", got)
	}
}

// TestSelectionStays moves the selected SA about by its figures, and the selection with it.
func TestSelectionStays(t *testing.T) {
	w := ledgertest.New()
	a, b, c := w.Inbound(1, 32, false), w.Inbound(2, 32, false), w.Inbound(3, 32, false)
	s := raise(w, Options{})
	s.run(2, func(int) { a.Deliver(100); b.Deliver(100); c.Deliver(100) })
	if got := s.order(); !slices.Equal(got, []string{"0x00000001", "0x00000002", "0x00000003"}) {
		t.Fatalf("rows without a difference: %v", got)
	}
	s.press("down")
	s.run(1, func(int) { b.Deliver(10); b.Lose(5); c.Lose(50); a.Deliver(1) })
	if got := s.order(); !slices.Equal(got, []string{"0x00000003", "0x00000002", "0x00000001"}) {
		t.Fatalf("rows by loss: %v", got)
	}
	s.press("enter")
	s.want(t, "SA 0x00000002 in")
	s.press("n")
	s.want(t, "SA 0x00000001 in")
	s.press("N", "N")
	s.want(t, "SA 0x00000003 in")
	s.press("esc")
	if s.model.selected.sa.SPI != 3 {
		t.Errorf("back in the table, %v is selected", s.model.selected.sa)
	}
}

// TestPause freezes the view while gathering goes on.
func TestPause(t *testing.T) {
	w := ledgertest.New()
	in := w.Inbound(1, 32, false)
	s := raise(w, Options{})
	s.run(10, func(int) { in.Deliver(100) })
	s.press("p")
	frozen := s.text()
	s.want(t, "PAUSED")
	s.run(70, func(int) { in.Deliver(50); in.Lose(50) })
	if now := s.text(); now != frozen {
		t.Errorf("the view moved while it was paused:\n%s\nwas\n%s", now, frozen)
	}
	s.press("p")
	s.wantNot(t, "PAUSED")
	s.want(t, "3500", strings.Repeat("█", 7))
}

// TestReset lets the ledger begin anew.
func TestReset(t *testing.T) {
	w := ledgertest.New()
	in := w.Inbound(1, 32, false)
	asked := 0
	s := raise(w, Options{Reset: func() { asked++ }})
	s.run(5, func(int) { in.Deliver(100); in.Lose(7) })
	s.want(t, "lost 35")
	s.press("r")
	s.want(t, "RESET")
	if asked != 1 {
		t.Fatalf("asked %d times", asked)
	}
	s.begin()
	f := s.frame()
	f.Reset = true
	s.model.Update(f)
	s.wantNot(t, "RESET")
	s.want(t, "lost 0")
	s.run(1, func(int) { in.Deliver(100); in.Lose(2) })
	s.want(t, "lost 2", "in 100 pkt/s")
	// The line of loss goes on: what was lost before the reset is not taken back.
	s.press("enter", "end")
	s.want(t, "▆▆▆▆▆")
}

// TestSlidingLedger lets the ledger forget its oldest part, as it does in a run without end.
func TestSlidingLedger(t *testing.T) {
	w := ledgertest.New()
	in := w.Inbound(1, 32, false)
	rolling := ledger.NewRolling(ledger.Source{Kind: ledger.KindLive}, 3*time.Second)
	m := New(Options{Interval: time.Second})
	most := 0.0
	for range 20 {
		rolling.Observe(w.Snapshot())
		m.Update(Frame{At: w.Now(), Report: rolling.Report(), Scope: "the last 6s"})
		most = max(most, m.rows[0].pps)
		in.Deliver(100)
		w.Tick(time.Second)
	}
	if most != 100 || m.rows[0].pps != 100 {
		t.Errorf("100 packets a second were shown as up to %v, and at last as %v", most, m.rows[0].pps)
	}
	for f := range m.history.n {
		if c, ok := m.rows[0].at(f); ok && c.packets != 100 && f > 0 {
			t.Errorf("frame %d: %d packets", f, c.packets)
		}
	}
}

// TestFilter narrows the table with each letter.
func TestFilter(t *testing.T) {
	s := crowded(100)
	s.press("/", "1", "0", ".", "1", ".", "0", ".", "9")
	s.want(t, "Filter: 10.1.0.9")
	if len(s.model.rows) != 11 { // .9 and .90 to .99
		t.Errorf("%d rows: %v", len(s.model.rows), s.order())
	}
	s.press("backspace", "4", "2", "enter")
	if got := s.order(); !slices.Equal(got, []string{"0x0000102a"}) {
		t.Errorf("rows: %v", got)
	}
	s.want(t, `filter "10.1.0.42": 1 of 100`)
	// q is a letter while the filter is written, and a command after it.
	s.press("/", "q")
	s.want(t, "no row matches")
	s.press("esc")
	if len(s.model.rows) != 100 || len(s.model.words) != 0 {
		t.Errorf("%d rows after the filter was taken away", len(s.model.rows))
	}
	s.press("/")
	s.model.Update(tea.PasteMsg{Content: "reqid=7\x1b[2J in"})
	s.press("enter")
	if s.model.input != "reqid=7[2J in" {
		t.Errorf("pasted %q", s.model.input)
	}
	s.press("esc")
	if len(s.model.rows) != 100 {
		t.Errorf("%d rows after escape in the table", len(s.model.rows))
	}
}

// TestTunnels sums SAs, and leads from a tunnel to its SAs and back.
func TestTunnels(t *testing.T) {
	s := troubled()
	s.press("t")
	if len(s.model.rows) != 1 {
		t.Fatalf("%d tunnels", len(s.model.rows))
	}
	tun := s.model.rows[0]
	var lost, packets int64
	for i := range s.model.base {
		lost += s.model.base[i].lost.v
		packets += s.model.base[i].packets.v
	}
	if tun.sas != 3 || tun.lost.v != lost || tun.packets.v != packets || lost == 0 {
		t.Errorf("tunnel of %d SAs, lost %d of %d packets; its SAs lost %d of %d", tun.sas, tun.lost.v, tun.packets.v, lost, packets)
	}
	s.press("enter")
	if len(s.model.rows) != 3 {
		t.Errorf("%d SAs in the tunnel", len(s.model.rows))
	}
	s.press("enter")
	s.want(t, "SA 0xc0ffee0")
	s.press("esc", "esc")
	if !s.model.tunnels || len(s.model.rows) != 1 {
		t.Errorf("escape did not lead back to the tunnels")
	}
	s.press("t")
	if s.model.tunnels {
		t.Error("t did not lead back to the SAs")
	}
}

// TestFindingIsFollowed keeps the finding that was chosen while others come before it, and says when it is
// over.
func TestFindingIsFollowed(t *testing.T) {
	s := troubled()
	s.press("f", "down", "down", "enter")
	id := string(s.model.finding.id)
	s.want(t, "Finding "+id, "Evidence")
	s.press("end")
	s.want(t, "receiving host:", "100 %")
	s.press("home")
	f := s.frame()
	slices.Reverse(f.Findings)
	s.model.Update(f)
	s.want(t, "Finding "+id, "Evidence")
	f.Findings = nil
	s.model.Update(f)
	s.want(t, "does not hold any more")
	s.press("esc")
	s.want(t, "nothing found")
	s.press("esc")
	s.want(t, "SPI")
}

// TestQuit ends on q and Ctrl-C, wherever.
func TestQuit(t *testing.T) {
	for _, keys := range [][]string{{"q"}, {"ctrl+c"}, {"/", "ctrl+c"}, {"?", "q"}, {"enter", "q"}, {"f", "q"}} {
		s := troubled()
		s.press(keys[:len(keys)-1]...)
		_, cmd := s.model.Update(keyPress(keys[len(keys)-1]))
		if cmd == nil {
			t.Errorf("%v does not quit", keys)
			continue
		}
		if _, ok := cmd().(tea.QuitMsg); !ok {
			t.Errorf("%v does not quit", keys)
		}
	}
}

// TestEvents keeps the newest events of each SA, and of so many SAs, and no more.
func TestEvents(t *testing.T) {
	var l eventLog
	of := func(i int) EventKey { return EventKey{SPI: ledger.SPI(i), Dst: ledgertest.Here, Direction: ledger.In} }
	var f Frame
	for i := range 1000 {
		f.Events = append(f.Events, Event{At: ledgertest.Start.Add(time.Duration(i)), Key: of(1), Text: fmt.Sprint(i)})
	}
	f.Skipped = 7
	l.add(&f)
	r := l.by[of(1)]
	if len(r.events) != eventsPerSA || r.total != 1000 || r.events[0].Text != fmt.Sprint(1000-eventsPerSA) || l.skipped != 7 {
		t.Errorf("%d events from %s on, of %d; %d skipped", len(r.events), r.events[0].Text, r.total, l.skipped)
	}
	f.Events, f.Skipped = nil, 0
	for i := range eventSAs {
		f.Events = append(f.Events, Event{At: ledgertest.Start.Add(time.Duration(2000 + i)), Key: of(2 + i)})
	}
	l.add(&f)
	if len(l.by) != eventSAs || l.by[of(1)] != nil {
		t.Errorf("%d SAs have events; the one with the oldest is among them: %v", len(l.by), l.by[of(1)] != nil)
	}
}

// TestHelpIsWhole holds the help screen and the documentation against the keys and the columns.
func TestHelpIsWhole(t *testing.T) {
	m := New(Options{})
	m.width = 200
	help := strings.Join(m.helpLines(), "\n")
	page, err := os.ReadFile("../../docs/watch.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range allColumns {
		if !strings.Contains(help, c.title) {
			t.Errorf("the help does not explain %s", c.title)
		}
		if !strings.Contains(string(page), "`"+c.title) {
			t.Errorf("docs/watch.md does not explain %s", c.title)
		}
	}
	all := reflect.ValueOf(keys)
	for i := range all.NumField() {
		b := all.Field(i).Interface().(key.Binding)
		if !strings.Contains(help, b.Help().Desc) {
			t.Errorf("the help does not name %s", b.Help().Key)
		}
		for word := range strings.FieldsSeq(b.Help().Key) {
			if !strings.Contains(string(page), "`"+word+"`") {
				t.Errorf("docs/watch.md does not name the key %s", word)
			}
		}
	}
}

// BenchmarkFrame is a frame of a gateway with 10,000 SAs: filing it, and drawing the screen.
func BenchmarkFrame(b *testing.B) {
	s := crowded(10000)
	f := s.frame()
	b.Run("ledger", func(b *testing.B) { // observing, reporting and judging, which come before
		for b.Loop() {
			s.frame()
		}
	})
	b.Run("update", func(b *testing.B) {
		for b.Loop() {
			f.At = f.At.Add(time.Second)
			s.model.Update(f)
		}
	})
	b.Run("view", func(b *testing.B) {
		for b.Loop() {
			s.model.View()
		}
	})
}
