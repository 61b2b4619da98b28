// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// First SPIs of the two directions; pair n has the n-th after it. A reader of a failing test should
// see at a glance whose SA it is.
const (
	FirstSPIAtoB = 0xa2b00001
	FirstSPIBtoA = 0xb2a00001
)

// encapPort is the port of UDP encapsulation on both sides (RFC 3948 section 2).
const encapPort = 4500

// Octets of keys: of AES-128, of the salt of RFC 4106 section 8.1, of HMAC-SHA-256 (RFC 4868 section 2.1.1).
const (
	aesBytes  = 16
	saltBytes = 4
	hmacBytes = 32
)

// AddSAs installs what Options.NoSAs has left out, for who wants something to happen before.
func (t *Tunnel) AddSAs() error {
	t.Options.NoSAs = false
	return errors.Join(t.addEncapSockets(), t.addSAs())
}

// addEncapSockets opens what makes the kernel take ESP out of UDP: a socket of each gateway with
// UDP_ENCAP set. Nobody ever reads from it.
func (t *Tunnel) addEncapSockets() error {
	if !t.Options.UDP && !t.Options.EncapSocket || t.Options.NoSAs {
		return nil
	}
	for _, g := range []*Gateway{t.A, t.B} {
		if err := g.Do(func() error { return g.openEncapSocket(t.Options.Family) }); err != nil {
			return fmt.Errorf("open UDP encapsulation socket in %s: %w", g.Name, err)
		}
	}
	return nil
}

func (g *Gateway) openEncapSocket(family int) error {
	domain, addr := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: encapPort})
	if family == 6 {
		domain, addr = unix.AF_INET6, &unix.SockaddrInet6{Port: encapPort}
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err != nil {
		return err
	}
	g.encapSocket = fd
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_ENCAP, unix.UDP_ENCAP_ESPINUDP); err != nil {
		return err
	}
	return unix.Bind(fd, addr)
}

// addSAs installs every pair's two SAs and policies on both gateways.
func (t *Tunnel) addSAs() error {
	if t.Options.NoSAs {
		return nil
	}
	var linesA, linesB []string
	for pair := range t.Options.Pairs {
		out := SA{SPI: FirstSPIAtoB + uint32(pair), ReqID: uint32(1 + 2*pair), From: t.A, To: t.B,
			Src: t.A.Inner[pair], Dst: t.B.Inner[pair], ReplayWindow: t.Options.window(pair)}
		back := SA{SPI: FirstSPIBtoA + uint32(pair), ReqID: uint32(2 + 2*pair), From: t.B, To: t.A,
			Src: t.B.Inner[pair], Dst: t.A.Inner[pair], ReplayWindow: t.Options.window(pair)}
		t.AtoB, t.BtoA = append(t.AtoB, out), append(t.BtoA, back)
		for _, sa := range []SA{out, back} {
			sender, receiver, err := t.stateLines(sa)
			if err != nil {
				return err
			}
			if sa.From == t.A {
				linesA, linesB = append(linesA, sender), append(linesB, receiver)
			} else {
				linesA, linesB = append(linesA, receiver), append(linesB, sender)
			}
		}
		linesA = append(linesA, t.policyLine("out", out), t.policyLine("in", back))
		linesB = append(linesB, t.policyLine("out", back), t.policyLine("in", out))
		if t.Options.Hosts {
			linesA = append(linesA, t.policyLine("fwd", back))
			linesB = append(linesB, t.policyLine("fwd", out))
		}
	}
	if err := t.A.IP(linesA...); err != nil {
		return fmt.Errorf("install SAs: %w", err)
	}
	if err := t.B.IP(linesB...); err != nil {
		return fmt.Errorf("install SAs: %w", err)
	}
	return nil
}

