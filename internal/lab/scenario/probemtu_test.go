// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"xfrmscope/internal/lab/tunnel"
)

// probed is what `probe mtu --json` says, as far as these tests ask.
type probed struct {
	Outside, Inside *struct {
		MTU, Packets int
		FailsAt      int `json:"fails_at"`
		Exact        bool
		Limit        string
		LimitBy      string `json:"limit_by"`
		Route        struct{ MTU int }
		RouteMTU     int `json:"route_mtu_after"`
	}
	NotOutside string `json:"not_outside"`
	Inner      *struct {
		Measured, Computed, Believed int
		Agree                        *bool
	}
	Set  *struct{ MTU int }
	Fits *bool
	// Remedy's first command makes the kernel believe what was measured.
	Remedy []struct{ Commands []string }
}

// probe runs `probe mtu` on gateway B.
func probe(t *testing.T, tn *tunnel.Tunnel, exit int, args ...string) (d probed) {
	t.Helper()
	cmd := exec.Command(binary(t), append([]string{"probe", "mtu", "--netns", tn.B.Name, "--json", "--timeout", "500ms"}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &d); err != nil {
		t.Fatalf("read report: %v\n%s%s", err, out, stderr.String())
	}
	valid(t, "probe-mtu", out)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s%s", out, stderr.String())
		}
	})
	if got := cmd.ProcessState.ExitCode(); got != exit {
		t.Errorf("exit status %d, want %d", got, exit)
	}
	return d
}

