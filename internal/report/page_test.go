// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"bytes"
	"errors"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"xfrmscope/internal/ike"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
	"xfrmscope/internal/report"
)

// night is two minutes with something for every plot, and the SAs as they stood from second to second.
func night() (report.Document, *report.Series) {
	w := ledgertest.New()
	w.WatchPMTU()
	talk := w.IKE(0xa1)
	in, out := w.Inbound(0xc0ffee01, 64, false), w.Outbound(0xc0ffee02)
	branch := w.Inbound(0xc0ffee05, 32, false)
	branch.Entry.ReqID = 2
	old := in
	w.Names = []ledger.SAName{{Key: in.Key, ReqID: 1, Connection: "branch", Child: "lan", IKE: 0xa1}}
	second := func(i int) {
		in.Deliver(uint64(9000 + 900*(i%7) + 60*i))
		out.Send(uint64(7000 + 400*(i%5)))
		branch.Deliver(400)
		switch {
		case i >= 20 && i < 34:
			in.Lose(uint64(120 + 31*(i%4)))
		case i == 45:
			in.Reorder(14, 90)
			in.Reorder(60, 12)
			in.Reorder(220, 3)
			in.Repeat(8, 2)
		case i == 50:
			in.SoftExpire()
			talk.Exchange(ike.CreateChild, 3)
		case i == 51:
			in = w.Inbound(0xc0ffee03, 64, false).Announce()
			w.Names = append(w.Names, ledger.SAName{Key: in.Key, ReqID: 1, Connection: "branch", Child: "lan", IKE: 0xa1})
		case i == 53:
			old.End(ledger.EndDeleted)
			w.Tick(900 * time.Millisecond)
			old.Knock(40)
		case i > 70 && i < 82:
			out.Spill(uint64(20+i), "kfree_skb_list_reason", "QDISC_DROP")
		case i == 95:
			in.Swallow(70, "ip_error", "NOT_SPECIFIED", "")
			in.Block(90, ledger.NoPols)
			branch.Corrupt(30)
		case i == 100:
			out.Told(1400, 3)
			w.Learn(1400)
			out.TooBig("10.2.0.1", "10.1.0.1", 6, 1500, 1346, 12, 12, 0)
			out.TooBig("10.2.0.9", "10.1.0.1", 6, 1500, 1346, 14, 0, 4)
		}
	}
	l := ledger.New(ledger.Source{Kind: ledger.KindRecording, Name: "gw-a", Kernel: "6.1.0-56-amd64"})
	l.SetHooks([]ledger.Hook{{Name: "wire ingress eth0", Attached: true, Why: "xdp native"},
		{Name: "ip6_fragment", Why: "not a function that can be traced here", Costs: "IPv6 packets that are fragmented are counted by the kernel only"}})
	l.Observe(w.Snapshot())
	var moments []ledger.Report
	moments = append(moments, l.Report())
	for i := range 120 {
		w.Tick(time.Second)
		second(i)
		l.Observe(w.Snapshot())
		moments = append(moments, l.Report())
	}
	d := report.New(l.Report())
	s := report.NewSeries(d.Worth())
	for i := range moments {
		s.Add(ledgertest.Start.Add(time.Duration(i)*time.Second), moments[i].SAs)
	}
	return d, s
}

