// SPDX-License-Identifier: Apache-2.0

package xfrmproof

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/traffic"
	"xfrmscope/internal/lab/tunnel"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/netns"
	"xfrmscope/internal/xfrm"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// client opens the reader on a namespace.
func client(t *testing.T, n *tunnel.Namespace) *xfrm.Client {
	t.Helper()
	h, err := netns.Open(n.Name)
	check(t, err)
	c, err := xfrm.Open(h)
	check(t, err)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func key(t *testing.T, bytes int) string {
	t.Helper()
	b := make([]byte, bytes)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return "0x" + hex.EncodeToString(b)
}

// compare lists the namespace's SAs with ip and with the decoder, while nothing moves.
func compare(t *testing.T, n *tunnel.Namespace, c *xfrm.Client, count int) []ledger.SADEntry {
	t.Helper()
	entries, err := c.DumpSAs(t.Context())
	check(t, err)
	out, err := n.Output("-d", "-s", "xfrm", "state", "list", "nokeys")
	check(t, err)
	want, err := parse(out)
	check(t, err)
	var got []listed
	for _, e := range entries {
		got = append(got, decoded(e))
	}
	slices.SortFunc(got, func(a, b listed) int { return strings.Compare(a.SPI, b.SPI) })
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-ip +decoder):\n%s", diff)
	}
	if len(got) != count {
		t.Errorf("%d SAs decoded, %d listed, want %d", len(got), len(want), count)
	}
	return entries
}

func TestDumpEqualsIP(t *testing.T) {
	tunnel.Need(t)
	n, err := tunnel.OpenNamespace(fmt.Sprintf("xfrmproof%d", os.Getpid()))
	check(t, err)
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	aead := "aead rfc4106(gcm(aes)) " + key(t, 20) + " 128"
	cbc := "auth-trunc hmac(sha256) " + key(t, 32) + " 128 enc cbc(aes) " + key(t, 16)
	state := func(spi int, rest string) string {
		return fmt.Sprintf("xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi %#x %s", 0x10000000+spi, rest)
	}
	check(t, n.IP(
		"link add d0 type dummy", "link set d0 up", "address add 192.0.2.2/24 dev d0",
		state(1, "reqid 11 mode tunnel "+aead+" replay-window 32"),
		state(2, "reqid 12 mode transport "+cbc+" replay-window 16 flag noecn nopmtudisc"),
		state(3, "mode tunnel "+aead+" replay-window 1024 flag esn replay-seq 0x10 replay-seq-hi 0x3 replay-oseq 0x20 replay-oseq-hi 0x4"),
		state(4, "mode tunnel "+aead+" replay-window 32 replay-seq 0xfffffff0 replay-oseq 0xff"),
		state(5, "mode tunnel "+aead+" encap espinudp 4500 4501 0.0.0.0"),
		state(6, "mode tunnel "+aead+" mark 0x5 mask 0xff if_id 0x77"),
		state(7, "mode tunnel "+aead+" limit packet-soft 900 limit packet-hard 1000 limit byte-hard 123456789 limit time-hard 3600"),
		state(8, "mode tunnel "+aead+" flag esn replay-window 4096 extra-flag oseq-may-wrap"),
		state(9, "mode beet sel src 10.0.0.1 dst 10.0.0.2 "+aead),
		"xfrm state add src 2001:db8::1 dst 2001:db8::2 proto esp spi 0x1000000a mode tunnel "+aead,
	))
	entries := compare(t, n, client(t, n), 10)
	for _, e := range entries {
		bits := map[string]int{"aead": 160, "authentication": 256, "encryption": 128}
		for _, a := range e.Algorithms {
			if a.KeyBits != bits[a.Kind] {
				t.Errorf("%v: key of %s has %d bits, want %d", e.Key.SPI, a.Name, a.KeyBits, bits[a.Kind])
			}
		}
		want := ledger.In
		if e.Key.Dst.Is6() {
			want = ledger.Unknown
		}
		if e.Key.SPI == 0x10000003 && (e.Seq != 0x3_0000_0010 || e.OSeq != 0x4_0000_0020 || !e.ESN) {
			t.Errorf("ESN state seq %#x oseq %#x esn %v", e.Seq, e.OSeq, e.ESN)
		}
		if e.Key.Direction != want {
			t.Errorf("%v: direction %s, want %s", e.Key.SPI, e.Key.Direction, want)
		}
		if age := time.Since(e.Added); age < -2*time.Second || age > time.Minute {
			t.Errorf("%v: added %v ago", e.Key.SPI, age)
		}
	}
}

