// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"xfrmscope/internal/ledger"
)

// columns is the width that the text keeps to, commands excepted.
const columns = 100

// printer writes lines and remembers the first error, so that the layout reads as layout.
type printer struct {
	w     io.Writer
	width int // 0: columns
	err   error
}

func (p *printer) line(format string, args ...any) {
	if p.err != nil {
		return
	}
	_, p.err = fmt.Fprintln(p.w, clean(strings.TrimRight(fmt.Sprintf(format, args...), " ")))
}

// wrap writes text behind a first indent and breaks it between words.
func (p *printer) wrap(first, rest, text string) {
	line, filled := first, false
	width := cmp.Or(p.width, columns)
	for word := range strings.FieldsSeq(clean(text)) {
		if filled && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			p.line("%s", line)
			line, filled = rest, false
		}
		if filled {
			line += " "
		}
		line += word
		filled = true
	}
	p.line("%s", line)
}

// pairs writes named counters behind a title.
func (p *printer) pairs(title string, m any) {
	var parts []string
	switch m := m.(type) {
	case map[string]int64:
		if m == nil {
			p.line("%snot readable", title)
			return
		}
		parts = pairsOf(m)
	case map[ledger.Cause]int64:
		parts = pairsOf(m)
	}
	if len(parts) == 0 {
		p.line("%snothing moved", title)
		return
	}
	p.wrap(title, strings.Repeat(" ", 4), strings.Join(parts, ", "))
}

// clean keeps names that come from files and namespaces from steering the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// group writes a number with its thousands apart.
func group(n int64) string {
	s := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}
