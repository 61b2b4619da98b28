// SPDX-License-Identifier: Apache-2.0

package inject

import "time"

// policer drops what exceeds a rate, as a provider does: a token bucket without a queue.
type policer struct {
	rate   float64 // packets a second; 0: no limit
	tokens float64
	at     time.Time
}

// depth is how many packets may pass at once.
const depth = 4

func (p *policer) drops(now time.Time) bool {
	if p.rate == 0 {
		return false
	}
	p.tokens = min(depth, p.tokens+p.rate*now.Sub(p.at).Seconds())
	p.at = now
	if p.tokens < 1 {
		return true
	}
	p.tokens--
	return false
}

// Police limits an SA to so many packets a second from now on. How many that costs is in its Truth.
func (in *Injector) Police(d Direction, spi uint32, perSecond float64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.flow(d, spi).police = policer{rate: perSecond, tokens: depth, at: time.Now()}
}
