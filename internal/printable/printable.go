// SPDX-License-Identifier: Apache-2.0

// Package printable keeps names that others gave from steering the terminal that they are shown on: of devices and
// namespaces, which a container may choose, and those in files.
package printable

import (
	"strings"
	"unicode"
)

// Name is a name with a question mark for each character that is not printable: controls, marks of writing direction,
// blanks but the plain one.
func Name(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
