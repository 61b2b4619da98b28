// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// byteSize is a flag for a number of bytes: 1500, 64KiB, 100MiB, 2GiB; or 10MB, or in short 10M, for powers of ten.
type byteSize int64

var byteUnits = []struct {
	suffix string
	bytes  int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9},
	{"k", 1e3}, {"M", 1e6}, {"G", 1e9}, {"B", 1}, {"", 1}}

// Set reads a size.
func (b *byteSize) Set(s string) error {
	for _, u := range byteUnits {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.bytes {
			break
		}
		*b = byteSize(n * u.bytes)
		return nil
	}
	return fmt.Errorf("%q: want a number of bytes such as 1500, 64KiB, 100MiB or 500MB", s)
}

// String writes a size with the largest unit that divides it.
func (b *byteSize) String() string {
	n := int64(*b)
	for _, u := range []int{2, 5, 1, 4, 0, 3} {
		if unit := byteUnits[u]; n >= unit.bytes && n%unit.bytes == 0 {
			return strconv.FormatInt(n/unit.bytes, 10) + unit.suffix
		}
	}
	return strconv.FormatInt(n, 10)
}

// Type names the flag's type in its help.
func (b *byteSize) Type() string { return "bytes" }
