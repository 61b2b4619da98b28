// SPDX-License-Identifier: Apache-2.0

package swan

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Initiate negotiates the connection from A; it is up at both ends when this returns.
func (p *Pair) Initiate() error {
	if _, err := p.A.Swanctl("--initiate", "--ike", Connection, "--child", Child, "--timeout", "30"); err != nil {
		return err
	}
	// The responder has installed its SAs before it answered, but the test reads both kernels.
	return Until("the tunnel", func() (bool, error) {
		a, b, err := p.SAs()
		return len(a) == 2 && len(b) == 2, err
	})
}

// Terminate closes the connection from A, as the daemon does it: with a delete that is answered.
func (p *Pair) Terminate() error {
	if _, err := p.A.Swanctl("--terminate", "--ike", Connection, "--timeout", "30"); err != nil {
		return err
	}
	return Until("the end of the tunnel", func() (bool, error) {
		a, b, err := p.SAs()
		return len(a) == 0 && len(b) == 0, err
	})
}

// Abandon makes both daemons forget the connection, whether the other end answers or not.
func (p *Pair) Abandon() error {
	var refused error
	for _, peer := range []*Peer{p.A, p.B} {
		// The command fails where there is nothing to forget, and where the peer does not answer.
		_, err := peer.Swanctl("--terminate", "--ike", Connection, "--force", "--timeout", "1")
		refused = errors.Join(refused, err)
	}
	err := Until("the end of the tunnel", func() (bool, error) {
		a, b, err := p.SAs()
		return len(a) == 0 && len(b) == 0, err
	})
	if err != nil {
		return errors.Join(err, refused)
	}
	return nil
}

// SA is one of the daemon's SAs in a gateway's kernel, by what identifies it.
type SA struct {
	SPI      uint32
	Src, Dst string
}

// SAs lists the SAs of both kernels.
func (p *Pair) SAs() (a, b []SA, err error) {
	if a, err = p.A.SAs(); err != nil {
		return nil, nil, err
	}
	b, err = p.B.SAs()
	return a, b, err
}

// saPattern matches the first two lines of an SA in the kernel's listing.
var saPattern = regexp.MustCompile(`src (\S+) dst (\S+)\s+proto esp spi 0x([0-9a-f]+)`)

// SAs lists the ESP SAs that the gateway's kernel has, sorted by SPI, larval ones left out: those have
// no algorithm yet.
func (p *Peer) SAs() ([]SA, error) {
	out, err := p.Output("xfrm", "state", "list", "nokeys", "proto", "esp")
	if err != nil {
		return nil, fmt.Errorf("list SAs: %w", err)
	}
	return parseSAs(out)
}

func parseSAs(out string) ([]SA, error) {
	var sas []SA
	for _, text := range strings.Split("\n"+out, "\nsrc ")[1:] {
		if !strings.Contains(text, "aead ") && !strings.Contains(text, "auth-trunc ") {
			continue
		}
		m := saPattern.FindStringSubmatch("src " + text)
		if m == nil {
			return nil, fmt.Errorf("list SAs: ip printed a form that this reader does not know: %q", text)
		}
		spi, err := strconv.ParseUint(m[3], 16, 32)
		if err != nil {
			return nil, fmt.Errorf("list SAs: %w", err)
		}
		sas = append(sas, SA{SPI: uint32(spi), Src: m[1], Dst: m[2]})
	}
	slices.SortFunc(sas, func(x, y SA) int { return int(int64(x.SPI) - int64(y.SPI)) })
	return sas, nil
}

// Delete removes the SA from the gateway's kernel behind the daemon's back.
func (p *Peer) Delete(sa SA) error {
	return p.IP(fmt.Sprintf("xfrm state delete src %s dst %s proto esp spi %#x", sa.Src, sa.Dst, sa.SPI))
}

// RekeyChild lets one end replace the CHILD_SA, and waits until both kernels have new SAs and no old
// ones. The daemons keep an old inbound SA for a while, for packets that are still under way.
func (p *Pair) RekeyChild(from *Peer) error {
	before, _, err := p.SAs()
	if err != nil {
		return err
	}
	if err := from.BeginRekeyChild(); err != nil {
		return err
	}
	return p.Rekeyed(before)
}

// BeginRekeyChild lets the daemon begin to replace the CHILD_SA.
func (p *Peer) BeginRekeyChild() error {
	_, err := p.Swanctl("--rekey", "--child", Child)
	return err
}

// Rekeyed waits until both kernels have SAs other than those before, and only those.
func (p *Pair) Rekeyed(before []SA) error {
	return Until("the new CHILD_SA", func() (bool, error) {
		a, b, err := p.SAs()
		return len(a) == 2 && slices.Equal(a, b) && !slices.Equal(a, before), err
	})
}

// RekeyIKE replaces the IKE SA from A and waits until both daemons have the new one only. The SAs of
// ESP stay as they are.
func (p *Pair) RekeyIKE() error {
	before, err := p.A.ikeSPIs()
	if err != nil {
		return err
	}
	if _, err := p.A.Swanctl("--rekey", "--ike", Connection); err != nil {
		return err
	}
	return Until("the new IKE SA", func() (bool, error) {
		a, errA := p.A.ikeSPIs()
		b, errB := p.B.ikeSPIs()
		return len(a) == 1 && slices.Equal(a, b) && !slices.Equal(a, before), errors.Join(errA, errB)
	})
}

// ikePattern matches an IKE SA in the listing of swanctl: the names and states, and then both SPIs.
var ikePattern = regexp.MustCompile(`ESTABLISHED, IKEv2, ([0-9a-f]{16})_i\*? ([0-9a-f]{16})_r`)

// ikeSPIs lists the IKE SAs that the daemon has established, each by its two SPIs.
func (p *Peer) ikeSPIs() ([]string, error) {
	out, err := p.Swanctl("--list-sas")
	if err != nil {
		return nil, err
	}
	return parseIKE(out), nil
}

func parseIKE(out string) (spis []string) {
	for _, m := range ikePattern.FindAllStringSubmatch(out, -1) {
		spis = append(spis, m[1]+m[2])
	}
	return spis
}