// rig is a tunnel that carries traffic.
type rig struct {
	*tunnel.Tunnel
	in   *inject.Injector
	flow *traffic.Flow
	sent uint64
}

func raise(t *testing.T, o tunnel.Options, rules ...inject.Rule) *rig {
	t.Helper()
	tun, err := tunnel.Build(o)
	check(t, err)
	in, err := inject.Open(inject.Path{A: tunnel.PathA, B: tunnel.PathB, Do: tun.Path.Do}, rules...)
	check(t, err)
	sa := tun.AtoB[0]
	flow, err := traffic.Open(traffic.Ends{From: tun.A.Do, To: tun.B.Do, Src: sa.Src, Dst: sa.Dst, Port: tunnel.Port})
	check(t, err)
	t.Cleanup(func() {
		for _, f := range []func() error{flow.Close, in.Close, tun.Close} {
			if err := f(); err != nil {
				t.Error(err)
			}
		}
	})
	return &rig{Tunnel: tun, in: in, flow: flow}
}

// send sends datagrams and waits until the receiving gateway has counted them, or taken those up to a
// limit: on a busy machine that may be long after the path has become quiet.
func (r *rig) send(t *testing.T, count int) {
	t.Helper()
	r.sent += uint64(count)
	want := r.sent
	if limit := r.Options.HardPackets; limit > 0 {
		want = min(want, limit)
	}
	check(t, r.flow.Send(count, 200*time.Microsecond))
	check(t, r.in.Quiet(150*time.Millisecond, 20*time.Second))
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := r.AtoB[0].Counters(r.B)
		if errors.Is(err, tunnel.ErrNoSA) && want == r.Options.HardPackets {
			return // expired at its limit
		}
		check(t, err)
		if c.Packets == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the gateway counted %d packets, want %d", c.Packets, want)
		}
	}
}

// TestUnderTraffic compares counters, numbers and directions at both ends after traffic.
func TestUnderTraffic(t *testing.T) {
	tunnel.Need(t)
	for _, o := range []tunnel.Options{
		{},
		{Family: 6, ESN: true, ReplayWindow: 128, LastSeq: 0xfffffff0},
		{UDP: true, NoReplay: true},
		{Mode: tunnel.TransportMode, ReplayWindow: 32},
	} {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			r := raise(t, o)
			r.send(t, 40)
			a := compare(t, r.A.Namespace, client(t, r.A.Namespace), 2)
			b := compare(t, r.B.Namespace, client(t, r.B.Namespace), 2)
			for _, end := range []struct {
				entries []ledger.SADEntry
				want    ledger.Direction
			}{{a, ledger.Out}, {b, ledger.In}} {
				for _, e := range end.entries {
					if e.Key.SPI != tunnel.FirstSPIAtoB {
						continue
					}
					if e.Packets != 40 || e.Key.Direction != end.want {
						t.Errorf("%s end: %d packets, direction %s", end.want, e.Packets, e.Key.Direction)
					}
					last := uint64(o.LastSeq) + 40
					if end.want == ledger.Out && e.OSeq != last || end.want == ledger.In && !o.NoReplay && e.Seq != last {
						t.Errorf("%s end: seq %#x oseq %#x, want %#x", end.want, e.Seq, e.OSeq, last)
					}
				}
			}
			policies, err := client(t, r.A.Namespace).DumpPolicies(t.Context())
			check(t, err)
			if len(policies) != 2 || len(policies[0].Templates) != 1 || policies[0].Templates[0].ReqID == 0 {
				t.Errorf("policies %+v", policies)
			}
			stat, err := client(t, r.B.Namespace).XfrmStat()
			check(t, err)
			want, err := r.B.XfrmStat()
			check(t, err)
			if diff := cmp.Diff(want, stat); diff != "" || len(stat) < 20 {
				t.Errorf("xfrm_stat (-lab +reader):\n%s", diff)
			}
		})
	}
}

