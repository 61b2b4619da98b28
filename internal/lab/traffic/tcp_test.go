// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"net/netip"
	"testing"
	"time"
)

// A reader that pauses holds the writer up, and takes everything once it goes on.
func TestTCPPause(t *testing.T) {
	here := func(f func() error) error { return f() }
	lo := netip.MustParseAddr("127.0.0.1")
	c, err := OpenTCP(TCPEnds{From: here, To: here, Src: lo, Dst: lo, Port: 0x7fe1, ReceiveBuffer: 16 << 10, SendBuffer: 16 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := c.Write(100_000); err != nil {
		t.Fatal(err)
	}
	if err := c.Await(100_000, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	c.Pause()
	sent, err := c.WriteFor(200 * time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if sent > 8<<20 {
		t.Errorf("%d bytes went into the buffers of a paused reader", sent)
	}
	c.Resume()
	if err := c.Await(100_000+sent, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if c.Server().Port() != 0x7fe1 || c.Client().Port() == 0 {
		t.Errorf("from %s to %s", c.Client(), c.Server())
	}
}