func page(t *testing.T, d report.Document, s *report.Series) string {
	t.Helper()
	var b bytes.Buffer
	if err := d.WriteHTML(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPageGolden(t *testing.T) {
	d, s := night()
	compare(t, "night.html", []byte(page(t, d, s)))
	var md bytes.Buffer
	if err := d.WriteMarkdown(&md); err != nil {
		t.Fatal(err)
	}
	compare(t, "night.md", md.Bytes())
}

// outline parses a page as a browser does, and gives its elements by name. What a browser would have to mend
// is an error.
func outline(t *testing.T, text string) map[string][]*html.Node {
	t.Helper()
	root, err := html.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]*html.Node{}
	var walk func(*html.Node)
	walk = func(n *html.Node) {
		if n.Type == html.ElementNode {
			out[n.Data] = append(out[n.Data], n)
		}
		for c := n.FirstChild; c != nil; c = c.NextSibling {
			walk(c)
		}
	}
	walk(root)
	// Each element that was written has to be in the tree, and none besides but those that HTML implies.
	tokens, open := html.NewTokenizer(strings.NewReader(text)), []string{}
	void := map[string]bool{"meta": true}
	for {
		switch tokens.Next() {
		case html.ErrorToken:
			if len(open) != 0 {
				t.Errorf("not closed: %v", open)
			}
			return out
		case html.StartTagToken:
			if name, _ := tokens.TagName(); !void[string(name)] {
				open = append(open, string(name))
			}
		case html.EndTagToken:
			name, _ := tokens.TagName()
			if len(open) == 0 || open[len(open)-1] != string(name) {
				t.Fatalf("</%s> closes %v", name, open)
			}
			open = open[:len(open)-1]
		}
	}
}

// reaches finds what would make a browser fetch something or run something.
var reaches = regexp.MustCompile(`(?i)https?://|//[a-z0-9-]+\.|\bsrc=|\bhref=.[^#]|url\(|@import|<script|<iframe|<object|<img|<link|\bon[a-z]+=`)

func TestPageStructure(t *testing.T) {
	d, s := night()
	text := page(t, d, s)
	all := outline(t, text)
	if m := reaches.FindString(strings.ReplaceAll(text, "src 10.", "")); m != "" {
		t.Errorf("the page refers to something outside: %q", m)
	}
	findings, svgs := 0, len(all["svg"])
	for _, n := range all["article"] {
		for _, a := range n.Attr {
			if a.Key == "class" && strings.Contains(a.Val, "finding") {
				findings++
			}
		}
	}
	if findings != len(d.Findings) || findings < 5 {
		t.Errorf("%d findings on the page, %d in the report", findings, len(d.Findings))
	}
	ids := map[string]bool{}
	for _, n := range all["section"] {
		ids[n.Attr[0].Val] = true
	}
	for _, id := range []string{"findings", "loss", "reordering", "rekeys", "mtu", "evidence", "ledger", "rest"} {
		if !ids[id] {
			t.Errorf("no section %s", id)
		}
	}
	// A plot of loss for each of the four SAs, one of reordering, one of rekeys, one of sizes.
	if svgs != 4+1+1+1 {
		t.Errorf("%d plots, want 7", svgs)
	}
	bars := map[string]int{}
	for _, n := range all["rect"] {
		for _, a := range n.Attr {
			if a.Key == "class" {
				bars[a.Val]++
			}
		}
	}
	// What happened has to be drawn: 14 seconds with loss on the path, 11 with drops at egress and one in the
	// host, 40 packets refused in the rekey, packets that did not fit.
	for class, want := range map[string]int{"f-path": 14, "f-host": 11, "f-inner": 1, "f-policy": 1, "f-gap": 1, "f-toobig": 1, "f-alive": 1, "f-gone": 1} {
		if bars[class] < want {
			t.Errorf("%d bars of class %s, want %d at least", bars[class], class, want)
		}
	}
}

// TestPlotsAddUp: what the series holds is what the ledger holds at its end.
func TestPlotsAddUp(t *testing.T) {
	d, s := night()
	for _, track := range s.Tracks {
		sum := map[string]int64{}
		packets := int64(0)
		for _, p := range track.Points {
			packets += p.Packets
			for name, n := range p.Lost {
				sum[name] += n
			}
		}
		for i := range d.SAs {
			sa := &d.SAs[i]
			if sa.SPI != track.Key.SPI {
				continue
			}
			if sa.Wire.Packets != packets {
				t.Errorf("%s: %d packets in the plot, %d in the ledger", sa.SPI, packets, sa.Wire.Packets)
			}
			if b := sa.Ledger.In; b != nil && (sum["lost on the path"] != *b.LostOnPath || sum["dropped by xfrm"] != *b.XfrmDropped) {
				t.Errorf("%s: %v in the plot, %d lost and %d dropped in the ledger", sa.SPI, sum, *b.LostOnPath, *b.XfrmDropped)
			}
		}
	}
}

// hostile is what somebody might call a connection, a host or a rule.
const hostile = "</pre></title><script>alert(1)</script>\"><img src=x onerror=alert(1)> | `x` ](http://evil.example/)\n# head\x1b[31m {{.}}"

// TestHostileReport: names come from other machines; on the page and in Markdown they are nothing but text.
func TestHostileReport(t *testing.T) {
	w := ledgertest.New()
	in := w.Inbound(0xc0ffee01, 32, false)
	in.Entry.Mode = hostile
	in.Entry.Algorithms[0].Name = hostile
	w.Names = []ledger.SAName{{Key: in.Key, ReqID: 1, Connection: hostile, Child: hostile}}
	l := ledger.New(ledger.Source{Kind: ledger.KindRecording, Name: hostile, Kernel: hostile, Netns: hostile})
	l.SetHooks([]ledger.Hook{{Name: hostile, Why: hostile, Costs: hostile}})
	l.Observe(w.Snapshot())
	w.Tick(time.Second)
	in.Deliver(1000)
	in.Lose(100)
	in.Swallow(10, hostile, hostile, hostile)
	l.Observe(w.Snapshot())
	r := l.Report()
	r.Notes = []string{hostile}
	r.Kernel.Disagreements = []string{hostile}
	d := report.New(r)
	for i := range d.Findings {
		d.Findings[i].Summary = hostile
		d.Findings[i].Remedy[0].Commands = []string{hostile, "```"}
		d.Findings[i].Evidence[0].Note = hostile
	}
	if len(d.Findings) == 0 {
		t.Fatal("no findings")
	}
	s := report.NewSeries(d.Worth())
	s.Add(ledgertest.Start, nil)
	s.Add(ledgertest.Start.Add(time.Second), r.SAs)
	text := page(t, d, s)
	all := outline(t, text)
	for _, name := range []string{"script", "img", "iframe"} {
		if len(all[name]) > 0 {
			t.Errorf("a name became a <%s>", name)
		}
	}
	if strings.Contains(text, "\x1b") || !strings.Contains(text, "&lt;script&gt;") {
		t.Error("the name is not on the page as text")
	}
	var md bytes.Buffer
	if err := d.WriteMarkdown(&md); err != nil {
		t.Fatal(err)
	}
	fenced, fence := false, ""
	for line := range strings.Lines(md.String()) {
		line = strings.TrimRight(line, "\n")
		switch {
		case !fenced && strings.HasPrefix(line, "```"):
			fenced, fence = true, line
			continue
		case fenced && line == fence:
			fenced = false
			continue
		case fenced:
			continue
		}
		for _, bad := range []string{"<script", "<img", "\x1b"} {
			if strings.Contains(line, bad) {
				t.Errorf("%q in Markdown: %s", bad, line)
			}
		}
		if strings.Contains(line, "](http") && !strings.Contains(line, `\](http`) {
			t.Errorf("a name became a link: %s", line)
		}
		if strings.HasPrefix(line, "# head") {
			t.Errorf("a name became a heading: %s", line)
		}
		if strings.HasPrefix(line, "|") {
			if cells := len(regexp.MustCompile(`(^|[^\\])\|`).FindAllString(line, -1)); cells != 5 {
				t.Errorf("%d bars in a row of a table: %s", cells, line)
			}
		}
	}
	if fenced {
		t.Error("a fence does not end")
	}
}

// TestPageOfLittle: every golden report makes a page and a Markdown text, with and without a series.
func TestPageOfLittle(t *testing.T) {
	for name, build := range goldens {
		t.Run(name, func(t *testing.T) {
			d := report.New(build())
			outline(t, page(t, d, nil))
			s := report.NewSeries(d.Worth())
			outline(t, page(t, d, s))
			s.Add(d.Source.Start, d.SAs)
			s.Add(d.Source.Start.Add(time.Hour), d.SAs)
			outline(t, page(t, d, s))
			if err := d.WriteMarkdown(&bytes.Buffer{}); err != nil {
				t.Error(err)
			}
		})
	}
	outline(t, page(t, report.New(ledger.New(ledger.Source{Kind: ledger.KindRecording}).Report()), nil))
}

func TestPageWriteError(t *testing.T) {
	d, s := night()
	if err := d.WriteHTML(&brokenPipe{left: 1000}, s); !errors.Is(err, errBroken) {
		t.Errorf("WriteHTML on a broken pipe: %v", err)
	}
	if err := d.WriteMarkdown(&brokenPipe{left: 1000}); !errors.Is(err, errBroken) {
		t.Errorf("WriteMarkdown on a broken pipe: %v", err)
	}
}

// TestPageOfMuch: a gateway with thousands of SAs that lose packets makes a page that can be read, and says
// what it leaves out.
func TestPageOfMuch(t *testing.T) {
	d := report.New(manySAs(1000, 1000))
	text := page(t, d, nil)
	all := outline(t, text)
	if len(text) > 1<<20 || len(all["article"]) > 100 {
		t.Errorf("%d bytes, %d articles", len(text), len(all["article"]))
	}
	var md bytes.Buffer
	if err := d.WriteMarkdown(&md); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"page": text, "Markdown": md.String()} {
		for _, part := range []string{"800 more findings", "940 more SAs that lost"} {
			if !strings.Contains(text, part) {
				t.Errorf("the %s does not say %q", name, part)
			}
		}
	}
}

// TestWorth: of many SAs those that lost most have plots, of a run without loss those that carried most.
func TestWorth(t *testing.T) {
	d := report.New(manySAs(60, 5))
	keys := d.Worth()
	if len(keys) != 8 {
		t.Fatalf("%d plots", len(keys))
	}
	for i, k := range keys[:5] {
		if k.SPI < 0x1000+60 {
			t.Errorf("plot %d is of %s, which lost nothing", i, k.SPI)
		}
	}
	if d := report.New(ledger.Report{SAs: []ledger.SA{{Dst: netip.MustParseAddr("::1")}}}); len(d.Worth()) != 0 {
		t.Error("an SA without a packet has a plot")
	}
}
