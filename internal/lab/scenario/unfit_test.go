// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	endian "encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/tunnel"
)

// SPIs at gateway B of TestUnfit, and the port of A's that goes into an SA of the other mode.
const (
	spiLarval  = 0x7001 // handed out, and no SA yet
	spiFailed  = 0x7002 // of a negotiation that failed
	spiOtherly = 0x7003 // transport mode at A, tunnel mode at B
	spiSealed  = 0x7004 // an SA of tunnel mode whose packets the test makes itself
	portOther  = 9200
)

// sealer makes packets of an SA under rfc4106(gcm(aes)).
type sealer struct {
	aead cipher.AEAD
	key  []byte // and behind it the salt (RFC 4106 section 8.1)
}

func newSealer() (*sealer, error) {
	s := &sealer{key: make([]byte, 20)}
	if _, err := rand.Read(s.key); err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(s.key[:16])
	if err != nil {
		return nil, err
	}
	s.aead, err = cipher.NewGCM(block)
	return s, err
}

// seal gives IV, ciphertext and ICV of a packet that says of itself that it has so much padding.
func (s *sealer) seal(spi, seq uint32, inside []byte, padding, padLength int, next byte) []byte {
	for i := range padding {
		inside = append(inside, byte(1+i)) // RFC 4303 section 2.4
	}
	inside = append(inside, byte(padLength), next)
	header := endian.BigEndian.AppendUint32(endian.BigEndian.AppendUint32(nil, spi), seq)
	iv := endian.BigEndian.AppendUint64(nil, uint64(seq))
	return s.aead.Seal(iv, append(bytes.Clone(s.key[16:]), iv...), inside, header)
}

// datagram is an IPv4 packet with UDP inside, without a UDP checksum.
func datagram(src, dst netip.Addr, port uint16, payload int) []byte {
	b := make([]byte, 28+payload)
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_UDP
	endian.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(endian.BigEndian.Uint16(b[i:]))
	}
	sum = sum&0xffff + sum>>16
	endian.BigEndian.PutUint16(b[10:], ^uint16(sum+sum>>16))
	endian.BigEndian.PutUint16(b[20:], port)
	endian.BigEndian.PutUint16(b[22:], port)
	endian.BigEndian.PutUint16(b[24:], uint16(8+payload))
	return b
}

// unfitLab gives gateway B what its packets will not fit. The reserved SAs stay for the time of the test.
func unfitLab(s *sealer) func(*tunnel.Tunnel) error {
	return func(tun *tunnel.Tunnel) error {
		a, b := tun.A, tun.B
		other, err := newSealer()
		if err != nil {
			return err
		}
		state := func(spi int, mode string, key []byte, reqid uint32) string {
			return fmt.Sprintf("xfrm state add src %s dst %s proto esp spi %#x reqid %d mode %s replay-window 32 aead rfc4106(gcm(aes)) 0x%s 128",
				a.Outer, b.Outer, spi, reqid, mode, hex.EncodeToString(key))
		}
		if err := errors.Join(b.Sysctl("core/xfrm_acq_expires", "3600"), a.IP(state(spiOtherly, "transport", other.key, 203),
			fmt.Sprintf("xfrm policy add src %s/32 dst %s/32 proto 17 dport %d dir out tmpl proto esp reqid 203 mode transport", a.Outer, b.Outer, portOther),
		), b.IP(state(spiOtherly, "tunnel", other.key, 203), state(spiSealed, "tunnel", s.key, tun.AtoB[0].ReqID),
			fmt.Sprintf("xfrm state allocspi src %s dst %s proto esp mode tunnel min %#x max %#x", a.Outer, b.Outer, spiLarval, spiLarval),
		)); err != nil {
			return err
		}
		return failedNegotiation(b, a.Outer)
	}
}

// failedNegotiation leaves an SA behind at a gateway that IKE has been asked for, has reserved an SPI for,
// and has given up on: its state is XFRM_STATE_ERROR until it is cleared away. The daemon's part is played
// over PF_KEY (RFC 2367), which alone can say that a negotiation failed (pfkey_acquire).
func failedNegotiation(g *tunnel.Gateway, peer netip.Addr) error {
	if err := g.IP("route add 10.8.9.0/24 via "+peer.String(), fmt.Sprintf("xfrm policy add src 0.0.0.0/0 dst 10.8.9.0/24 dir out tmpl src %s dst %s proto esp reqid 202 mode tunnel", g.Outer, g.Outer)); err != nil {
		return err
	}
	return g.Do(func() (err error) {
		const version = 2 // PF_KEY_V2
		fd, err := unix.Socket(unix.AF_KEY, unix.SOCK_RAW|unix.SOCK_CLOEXEC, version)
		if err != nil {
			return fmt.Errorf("open PF_KEY socket: %w", err)
		}
		defer func() { err = errors.Join(err, unix.Close(fd)) }()
		timeout := unix.NsecToTimeval(patience.Nanoseconds())
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
			return err
		}
		const register, acquire = 7, 6
		message := func(kind, errno byte, seq uint32) []byte {
			m := []byte{version, kind, errno, 3 /* SADB_SATYPE_ESP */, 0, 0, 0, 0}
			endian.NativeEndian.PutUint16(m[4:], 2) // units of 8 octets
			m = endian.NativeEndian.AppendUint32(m, seq)
			return endian.NativeEndian.AppendUint32(m, uint32(unix.Getpid()))
		}
		if err := unix.Send(fd, message(register, 0, 1), 0); err != nil {
			return fmt.Errorf("register with PF_KEY: %w", err)
		}
		// Whether the socket may connect or not, its look-up has asked for an SA.
		if conn, err := net.Dial("udp", "10.8.9.1:9"); err == nil {
			if err := conn.Close(); err != nil {
				return err
			}
		}
		asked := make([]byte, 4096)
		for asked[1] != acquire {
			if _, _, err := unix.Recvfrom(fd, asked, 0); err != nil {
				return fmt.Errorf("wait for the acquire: %w", err)
			}
		}
		// ip turns the number's octets round.
		if err := g.IP(fmt.Sprintf("xfrm state allocspi src %s dst %s proto esp mode tunnel reqid 202 seq %#x min %#x max %#x",
			g.Outer, g.Outer, endian.BigEndian.Uint32(asked[8:]), spiFailed, spiFailed)); err != nil {
			return err
		}
		return unix.Send(fd, message(acquire, byte(unix.ETIMEDOUT), endian.NativeEndian.Uint32(asked[8:])), 0)
	})
}

