// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"testing"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/tunnel"
)

// limitedSAs gives gateway B inbound SAs of other peers that reach their soft limits so many seconds apart.
func limitedSAs(count, apart int) func(*tunnel.Tunnel) error {
	return func(t *tunnel.Tunnel) error {
		lines := make([]string, count)
		for i := range lines {
			key := make([]byte, 20)
			if _, err := rand.Read(key); err != nil {
				return err
			}
			soft := 600 + i*apart
			lines[i] = fmt.Sprintf("xfrm state add src 198.51.100.%d dst %s proto esp spi %#x reqid %d mode tunnel replay-window 32 "+
				"aead rfc4106(gcm(aes)) 0x%s 128 limit time-soft %d limit time-hard %d",
				1+i, t.B.Outer, 0x5000+i, 100+i, hex.EncodeToString(key), soft, soft+300)
		}
		return t.B.IP(lines...)
	}
}

// TestSequenceAndStorm lets an outbound SA use up its 32-bit numbers, has an inbound one near their end,
// and 25 tunnels due to be renewed within a minute.
func TestSequenceAndStorm(t *testing.T) {
	tunnel.Need(t)
	const left, beyond = 100, 30
	b := openPrepared(t, tunnel.Options{LastSeq: 0xffffffff - left, Hosts: true}, limitedSAs(25, 1), nil)
	in, out := b.tunnel.AtoB[0], b.tunnel.BtoA[0]
	b.send(in, 20)
	b.send(out, left+beyond)
	o := b.finish()
	b.checkStat(o, cause("out_seq_error", beyond))
	got := o.find(t, out.SPI, "out")
	diff(t, "packets on the path", left, len(b.path.Truth(inject.BtoA, out.SPI).In))
	diff(t, "offered, refused, encapsulated, on the wire, unattributed", []int64{left + beyond, beyond, left, left, 0},
		[]int64{value(got.Ledger.Offered), value(got.Ledger.XfrmOutDropped), value(got.Ledger.Encapsulated), value(got.Ledger.OnWire), value(got.Ledger.Unattributed)})
	o.checkFindings(t, "sequence-exhausted "+name(out.SPI), "sequence-exhaustion-ahead "+name(in.SPI), "rekey-storm-ahead")
	o.checkSelf(t)
}

// TestNoSequenceNoStorm is its twin: numbers half used, and tunnels due one after the other.
func TestNoSequenceNoStorm(t *testing.T) {
	tunnel.Need(t)
	b := openPrepared(t, tunnel.Options{LastSeq: 0x80000000}, limitedSAs(25, 10), nil)
	b.send(b.tunnel.AtoB[0], 20)
	b.send(b.tunnel.BtoA[0], 20)
	o := b.finish()
	b.checkStat(o, nil)
	o.checkFindings(t)
	o.checkSelf(t)
}
