// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/verdict"
)

//go:embed page.tmpl
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// page is what the template shows. It holds text only: the template escapes all of it.
type page struct {
	Title    string
	Facts    []string
	Notes    []string
	Tiles    []tile
	Findings []card
	More     string
	Open     string
	Loss     []plot
	LossNote string
	Reorder  []plot
	Rekeys   *plot
	MTU      *plot
	Sums     []sum
	MoreSums string
	Healthy  []string
	SANotes  string
	Texts    []section
}

// tile is one figure at the top.
type tile struct{ Class, Value, Name string }

// card is one finding.
type card struct {
	Severity, ID, Confidence, Summary string
	Full                              bool // with evidence and remedies
	Evidence                          []figure
	Remedy                            []verdict.Remedy
	Explains                          []string
}

// figure is one piece of evidence.
type figure struct{ Counter, Value, Source, Note string }

// sum is one SA's ledger.
type sum struct {
	Name, Traits string
	Steps        []sumStep
}

type sumStep struct{ Sign, Name, Value, Remark, Class string }

// section is a part of the text report, for what has no better form.
type section struct{ Title, Text string }

// WriteHTML writes one page that refers to nothing outside of itself. The series may be nil: then there are
// no plots over time.
func (d Document) WriteHTML(w io.Writer, s *Series) error {
	p := page{Title: "xfrmscope: " + clean(strings.Join(titleOf(&d), ", ")), Facts: facts(&d)}
	for _, n := range d.Notes {
		p.Notes = append(p.Notes, clean(n))
	}
	p.Tiles = tiles(&d)
	shown := map[verdict.ID]int{}
	for i := range d.Findings {
		if i == findingsMax {
			p.More = fmt.Sprintf("… and %d more findings; the JSON report has them all.", len(d.Findings)-i)
			break
		}
		c := cardOf(&d.Findings[i])
		shown[d.Findings[i].ID]++
		c.Full = shown[d.Findings[i].ID] <= fullPerKind
		p.Findings = append(p.Findings, c)
	}
	p.Open = sectionText(func(p *printer) { p.open(&d) })
	p.plots(&d, s)
	unsummed := 0
	for i := range d.SAs {
		sa := &d.SAs[i]
		if suffers(sa) && len(p.Sums) < sumsMax {
			p.Sums = append(p.Sums, sumOf(&d, sa))
		} else if suffers(sa) {
			unsummed++
		} else if len(p.Healthy) < healthyShown {
			p.Healthy = append(p.Healthy, clean(saName(sa)+": "+healthyLine(sa)))
		} else if len(p.Healthy) == healthyShown {
			p.Healthy = append(p.Healthy, "… and more; the JSON report has them all")
		}
	}
	if unsummed > 0 {
		p.MoreSums = fmt.Sprintf("… and %d more SAs that lost or dropped packets; the JSON report has them all.", unsummed)
	}
	p.SANotes = sectionText(func(p *printer) { p.strangers(d.UnknownSPIs); p.saNotes(d.SAs) })
	p.Texts = sections(&d)
	if err := pageTemplate.Execute(w, p); err != nil {
		return fmt.Errorf("write page: %w", err)
	}
	return nil
}

// A page is for reading: what these bounds leave out is in the JSON report, and the page says so.
const (
	findingsMax  = 200
	sumsMax      = 60
	healthyShown = 400
)

func titleOf(d *Document) []string {
	parts := []string{d.Source.Kind}
	if d.Source.Name != "" {
		parts = append(parts, d.Source.Name)
	}
	return parts
}

// facts are the head of the page.
func facts(d *Document) []string {
	var out []string
	s := &d.Source
	if s.Kernel != "" {
		out = append(out, "kernel "+s.Kernel)
	}
	if s.Netns != "" {
		out = append(out, "network namespace "+s.Netns)
	}
	if !s.Start.IsZero() {
		end := s.Start.Add(time.Duration(s.DurationS * float64(time.Second)))
		out = append(out, fmt.Sprintf("%s to %s (%.1f s)", s.Start.Format("2006-01-02 15:04:05"), end.Format("15:04:05 MST"), s.DurationS))
	}
	for i := range out {
		out[i] = clean(out[i])
	}
	return out
}