// TestUnfit sends what gateway B cannot take for five reasons, each another number of times, beside packets
// that are built alike and fit: an SA that is only reserved, one whose negotiation failed (and which is for
// sending, from 6.10 on), one of another mode than the sender's, padding longer than its packet, and ESP too
// short for its header.
func TestUnfit(t *testing.T) {
	tunnel.Need(t)
	const larval, failed, otherly, badPadding, wellBuilt, short, clean = 8, 7, 11, 9, 6, 5, 20
	s, err := newSealer()
	if err != nil {
		t.Fatal(err)
	}
	b := openPrepared(t, tunnel.Options{}, unfitLab(s), nil)
	a, here := b.tunnel.A, b.tunnel.B
	count := b.listen(here.Inner[0], 9102)
	craft := func(spi, seq uint32, payload []byte) {
		b.path.Send(inject.AtoB, inject.Crafted{SrcMAC: a.MAC, DstMAC: here.MAC, Src: a.Outer, Dst: here.Outer, SPI: spi, Seq: seq, Payload: payload})
		time.Sleep(pace)
	}
	b.send(b.tunnel.AtoB[0], clean)
	for seq := range uint32(larval) {
		craft(spiLarval, 1+seq, bytes.Repeat([]byte{0x5a}, 120))
	}
	for seq := range uint32(failed) {
		craft(spiFailed, 1+seq, bytes.Repeat([]byte{0x5a}, 120))
	}
	b.throw(a, a.Outer, netip.AddrPortFrom(here.Outer, portOther), otherly)
	inside := datagram(a.Inner[0], here.Inner[0], 9102, 100) // 128 octets, with padding and trailer 132
	for seq := range uint32(badPadding + wellBuilt) {
		padLength := 2
		if seq < badPadding {
			padLength = 200
		}
		craft(spiSealed, 1+seq, s.seal(spiSealed, 1+seq, bytes.Clone(inside), 2, padLength, unix.IPPROTO_IPIP))
	}
	b.must(a.Do(func() error {
		conn, err := net.DialIP("ip4:50", &net.IPAddr{IP: a.Outer.AsSlice()}, &net.IPAddr{IP: here.Outer.AsSlice()})
		if err != nil {
			return err
		}
		for range short {
			if _, err := conn.Write([]byte{0, 0, 0x70, 4}); err != nil {
				return errors.Join(err, conn.Close())
			}
		}
		return conn.Close()
	}))
	o := b.finish()

	// From 6.10 on SAs may have a direction: one that the kernel asked for is for sending, which is found out first.
	failure, verdict, says := "state_invalid", "sa-invalid", "7 packets met this SA which is in the SA database but not valid"
	if _, known := b.before["XfrmInStateDirError"]; known {
		failure, verdict, says = "state_dir_error", "sa-direction-mismatch", "7 packets met an SA that is for the other direction"
	}
	diff(t, "datagrams out of well-built packets", wellBuilt, count())
	b.checkStat(o, map[string]int64{
		"acquire_error": larval, failure: failed, "inner_mode_error": otherly, "proto_error": badPadding, "in_hdr_error": short,
	})
	b.checkIn(o, b.tunnel.AtoB[0], map[string]int64{})
	for _, w := range []struct {
		spi                              uint32
		cause                            string
		arrived, dropped, policy, passed int64
	}{
		{spiLarval, "acquire_error", larval, larval, 0, 0},
		{spiFailed, failure, failed, failed, 0, 0},
		{spiOtherly, "inner_mode_error", otherly, 0, otherly, 0},
		{spiSealed, "proto_error", badPadding + wellBuilt, badPadding, 0, wellBuilt},
	} {
		got := o.find(t, w.spi, "in")
		dropped := w.dropped + w.policy
		diff(t, "causes of "+name(w.spi), cause(w.cause, dropped), nonzero(got.Xfrm))
		diff(t, "bins of "+name(w.spi)+": arrived, dropped by xfrm, decapsulated, dropped by policy, delivered, unattributed",
			[]int64{w.arrived, w.dropped, w.policy + w.passed, w.policy, w.passed, 0},
			values(got.Ledger.Arrivals, got.Ledger.XfrmDropped, got.Ledger.Decapsulated, got.Ledger.PolicyDropped, got.Ledger.Delivered, got.Ledger.Unattributed))
	}
	o.checkFindings(t, "sa-larval "+name(spiLarval), verdict+" "+name(spiFailed), "sa-mode-disagreement "+name(spiOtherly),
		"packet-malformed "+name(spiSealed), "packet-malformed")
	o.says(t, "sa-larval", spiLarval, "8 packets met an SA that is only reserved")
	o.says(t, verdict, spiFailed, says)
	o.says(t, "sa-mode-disagreement", spiOtherly, "11 packets", "in tunnel mode here")
	o.says(t, "packet-malformed", spiSealed, "9 packets", "padding or trailer")
	o.checkSays(t, "packet-malformed", "5 packets were dropped, because no SPI and number could be read from them")
	o.checkSelf(t)
}
