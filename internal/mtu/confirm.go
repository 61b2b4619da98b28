// SPDX-License-Identifier: Apache-2.0

package mtu

import "context"

// confirm makes sure of the two sizes that decide: a few lost packets must not pass for a limit. Between
// those of the size that is too big go packets of the one that fits, which tell how many get lost anyhow
// and whether the path is still what it was.
func (s *search) confirm(ctx context.Context) (done bool, err error) {
	bad, good := s.above(), s.good
	if bad == 0 {
		return true, nil
	}
	if told := s.sizes[bad].told; told != nil {
		if told.MTU == 0 || told.MTU == good {
			return true, nil
		}
		// A router that names another size than the one that was found is wrong, or the path has changed.
		err := s.ask(ctx, good, s.tries())
		return s.good == good, err
	}
	for missed := 0; s.certainty(bad) < 1-doubt || missed > 0; {
		if s.sizes[bad].since >= s.o.Tries+moreTries {
			return true, nil
		}
		before := s.at(good).passed
		if err := s.ask(ctx, good, 1); err != nil {
			return true, err
		}
		if s.at(good).passed > before {
			missed = 0
		} else if missed++; missed >= s.o.Tries && s.unlucky(missed) < likelier || missed == moreTries {
			return s.lower(ctx, good)
		}
		if s.good != good {
			return false, nil // a late answer, or a router that now says otherwise
		}
		if missed > 0 {
			continue
		}
		if err := s.ask(ctx, bad, 1); err != nil {
			return true, err
		}
		if s.good != good {
			return false, nil
		}
	}
	return true, nil
}

// lower finds out why a size that had passed does not any more.
func (s *search) lower(ctx context.Context, good int) (done bool, err error) {
	base, before := min(s.o.Base, s.o.Max), s.at(min(s.o.Base, s.o.Max)).passed
	if err := s.ask(ctx, base, baseTries); err != nil {
		return true, err
	}
	if good == base || s.at(base).passed == before || s.out.Restarts == restarts {
		s.out.Vanished = s.at(base).passed == before
		return true, nil
	}
	s.out.Restarts++
	s.fallen(good)
	return false, nil
}

// grown forgets the silence of larger sizes: the path has changed.
func (s *search) grown(size int) {
	if s.out.Restarts == restarts {
		return
	}
	s.out.Changed = true
	s.out.Restarts++
	for at, a := range s.sizes {
		if at > size && a.told == nil {
			*a = asked{sent: a.sent}
		}
	}
}

// unlucky is how probable it is that so many packets in a row got lost that fit, by what is known of the
// path's loss, which may be little: the chance of the next loss is (lost + 1) / (sent + 2) by the rule of
// succession, and each loss assumed makes another one likelier.
func (s *search) unlucky(n int) float64 {
	p := 1.0
	lost := s.fit.sent - s.fit.passed
	for i := range n {
		p *= float64(lost+1+i) / float64(s.fit.sent+2+i)
	}
	return p
}

// certainty is how sure it is that a silent size does not fit.
func (s *search) certainty(size int) float64 { return 1 - s.unlucky(s.at(size).since) }