// ping says whether a packet of so many octets that must not be cut is answered, by a program of others.
func ping(t *testing.T, ns *tunnel.Namespace, sa tunnel.SA, octets, tries int) bool {
	t.Helper()
	header := 28
	if sa.Dst.Is6() {
		header = 48
	}
	passed := false
	err := ns.Do(func() error {
		out, err := exec.Command("ping", "-n", "-q", "-M", "do", "-c", fmt.Sprint(tries), "-i", "0.2", "-W", "1",
			"-I", sa.Src.String(), "-s", fmt.Sprint(octets-header), sa.Dst.String()).CombinedOutput()
		var failed *exec.ExitError
		if err != nil && !errors.As(err, &failed) {
			return fmt.Errorf("ping: %w: %s", err, out)
		}
		if !strings.Contains(string(out), "received") {
			return fmt.Errorf("ping says: %s", out)
		}
		passed = err == nil
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return passed
}

// TestProbeMTU measures through real tunnels across a router with a narrow further side, which tells of it
// or does not. What passes inside is held against ping.
func TestProbeMTU(t *testing.T) {
	tunnel.Need(t)
	for name, row := range map[string]struct {
		options tunnel.Options
		silent  bool // and nobody tells
		inner   int  // that RFC 4303 leaves of the narrow side
	}{
		"v4 GCM, router tells":     {options: tunnel.Options{}, inner: squeezed},
		"v4 UDP CBC, black hole":   {options: tunnel.Options{UDP: true, CBC: true}, silent: true, inner: 1326},
		"v6 GCM, black hole":       {options: tunnel.Options{Family: 6}, silent: true, inner: 1326},
		"v6 UDP CBC, router tells": {options: tunnel.Options{Family: 6, UDP: true, CBC: true}, inner: 1310},
	} {
		t.Run(name, func(t *testing.T) {
			tn, check := narrowTunnel(t, row.options)
			limit := "router"
			if row.silent {
				limit = "black-hole"
				check(inside(tn.Path, "nft", "add table inet mute\nadd chain inet mute out { type filter hook output priority 0; }\n"+
					"add rule inet mute out icmp type destination-unreachable drop\nadd rule inet mute out icmpv6 type packet-too-big drop"))
			}
			sa := tn.BtoA[0]
			d := probe(t, tn, 1, tn.A.Outer.String())
			if d.Outside == nil || d.Inside == nil || d.Inner == nil || d.Inner.Agree == nil || d.Set == nil {
				t.Fatal("not everything was measured")
			}
			// What is probed inside takes ESP, of whose size the kernel learns where a router tells.
			learned := narrow
			if row.silent {
				learned = linkMTU
			}
			diff(t, "outside: MTU, limit, MTU of the route before and after", []any{narrow, limit, linkMTU, learned},
				[]any{d.Outside.MTU, d.Outside.Limit, d.Outside.Route.MTU, d.Outside.RouteMTU})
			diff(t, "inside: MTU, exact, agrees with what is computed, what is to be set", []any{row.inner, true, true, row.inner},
				[]any{d.Inside.MTU, d.Inside.Exact, *d.Inner.Agree, d.Set.MTU})
			if !ping(t, tn.B.Namespace, sa, d.Inside.MTU, 5) {
				t.Errorf("ping: no packet of %d octets passes", d.Inside.MTU)
			}
			if ping(t, tn.B.Namespace, sa, d.Inside.MTU+1, 2) {
				t.Errorf("ping: a packet of %d octets passes", d.Inside.MTU+1)
			}
			if len(d.Remedy) == 0 || len(d.Remedy[0].Commands) != 1 {
				t.Fatalf("remedies: %+v", d.Remedy)
			}
			if !row.silent || row.options.Family == 6 {
				return
			}
			// What it says to type mends it, and an address behind the peer leads to the same tunnel.
			check(inside(tn.B.Namespace, strings.Fields(d.Remedy[0].Commands[0])...))
			mended := probe(t, tn, 0, sa.Dst.String())
			if mended.Outside == nil || mended.Inner == nil || mended.Fits == nil || !*mended.Fits {
				t.Fatal("what is set does not fit after the remedy")
			}
			diff(t, "mended: outside, inside, let through", []int{narrow, d.Inside.MTU, d.Inside.MTU},
				[]int{mended.Outside.MTU, mended.Inner.Measured, mended.Inner.Believed})
		})
	}
}

// narrowTunnel builds a tunnel across a router whose side towards gateway A takes less than the links, and
// gives a check that ends the test.
func narrowTunnel(t *testing.T, o tunnel.Options) (tn *tunnel.Tunnel, check func(error)) {
	t.Helper()
	check = func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	o.Router = true
	tn, err := tunnel.Build(o)
	check(err)
	t.Cleanup(func() {
		if err := tn.Close(); err != nil {
			t.Error(err)
		}
	})
	check(tn.Path.IP(fmt.Sprintf("link set %s mtu %d", tunnel.PathA, narrow)))
	return tn, check
}

// TestProbeMTUTransport probes where a policy takes what goes to the gateway itself: it says so, and
// measures through the SA.
func TestProbeMTUTransport(t *testing.T) {
	tunnel.Need(t)
	const fits, believed = 1366, 1466 // 34 octets of ESP, IV, trailer and ICV
	tn, _ := narrowTunnel(t, tunnel.Options{Mode: tunnel.TransportMode})
	d := probe(t, tn, 1, tn.A.Outer.String(), "--udp", fmt.Sprint(tunnel.Port))
	if d.Outside != nil || !strings.Contains(d.NotOutside, "through the SA") {
		t.Errorf("outside: %+v, %q: want none, since a policy takes it", d.Outside, d.NotOutside)
	}
	if d.Inside == nil || d.Inner == nil {
		t.Fatal("not measured")
	}
	diff(t, "inside: MTU, let through before, exact", []any{fits, believed, true}, []any{d.Inside.MTU, d.Inner.Believed, d.Inside.Exact})
	counters, err := tn.BtoA[0].Counters(tn.B)
	if err != nil {
		t.Fatal(err)
	}
	if counters.Packets != uint64(d.Inside.Packets) {
		t.Errorf("%d packets took the SA, %d were sent", counters.Packets, d.Inside.Packets)
	}
}

// TestProbeMTUInterface probes through an xfrm interface, which does not refuse what is too big but tells
// the sender by ICMP, be it this host itself.
func TestProbeMTUInterface(t *testing.T) {
	tunnel.Need(t)
	tn, check := narrowTunnel(t, tunnel.Options{NoSAs: true})
	key := make([]byte, 20)
	_, err := rand.Read(key)
	check(err)
	const ifID = " if_id 7"
	a, b, far, own := tn.A.Outer, tn.B.Outer, tn.A.Inner[0], tn.B.Inner[0]
	lines := func(id, in, out string) []string {
		state := func(src, dst netip.Addr, spi int) string {
			return fmt.Sprintf("xfrm state add src %s dst %s proto esp spi %#x reqid 7 mode tunnel aead rfc4106(gcm(aes)) 0x%x 128%s", src, dst, spi, key, id)
		}
		policy := func(dir string, src, dst, from, to netip.Addr) string {
			return fmt.Sprintf("xfrm policy add src %s/32 dst %s/32 dir %s tmpl src %s dst %s proto esp reqid 7 mode tunnel%s", src, dst, dir, from, to, id)
		}
		return []string{state(b, a, 0x1001), state(a, b, 0x1002), policy(out, own, far, b, a), policy(in, far, own, a, b)}
	}
	check(tn.A.IP(lines("", "out", "in")...))
	check(tn.B.IP(append(lines(ifID, "in", "out"), "link add ipsec0 type xfrm dev wan"+ifID, "link set ipsec0 up mtu 1500",
		fmt.Sprintf("route replace %s/32 dev ipsec0 src %s", far, own))...))
	d := probe(t, tn, 1, far.String())
	if d.Outside == nil || d.Inside == nil || d.Inner == nil || d.Inner.Agree == nil {
		t.Fatal("not everything was measured")
	}
	diff(t, "outside, inside, who refuses, let through before, agree", []any{narrow, squeezed, "host", innerMTU, true},
		[]any{d.Outside.MTU, d.Inside.MTU, d.Inside.Limit, d.Inner.Believed, *d.Inner.Agree})
}
