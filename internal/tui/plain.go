// SPDX-License-Identifier: Apache-2.0

package tui

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"xfrmscope/internal/report"
)

// Plain writes frames for a pipe: a line per SA and frame, in columns that do not change. What begins
// with # is for people: the names of the columns, findings as they begin and end, what it costs.
type Plain struct {
	w       io.Writer
	history history
	cost    cost
	before  *Frame
	said    map[findingKey]bool
	err     error
}

// NewPlain writes to w.
func NewPlain(w io.Writer) *Plain { return &Plain{w: w, said: map[findingKey]bool{}} }

// plainColumns are what a line holds, in order.
const plainColumns = "time spi dir src dst reqid name state pkt/s bit/s sent lost loss% late xfrm host inner unattributed"

// Write writes one frame. After an error it writes nothing more.
func (p *Plain) Write(f *Frame) error {
	p.cost.add(p.before, f)
	p.history.add(f)
	if p.before == nil {
		p.line("# %s", plainColumns)
	}
	at := f.At.Format("2006-01-02T15:04:05.000Z07:00")
	rows := saRows(&f.Report, &p.history)
	for i := range rows {
		p.row(at, &rows[i])
	}
	p.findings(at, f)
	p.status(at, f)
	p.before = f
	return p.err
}

func (p *Plain) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

func (p *Plain) row(at string, r *row) {
	loss := "-"
	if l, ok := r.lossPercent(); ok {
		loss = strconv.FormatFloat(l, 'f', 3, 64)
	}
	p.line("%s", strings.Join([]string{
		at, r.sa.SPI.String(), string(r.sa.Direction), addrOr(r.sa.Src), addrOr(r.sa.Dst), strconv.FormatUint(uint64(r.reqid), 10),
		word(r.name), string(r.state), strconv.FormatFloat(r.pps, 'f', 1, 64), strconv.FormatFloat(r.bps, 'f', 0, 64),
		r.sent.exact(), r.lost.exact(), loss, r.late.exact(), r.xfrm.exact(), r.host.exact(), r.inner.exact(), r.unattributed.exact(),
	}, " "))
}

// exact writes a count in full.
func (n num) exact() string {
	if n.is == known {
		return strconv.FormatInt(n.v, 10)
	}
	return n.text(0)
}

// word makes a name one field.
func word(s string) string {
	if s == "" {
		return "-"
	}
	return strings.Join(strings.Fields(s), "_")
}

// findings says which began and which ended.
func (p *Plain) findings(at string, f *Frame) {
	now := map[findingKey]bool{}
	for i := range f.Findings {
		g := &f.Findings[i]
		k := keyOf(g)
		if now[k] = true; !p.said[k] {
			p.line("# %s finding began: %s %s: %s", at, g.Severity, g.ID, report.Clean(g.Summary))
		}
	}
	if p.before != nil {
		for i := range p.before.Findings {
			if k := keyOf(&p.before.Findings[i]); !now[k] {
				p.line("# %s", strings.TrimSpace(fmt.Sprintf("%s finding ended: %s %s", at, k.id, k.subject)))
			}
		}
	}
	p.said = now
}

// status tells what it costs.
func (p *Plain) status(at string, f *Frame) {
	s := &f.Report.Self
	bpf := "ns_per_run=? bpf_percent=?"
	if p.cost.measured {
		bpf = fmt.Sprintf("ns_per_run=%.0f bpf_percent=%.2f", p.cost.nsPerRun, p.cost.percent)
	}
	bytes := "?"
	if s.MapBytes != nil {
		bytes = strconv.FormatUint(*s.MapBytes, 10)
	}
	p.line("# %s sas=%d findings=%d %s cpu_percent=%.2f map_bytes=%s events_lost=%d events_withheld=%d",
		at, len(f.Report.SAs), len(f.Findings), bpf, f.CPU, bytes, s.EventsLost, s.EventsSuppressed)
}

func packets(n int64) string {
	if n == 1 {
		return "1 packet"
	}
	return report.Group(n) + " packets"
}

// Summary is the last word, once the screen is gone.
func Summary(w io.Writer, f *Frame) error {
	var b strings.Builder
	r := &f.Report
	var lost, hidden int64
	for i := range r.SAs {
		row := saRow(&r.SAs[i], i, nil)
		lost += row.lost.v
		if row.unattributed.is == known {
			hidden += max(row.unattributed.v, -row.unattributed.v)
		}
	}
	took := f.At.Sub(r.Source.Start)
	fmt.Fprintf(&b, "xfrmscope: watched %s for %s: %s lost, %s unattributed; %s\n", plural(len(r.SAs), "SA"), lasting(took),
		packets(lost), report.Group(hidden), plural(len(f.Findings), "finding")+" over "+f.Scope)
	for i := range f.Findings {
		if i == 10 {
			fmt.Fprintf(&b, "  … and %d more\n", len(f.Findings)-i)
			break
		}
		g := &f.Findings[i]
		fmt.Fprintf(&b, "  %-8s %s: %s\n", g.Severity, g.ID, report.Clean(g.Summary))
	}
	if s := &r.Self; s.EventsLost > 0 || s.TableFull > 0 || s.RecursionMisses > 0 {
		fmt.Fprintf(&b, "  xfrmscope itself lost events: %d, packets without room in a table: %d, program runs: %d\n", s.EventsLost, s.TableFull, s.RecursionMisses)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