// stateLines are the two ends' commands for one SA, with a fresh random key that is in both lines
// and afterwards in the kernel only.
func (t *Tunnel) stateLines(sa SA) (sender, receiver string, err error) {
	key := make([]byte, aesBytes+hmacBytes)
	if _, err := rand.Read(key); err != nil {
		return "", "", fmt.Errorf("draw a key: %w", err)
	}
	algorithms := "aead rfc4106(gcm(aes)) 0x" + hex.EncodeToString(key[:aesBytes+saltBytes]) + " 128"
	if t.Options.CBC {
		algorithms = "enc cbc(aes) 0x" + hex.EncodeToString(key[:aesBytes]) + " auth-trunc hmac(sha256) 0x" + hex.EncodeToString(key[aesBytes:]) + " 128"
	}
	line := fmt.Sprintf("xfrm state add src %s dst %s proto esp spi %#x reqid %d mode %s %s",
		sa.From.Outer, sa.To.Outer, sa.SPI, sa.ReqID, t.Options.Mode, algorithms)
	if !t.Options.NoReplay {
		line += fmt.Sprintf(" replay-window %d", sa.ReplayWindow)
	}
	if t.Options.ESN {
		line += " flag esn"
	}
	if t.Options.UDP {
		any := "0.0.0.0"
		if t.Options.Family == 6 {
			any = "::"
		}
		// Each end has its own view of the ports: between them may be a NAT.
		encap := func(from, to uint16) string { return fmt.Sprintf(" encap espinudp %d %d %s", from, to, any) }
		outside := t.Options.OutsidePortA
		if outside == 0 {
			outside = encapPort
		}
		if sa.From == t.A {
			sender, receiver = line+encap(encapPort, encapPort), line+encap(outside, encapPort)
		} else {
			sender, receiver = line+encap(encapPort, outside), line+encap(encapPort, encapPort)
		}
	} else {
		sender, receiver = line, line
	}
	if last := t.Options.LastSeq; last > 0 {
		sender += fmt.Sprintf(" replay-oseq %#x", last)
		receiver += fmt.Sprintf(" replay-seq %#x", last)
	}
	if t.Options.HardPackets > 0 {
		receiver += fmt.Sprintf(" limit packet-hard %d", t.Options.HardPackets)
	}
	return sender, receiver, nil
}

// policyLine is the policy that sends an SA's traffic through it, or expects it from it.
func (t *Tunnel) policyLine(direction string, sa SA) string {
	bits := 32
	if t.Options.Family == 6 {
		bits = 128
	}
	selector := fmt.Sprintf("src %s/%d dst %s/%d", sa.Src, bits, sa.Dst, bits)
	if t.Options.Mode == TransportMode {
		selector += fmt.Sprintf(" proto 17 dport %d", Port) // by number: a minimal guest has no list of protocols
	}
	return fmt.Sprintf("xfrm policy add %s dir %s tmpl src %s dst %s proto esp reqid %d mode %s",
		selector, direction, sa.From.Outer, sa.To.Outer, sa.ReqID, t.Options.Mode)
}

// Delete removes the SA from one gateway, as an administrator or a crashed IKE daemon would.
func (sa SA) Delete(g *Gateway) error {
	return g.IP(fmt.Sprintf("xfrm state delete src %s dst %s proto esp spi %#x", sa.From.Outer, sa.To.Outer, sa.SPI))
}

// Rekey lets another SA take over at both ends, as an IKE daemon would: the receiver has it first, then the
// sender, whose old one goes. The receiver's old one stays, so that nothing under way is lost; to Delete it
// is the caller's.
func (t *Tunnel) Rekey(old SA, spi uint32) (SA, error) {
	sa := old
	sa.SPI = spi
	sender, receiver, err := t.stateLines(sa)
	if err != nil {
		return SA{}, err
	}
	for _, step := range []func() error{
		func() error { return sa.To.IP(receiver) }, func() error { return sa.From.IP(sender) }, func() error { return old.Delete(old.From) },
	} {
		if err := step(); err != nil {
			return SA{}, fmt.Errorf("rekey SA %#x: %w", old.SPI, err)
		}
	}
	return sa, nil
}