// tiles are the run in a few figures.
func tiles(d *Document) []tile {
	count := map[verdict.Severity]int{}
	for i := range d.Findings {
		count[d.Findings[i].Severity]++
	}
	var out []tile
	for _, s := range []verdict.Severity{verdict.Critical, verdict.Warning, verdict.Info} {
		if n := count[s]; n > 0 {
			out = append(out, tile{string(s), fmt.Sprint(n), string(s)})
		}
	}
	if len(out) == 0 {
		out = append(out, tile{"good", "0", "findings"})
	}
	var arrived, left, path, host, unproven int64
	for i := range d.SAs {
		sa := &d.SAs[i]
		if b := sa.Ledger.In; b != nil {
			arrived += zeroIfNil(b.Arrivals)
		}
		if b := sa.Ledger.Out; b != nil {
			left += zeroIfNil(b.OnWire)
		}
		for name, n := range lostBins(sa) {
			switch name {
			case binPath:
				path += n
			case binUnproven:
				unproven += max(n, -n)
			default:
				host += n
			}
		}
	}
	return append(out,
		tile{"", group(int64(len(d.SAs))), "SAs"}, tile{"", group(arrived), "packets arrived"}, tile{"", group(left), "packets sent"},
		tile{"", group(path), "lost on the path"}, tile{"", group(host), "lost or dropped here"}, tile{"", group(unproven), "unattributed"})
}

func zeroIfNil(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

func cardOf(f *verdict.Finding) card {
	c := card{
		Severity: string(f.Severity), ID: string(f.ID), Confidence: fmt.Sprintf("%.0f", 100*f.Confidence), Summary: clean(f.Summary),
	}
	for _, e := range f.Evidence {
		c.Evidence = append(c.Evidence, figure{clean(e.Counter), clean(group(e.Value) + " " + unit(e)), clean(e.Source), clean(e.Note)})
	}
	for _, r := range f.Remedy {
		m := verdict.Remedy{For: clean(r.For), Text: clean(r.Text)}
		for _, command := range r.Commands {
			m.Commands = append(m.Commands, clean(command))
		}
		c.Remedy = append(c.Remedy, m)
	}
	for _, id := range f.Consequences {
		c.Explains = append(c.Explains, string(id))
	}
	return c
}

func (p *page) plots(d *Document, s *Series) {
	if s != nil && s.To.After(s.From) {
		c := clock{s.From, s.To}
		at := map[ledger.SAKey]*ledger.SA{}
		for i := range d.SAs {
			at[keyOf(&d.SAs[i])] = &d.SAs[i]
		}
		for i := range s.Tracks {
			if sa := at[s.Tracks[i].Key]; sa != nil && len(s.Tracks[i].Points) > 0 {
				p.Loss = append(p.Loss, lossPlot(sa, &s.Tracks[i], c))
			}
		}
		if n := len(d.SAs) - len(p.Loss); n > 0 && len(p.Loss) > 0 {
			p.LossNote = fmt.Sprintf("The SAs that lost or else carried most; %d more are in the ledger below.", n)
		}
		if r, ok := rekeyPlot(d, c); ok {
			p.Rekeys = &r
		}
	}
	for i := range d.SAs {
		if len(p.Reorder) == plotted {
			break
		}
		if r, ok := reorderPlot(&d.SAs[i]); ok {
			p.Reorder = append(p.Reorder, r)
		}
	}
	if m, ok := mtuPlot(d); ok {
		p.MTU = &m
	}
}

func sumOf(d *Document, sa *ledger.SA) sum {
	out := sum{Name: clean(saName(sa)), Traits: clean(strings.Join(traits(sa), ", "))}
	all := steps(d, sa)
	for i := range all {
		s := &all[i]
		if !s.shown() {
			continue
		}
		class := ""
		switch {
		case s.sign == "=" || s.sign == "":
			class = "total"
		case s.n != nil && *s.n != 0 && s.sign == "-":
			class = "bad"
		}
		out.Steps = append(out.Steps, sumStep{s.sign, s.name, bin(s.n), clean(s.text()), class})
	}
	return out
}

// sections are the rest of the report, as the text has it.
func sections(d *Document) []section {
	var out []section
	add := func(title string, fn func(*printer)) {
		if text := strings.TrimSpace(sectionText(fn)); text != "" {
			out = append(out, section{title, text})
		}
	}
	add("Drops outside xfrm", func(p *printer) { p.drops(d); p.refusals(d.Refusals) })
	add("TCP inside the tunnels", func(p *printer) { p.flows(d.Flows) })
	add("Path MTU", func(p *printer) { p.pmtu(d.PMTU) })
	add("ESP in UDP", func(p *printer) { p.nat(d.NAT) })
	add("IKE and rekeys", func(p *printer) { p.ike(d) })
	add("Host", func(p *printer) { p.host(d.Host); p.latency(d.SAs) })
	if d.Source.Kind != ledger.KindCapture {
		add("Reconciliation", func(p *printer) { p.kernel(&d.Kernel) })
	}
	add("Hooks", func(p *printer) { p.hooks(d.Hooks) })
	add("xfrmscope itself", func(p *printer) { p.self(&d.Self) })
	return out
}

// sectionText is what a part of the text report prints. A buffer takes everything.
func sectionText(fn func(*printer)) string {
	var b bytes.Buffer
	fn(&printer{w: &b})
	return strings.TrimRight(b.String(), "\n")
}