// TestEnds ends SAs in every way while the tracker follows, and compares their last counters with what
// ip told just before, or with what the limit was.
func TestEnds(t *testing.T) {
	tunnel.Need(t)
	for _, row := range []struct {
		name    string
		options tunnel.Options
		end     func(*rig) error
		packets uint64
		want    ledger.EndReason
	}{
		{"deleted", tunnel.Options{}, func(r *rig) error { return r.AtoB[0].Delete(r.B) }, 30, ledger.EndDeleted},
		{"flushed", tunnel.Options{ESN: true, ReplayWindow: 64}, func(r *rig) error { return r.B.IP("xfrm state flush") }, 10, ledger.EndFlushed},
		{"expired", tunnel.Options{HardPackets: 25}, func(*rig) error { return nil }, 25, ledger.EndExpired},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := raise(t, row.options)
			tr, err := xfrm.OpenTracker(t.Context(), client(t, r.B.Namespace))
			check(t, err)
			t.Cleanup(func() {
				if err := tr.Close(); err != nil {
					t.Error(err)
				}
			})
			r.send(t, 10)
			sad, ended, err := tr.Snapshot(t.Context())
			check(t, err)
			if len(sad) != 2 || len(ended) != 0 {
				t.Fatalf("%d SAs and %d ended", len(sad), len(ended))
			}
			r.send(t, 20) // counted by nobody but the announcement
			check(t, row.end(r))
			deadline := time.Now().Add(10 * time.Second)
			var all []ledger.EndedSA
			for len(all) == 0 && time.Now().Before(deadline) {
				sad, ended, err = tr.Snapshot(t.Context())
				check(t, err)
				all = append(all, ended...)
				time.Sleep(50 * time.Millisecond)
			}
			i := slices.IndexFunc(all, func(e ledger.EndedSA) bool { return e.Last.Key.SPI == tunnel.FirstSPIAtoB })
			if i < 0 {
				t.Fatalf("no end reported: %+v", all)
			}
			e := all[i]
			if e.Why != row.want || e.Last.Packets != row.packets || e.Last.Key.Direction != ledger.In || len(e.Last.Algorithms) != 1 {
				t.Errorf("ended %s with %d packets, direction %s, %d algorithms; want %s with %d",
					e.Why, e.Last.Packets, e.Last.Key.Direction, len(e.Last.Algorithms), row.want, row.packets)
			}
			for _, s := range sad {
				if s.Key.SPI == tunnel.FirstSPIAtoB {
					t.Errorf("the SA is still listed: %+v", s)
				}
			}
			if tr.Lost() != 0 {
				t.Errorf("announcements lost %d times", tr.Lost())
			}
		})
	}
}

// TestManyEnds: a thousand SAs come, carry a number each and go; every one is reported.
func TestManyEnds(t *testing.T) {
	tunnel.Need(t)
	n, err := tunnel.OpenNamespace(fmt.Sprintf("xfrmproofmany%d", os.Getpid()))
	check(t, err)
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	tr, err := xfrm.OpenTracker(t.Context(), client(t, n))
	check(t, err)
	const count = 1000
	var lines []string
	for i := range count {
		id := fmt.Sprintf("src 192.0.2.1 dst 192.0.2.2 proto esp spi %#x", 0x1000+i)
		lines = append(lines, "xfrm state add "+id+" mode tunnel aead rfc4106(gcm(aes)) "+key(t, 20)+" 128", "xfrm state delete "+id)
	}
	check(t, n.IP(lines...))
	sad, ended, err := tr.Snapshot(t.Context())
	check(t, err)
	if len(sad) != 0 || len(ended) != count || tr.Lost() != 0 {
		t.Errorf("%d SAs, %d ended, lost %d; want 0, %d, 0", len(sad), len(ended), tr.Lost(), count)
	}
	check(t, tr.Close())
}
