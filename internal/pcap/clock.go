// SPDX-License-Identifier: Apache-2.0

package pcap

import (
	"fmt"
	"math"
	"math/bits"
)

// clock turns an interface's time stamps into nanoseconds since 1970.
type clock struct {
	perSecond uint64 // ticks
	offset    int64  // seconds
}

// microseconds is the clock of interfaces that tell none.
var microseconds = clock{perSecond: 1e6}

// resolution takes the option if_tsresol: a negative power of 10, or of 2 with the highest bit set.
func (c *clock) resolution(v byte) error {
	exponent := int(v & 0x7f)
	if v&0x80 != 0 {
		if exponent > 63 {
			return fmt.Errorf("time stamps in units of 2^-%d s", exponent)
		}
		c.perSecond = 1 << exponent
		return nil
	}
	if exponent > 19 {
		return fmt.Errorf("time stamps in units of 10^-%d s", exponent)
	}
	c.perSecond = 1
	for range exponent {
		c.perSecond *= 10
	}
	return nil
}

// lastSecond is the last whole second that fits.
const lastSecond = math.MaxInt64/1_000_000_000 - 1

// nanoseconds gives the largest time for what is beyond it, in the year 2262.
func (c *clock) nanoseconds(ticks uint64) int64 {
	seconds, rest := ticks/c.perSecond, ticks%c.perSecond
	if seconds > lastSecond {
		return math.MaxInt64
	}
	hi, lo := bits.Mul64(rest, 1e9) // rest < perSecond, so the quotient is below 1e9
	fraction, _ := bits.Div64(hi, lo, c.perSecond)
	total := int64(seconds) + c.offset
	if c.offset > lastSecond || total > lastSecond {
		return math.MaxInt64
	}
	return max(total, 0)*1e9 + int64(fraction)
}
