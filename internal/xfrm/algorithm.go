// SPDX-License-Identifier: Apache-2.0

package xfrm

import (
	"bytes"
	"slices"
	"strings"

	"xfrmscope/internal/ledger"
)

// readAlgorithm takes name and lengths from the head of an algorithm attribute. The key behind the
// head stays where it is: nothing here reads past sizeAlgo or sizeAlgoLong.
func (sa *SA) readAlgorithm(a *attributes) {
	size, kind := sizeAlgo, ""
	switch a.typ {
	case attrAlgAEAD:
		size, kind = sizeAlgoLong, "aead"
	case attrAlgAuthTrunc:
		size, kind = sizeAlgoLong, "authentication"
	case attrAlgAuth:
		kind = "authentication"
	case attrAlgCrypt:
		kind = "encryption"
	case attrAlgComp:
		kind = "compression"
	}
	if !a.need(size) {
		return
	}
	alg := ledger.Algorithm{
		Kind:    kind,
		Name:    algorithmName(a.data[:sizeAlgName]),
		KeyBits: int(u32(a.data[sizeAlgName:])),
	}
	if size == sizeAlgoLong {
		alg.ICVBits = int(u32(a.data[sizeAlgName+4:]))
	}

	// The kernel describes one authentication algorithm twice, first without and then with the length
	// of its ICV (copy_to_user_auth). Keep the one that says more.
	if i := slices.IndexFunc(sa.Algorithms, func(have ledger.Algorithm) bool { return have.Kind == kind }); i >= 0 {
		if alg.ICVBits != 0 {
			sa.Algorithms[i] = alg
		}
		return
	}
	sa.Algorithms = append(sa.Algorithms, alg)
}

// algorithmName copies a name up to its NUL, with anything unprintable made visible: it ends on
// terminals.
func algorithmName(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, string(b))
}
