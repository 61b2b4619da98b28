// SPDX-License-Identifier: Apache-2.0

package mtu

import (
	"fmt"
	"io"
	"strings"
)

// columns is the width of a line of text; commands are never broken.
const columns = 100

// WriteText writes the document for a person at a terminal.
func (d Document) WriteText(w io.Writer) error {
	p := &printer{}
	p.tunnel(&d)
	p.side("Outside the tunnel", d.Outside, d.NotOutside)
	p.side("Inside the tunnel", d.Inside, d.NotInside)
	p.inner(&d)
	p.verdict(&d)
	_, err := io.WriteString(w, p.String())
	return err
}

type printer struct{ strings.Builder }

// line writes words, broken at the width; further lines are indented as told.
func (p *printer) line(first, next, text string) {
	at, start := first, true
	for word := range strings.FieldsSeq(text) {
		if !start && len(at)+1+len(word) > columns {
			fmt.Fprintln(p, at)
			at, start = next, true
		}
		if !start {
			at += " "
		}
		at += word
		start = false
	}
	fmt.Fprintln(p, at)
}

func (p *printer) tunnel(d *Document) {
	t := d.Tunnel
	if t == nil {
		return
	}
	text := fmt.Sprintf("%s to %s", t.Local, t.Gateway)
	if t.SPI != nil {
		text += fmt.Sprintf(", SA %s, reqid %d, %s mode", *t.SPI, t.ReqID, t.Mode)
		if t.Encap != "none" {
			text += ", ESP in " + strings.ToUpper(string(t.Encap))
		}
	}
	if o := t.Overhead; o != nil {
		text += fmt.Sprintf("; the SA adds at most %d octets to a packet", o.Most())
	}
	p.line("Tunnel: ", "  ", text)
	fmt.Fprintln(p)
}

func (p *printer) side(title string, s *SideDoc, why string) {
	if s == nil {
		if why != "" {
			p.line(title+": ", "  ", "not measured: "+why)
			fmt.Fprintln(p)
		}
		return
	}
	how := "ICMP echo"
	if s.UDPPort != 0 {
		how = fmt.Sprintf("UDP port %d", s.UDPPort)
	}
	p.line(title+": ", "  ", fmt.Sprintf("%s to %s by %s through %s", s.Src, s.Dst, how, s.Route.Device))
	p.line("  ", "    ", s.finding())
	sent := fmt.Sprintf("%d packets sent, %d without an answer", s.Packets, s.Unanswered)
	if s.Lost > 0 {
		sent += fmt.Sprintf(" (of them %d that fit: lost on the way)", s.Lost)
	}
	if s.Answered {
		sent += fmt.Sprintf("; round trip %.1f ms", s.RTTms)
	}
	p.line("  ", "    ", sent)
	p.line("  ", "    ", fmt.Sprintf("the kernel goes by %d octets there (%s)", s.Route.MTU, s.Route.origin()))
	fmt.Fprintln(p)
}

// finding says in a sentence what a measurement found.
func (s *SideDoc) finding() string {
	switch {
	case !s.Answered && s.Unreachable != "":
		return "nobody answers, and on the way somebody says: " + s.Unreachable
	case !s.Answered:
		return "nobody answers, whatever the size"
	case s.Limit == LimitUnknown && s.FailsAt == 0:
		return fmt.Sprintf("%d octets pass; what does not is not known", s.MTU)
	case s.Limit == LimitUnknown:
		return fmt.Sprintf("%d octets pass and %d do not; what is between them is not known", s.MTU, s.FailsAt)
	case s.Limit == LimitNone:
		return fmt.Sprintf("MTU %d: the largest packet that %s takes passes", s.MTU, s.Route.Device)
	case s.Limit == LimitAsked:
		return fmt.Sprintf("MTU %d or more: larger packets were not to be tried", s.MTU)
	case s.Limit == LimitHost:
		return fmt.Sprintf("MTU %d: this host itself sends no more", s.MTU)
	case s.Limit == LimitRouter:
		return fmt.Sprintf("MTU %d: larger packets are refused by %s, which says so", s.MTU, s.LimitBy)
	}
	return fmt.Sprintf("MTU %d: packets of %d octets disappear, and nobody says so (a black hole, %.1f %% sure)", s.MTU, s.FailsAt, 100*s.Confidence)
}

func (p *printer) inner(d *Document) {
	n := d.Inner
	if n == nil || n.Measured == 0 && n.Computed == 0 {
		return
	}
	var parts []string
	if n.Measured > 0 {
		parts = append(parts, fmt.Sprintf("%d measured", n.Measured))
	}
	if n.Computed > 0 {
		parts = append(parts, fmt.Sprintf("%d computed from the outer MTU and the SA's algorithms", n.Computed))
	}
	text := strings.Join(parts, ", ")
	if n.Agree != nil && *n.Agree {
		text += ": they agree"
	} else if n.Agree != nil {
		text += ": they differ"
	}
	p.line("Inner MTU: ", "  ", fmt.Sprintf("%s; this host lets %d through", text, n.Believed))
}

func (p *printer) verdict(d *Document) {
	if s := d.Set; s != nil {
		p.line("To set: ", "  ", fmt.Sprintf("MTU %d, TCP MSS %d for IPv4 and %d for IPv6", s.MTU, s.MSS4, s.MSS6))
	}
	for _, n := range d.Notes {
		p.line("Note: ", "  ", n)
	}
	switch {
	case d.Fits == nil:
		return
	case *d.Fits:
		p.line("", "", "The path carries what is set: nothing needs to be changed.")
		return
	}
	fmt.Fprintln(p)
	p.line("", "", "Something needs to be changed:")
	for _, r := range d.Reasons {
		p.line("  - ", "    ", r)
	}
	fmt.Fprintln(p)
	for _, r := range d.Remedy {
		p.line("  "+r.For+": ", "    ", r.Text)
		for _, c := range r.Commands {
			fmt.Fprintf(p, "      %s\n", c)
		}
	}
}
