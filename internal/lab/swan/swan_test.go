// SPDX-License-Identifier: Apache-2.0

package swan

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"xfrmscope/internal/lab/tunnel"

	"github.com/google/go-cmp/cmp"
)

func TestParseSAs(t *testing.T) {
	// As iproute2 6.1 prints it: a reservation, which has no algorithm, and two SAs.
	out := "src 192.0.2.1 dst 192.0.2.2\n\tproto esp spi 0xc0000009(3221225481) reqid 1(0x00000001) mode tunnel\n\treplay-window 0 \n" +
		"src 192.0.2.1 dst 192.0.2.2\n\tproto esp spi 0xc2b7e2b2(3266831026) reqid 1(0x00000001) mode tunnel\n" +
		"\treplay-window 32 flag af-unspec\n\taead rfc4106(gcm(aes)) <<Keys hidden>> 128\n" +
		"src 192.0.2.2 dst 192.0.2.1\n\tproto esp spi 0x0000012c(300) reqid 1(0x00000001) mode tunnel\n" +
		"\tauth-trunc hmac(sha256) <<Keys hidden>> 128\n\tenc cbc(aes) <<Keys hidden>>\n"
	got, err := parseSAs(out)
	if err != nil {
		t.Fatal(err)
	}
	want := []SA{{300, "192.0.2.2", "192.0.2.1"}, {0xc2b7e2b2, "192.0.2.1", "192.0.2.2"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got, err := parseSAs(""); err != nil || got != nil {
		t.Errorf("of an empty listing: %v, %v", got, err)
	}
	if _, err := parseSAs("src here dst there\n\taead x\n"); err == nil {
		t.Error("a form that the reader does not know is no error")
	}
}

func TestParseIKE(t *testing.T) {
	// One is established and its end was the initiator, the other still begins.
	out := "site: #2, ESTABLISHED, IKEv2, 0011223344556677_i* 8899aabbccddeeff_r\n" +
		"  local  'gw-a' @ 192.0.2.1[500]\n" +
		"site: #3, CONNECTING, IKEv2, 1111111111111111_i* 0000000000000000_r\n"
	if diff := cmp.Diff([]string{"00112233445566778899aabbccddeeff"}, parseIKE(out)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestConfiguration writes what the daemons are told, and looks at who can read the secret.
func TestConfiguration(t *testing.T) {
	dir := t.TempDir()
	end := func(id, outer string) *Peer {
		return &Peer{Gateway: &tunnel.Gateway{Outer: netip.MustParseAddr(outer)}, ID: id, dir: dir}
	}
	a, b := end("gw-a", "192.0.2.1"), end("gw-b", "192.0.2.2")
	o := Options{ChildRekey: 2 * time.Second, ChildLife: 5500 * time.Millisecond}.normalize()
	data := map[string]any{"Options": o, "Own": a, "Other": b, "Secret": "s3cr3t",
		"OwnNet": netip.MustParsePrefix("10.1.0.1/32"), "OtherNet": netip.MustParsePrefix("10.2.0.1/32")}
	if err := a.write("swanctl.conf", connectionConfig, data); err != nil {
		t.Fatal(err)
	}
	if err := a.configureDaemon(o); err != nil {
		t.Fatal(err)
	}
	for name, lines := range map[string][]string{
		"swanctl.conf":    {"local_addrs = 192.0.2.1", "remote_addrs = 192.0.2.2", "rekey_time = 2", "life_time = 5.5", "esp_proposals = aes128gcm16", "dpd_delay = 0"},
		"strongswan.conf": {"retransmit_timeout = 2", "retransmit_tries = 3", "socket = unix://" + dir + "/vici"},
	} {
		path := filepath.Join(dir, name)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range lines {
			if !strings.Contains(string(text), line+"\n") {
				t.Errorf("%s has no line %q:\n%s", name, line, text)
			}
		}
		if bytes.Contains(text, []byte("s3cr3t")) != (name == "swanctl.conf") {
			t.Errorf("the secret is where it should not be, or is not where it should: %s", name)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v: others can read it", name, info.Mode(), err)
		}
	}
	// B takes whoever knows the secret: behind a NAT, A's address is not its own.
	data["Own"], data["Other"] = b, a
	var text bytes.Buffer
	if err := connectionConfig.Execute(&text, data); err != nil || !strings.Contains(text.String(), "remote_addrs = %any\n") {
		t.Errorf("%v:\n%s", err, text.String())
	}
}
