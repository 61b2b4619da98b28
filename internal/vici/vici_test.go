// SPDX-License-Identifier: Apache-2.0

package vici

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"xfrmscope/internal/ledger"
)

// Packet types of the vici protocol.
const (
	cmdRequest, cmdResponse, eventRegister, eventUnregister, eventConfirm, event = 0, 1, 3, 4, 5, 7
)

// body builds a message: sections, and keys with values.
type body struct{ bytes.Buffer }

func (b *body) open(name string) *body { return b.named(1, name) }

func (b *body) close() *body { b.WriteByte(2); return b }

func (b *body) named(kind byte, name string) *body {
	b.WriteByte(kind)
	b.WriteByte(byte(len(name)))
	b.WriteString(name)
	return b
}

func (b *body) set(pairs ...string) *body {
	for i := 0; i < len(pairs); i += 2 {
		b.named(3, pairs[i])
		b.Write(binary.BigEndian.AppendUint16(nil, uint16(len(pairs[i+1]))))
		b.WriteString(pairs[i+1])
	}
	return b
}

// ikeSA is how strongSwan 5.9 shows an IKE SA with one child.
func ikeSA(child, spiIn, spiOut string) []byte {
	b := &body{}
	b.open("branch").
		set("uniqueid", "1", "version", "2", "state", "ESTABLISHED", "local-host", "192.0.2.2", "local-port", "500",
			"remote-host", "192.0.2.1", "initiator-spi", "00000000000000a1", "responder-spi", "00000000000000b2").
		open("child-sas").open(child+"-1").
		set("name", child, "uniqueid", "1", "reqid", "7", "state", "INSTALLED", "mode", "TUNNEL", "protocol", "ESP",
			"spi-in", spiIn, "spi-out", spiOut).
		close().close().close()
	return b.Bytes()
}

// fakeCharon answers list-sas with one IKE SA and sends each subscriber an event.
func fakeCharon(t *testing.T, hang bool) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "vici")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c, hang)
		}
	}()
	return path
}

func serve(c net.Conn, hang bool) {
	defer c.Close()
	for {
		var head [4]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		packet := make([]byte, binary.BigEndian.Uint32(head[:]))
		if _, err := io.ReadFull(c, packet); err != nil {
			return
		}
		if hang {
			continue
		}
		switch packet[0] {
		case eventRegister, eventUnregister:
			send(c, eventConfirm, "", nil)
			if packet[0] == eventRegister && strings.HasSuffix(string(packet), "child-rekey") {
				b := &body{}
				b.open("branch").
					set("local-host", "192.0.2.2", "remote-host", "192.0.2.1", "initiator-spi", "00000000000000a1").
					open("child-sas").open("lan").
					open("old").set("name", "lan", "reqid", "7", "protocol", "ESP", "spi-in", "00000011", "spi-out", "00000012").close().
					open("new").set("name", "lan", "reqid", "7", "protocol", "ESP", "spi-in", "c0ffee01", "spi-out", "c0ffee02").close().
					close().close().close()
				send(c, event, "child-rekey", b.Bytes())
			}
		case cmdRequest:
			send(c, event, "list-sa", ikeSA("lan", "c0ffee01", "c0ffee02"))
			send(c, cmdResponse, "", nil)
		}
	}
}

func send(w io.Writer, kind byte, name string, message []byte) {
	b := []byte{kind}
	if name != "" {
		b = append(append(b, byte(len(name))), name...)
	}
	b = append(b, message...)
	_, _ = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
}

func TestNames(t *testing.T) {
	n := New(fakeCharon(t, false))
	here, there := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.1")
	name := func(spi ledger.SPI, dst netip.Addr, dir ledger.Direction) ledger.SAName {
		return ledger.SAName{Key: ledger.SAKey{Dst: dst, SPI: spi, Proto: ledger.ESP, Direction: dir}, ReqID: 7, Connection: "branch", Child: "lan", IKE: 0xa1}
	}
	want := []ledger.SAName{
		{Connection: "branch", IKE: 0xa1},
		name(0x11, here, ledger.In), name(0x12, there, ledger.Out),
		name(0xc0ffee01, here, ledger.In), name(0xc0ffee02, there, ledger.Out),
	}
	// The two older SAs are known by an event only, which comes when it comes.
	var got []ledger.SAName
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline) && len(got) < len(want); time.Sleep(10 * time.Millisecond) {
		var err error
		if got, err = n.Read(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	slices.SortFunc(got, func(a, b ledger.SAName) int { return int(int64(a.Key.SPI) - int64(b.Key.SPI)) })
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := n.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestNobodyListens(t *testing.T) {
	n := New(filepath.Join(t.TempDir(), "nobody"))
	if _, err := n.Read(context.Background()); err == nil || !strings.Contains(err.Error(), "ask for names at") {
		t.Errorf("got %v", err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// TestHangingDaemon: a daemon that accepts and says nothing costs a bounded time, once in a while, and Close does not
// wait for it.
func TestHangingDaemon(t *testing.T) {
	n := New(fakeCharon(t, true))
	begin := time.Now()
	_, err := n.Read(context.Background())
	if err == nil || time.Since(begin) > 10*timeout {
		t.Errorf("after %s: %v", time.Since(begin), err)
	}
	// The very same error, with no question behind it.
	if _, again := n.Read(context.Background()); again != err {
		t.Errorf("asked again at once: %v", again)
	}
	n.rest = time.Now()
	if _, again := n.Read(context.Background()); again == nil || again == err {
		t.Errorf("not asked again: %v", again)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// TestDaemonRestarts: after an error the next question is asked anew.
func TestDaemonRestarts(t *testing.T) {
	n := New(fakeCharon(t, false))
	if _, err := n.Read(context.Background()); err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	for _, c := range n.conns {
		c.Close()
	}
	n.mu.Unlock()
	if _, err := n.Read(context.Background()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the end of the connection: %v", err)
	}
	if got, err := n.Read(context.Background()); err != nil || len(got) == 0 {
		t.Errorf("asked again: %v, %v", got, err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}
