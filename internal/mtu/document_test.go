// SPDX-License-Identifier: Apache-2.0

package mtu

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"xfrmscope/internal/lab/schematest"
	"xfrmscope/internal/ledger"
)

func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	return schematest.Strict(t, "probe-mtu.schema.json")
}

var (
	hostA  = netip.MustParseAddr("192.0.2.1")
	innerA = netip.MustParseAddr("10.1.0.1")
	innerB = netip.MustParseAddr("10.2.0.1")
)

// gcm is an SA that leaves 1446 octets of 1500 and 1346 of 1400.
func gcm() ledger.SADEntry {
	return ledger.SADEntry{Key: ledger.SAKey{Dst: far, SPI: 0xb2a00001, Proto: ledger.ESP, Direction: ledger.Out}, Src: hostA, Mode: "tunnel", ReqID: 2,
		Encap: ledger.EncapNone, Algorithms: []ledger.Algorithm{{Kind: "aead", Name: "rfc4106(gcm(aes))", ICVBits: 128}}}
}

func policy(src, dst string) ledger.Policy {
	return ledger.Policy{Dir: "out", Action: "allow", Selector: ledger.Selector{Src: netip.MustParsePrefix(src), Dst: netip.MustParsePrefix(dst)},
		Templates: []ledger.Template{{Src: hostA, Dst: far, Proto: ledger.ESP, ReqID: 2, Mode: "tunnel"}}}
}

// sideOf is a measurement over a simulated path, by a host whose route says believed.
func sideOf(t *testing.T, s *simulated, believed int, target Target) *Side {
	t.Helper()
	r := run(t, s, options(1500))
	return &Side{Target: target, Before: Route{Gateway: router, Device: "wan", DeviceMTU: 1500, MTU: believed}, After: believed, Result: r, Max: 1500}
}

// documents are runs of every kind.
func documents(t *testing.T) map[string]Document {
	sa, q := gcm(), policy("10.1.0.0/16", "10.2.0.0/16")
	tunnel := &Tunnel{Gateway: far, Local: hostA, Policy: &q, SA: &sa}
	tunnel.weigh()
	out, in := Target{Src: hostA, Dst: far}, Target{Src: innerA, Dst: innerB, Inside: true}
	plan := Plan{Tunnel: tunnel, Outside: &out, Inside: &in}
	start := time.Unix(1, 0)
	doc := func(p Plan, outside, inside *Side) Document { return NewDocument(far, "gw", start, p, outside, inside) }
	return map[string]Document{
		"black hole":    doc(plan, sideOf(t, &simulated{limit: 1400}, 1500, out), sideOf(t, &simulated{limit: 1346, host: 1446}, 1500, in)),
		"router tells":  doc(plan, sideOf(t, &simulated{limit: 1400, honest: true}, 1500, out), sideOf(t, &simulated{limit: 1500, host: 1346}, 1500, in)),
		"fits":          doc(plan, sideOf(t, &simulated{limit: 1500}, 1500, out), sideOf(t, &simulated{limit: 1500, host: 1446}, 1500, in)),
		"differ":        doc(plan, sideOf(t, &simulated{limit: 1500}, 1500, out), sideOf(t, &simulated{limit: 1300, host: 1446}, 1500, in)),
		"stale":         doc(plan, sideOf(t, &simulated{limit: 1500}, 1400, out), sideOf(t, &simulated{limit: 1500, host: 1346}, 1500, in)),
		"lying router":  doc(Plan{NotInside: "no SA"}, sideOf(t, &simulated{limit: 1400, honest: true, claims: 1300}, 1500, out), nil),
		"no answer":     doc(Plan{NotInside: "no SA"}, sideOf(t, &simulated{dead: true}, 1500, out), nil),
		"inside silent": doc(plan, sideOf(t, &simulated{limit: 1400}, 1500, out), sideOf(t, &simulated{dead: true}, 1500, in)),
		"nothing":       doc(Plan{Tunnel: &Tunnel{Gateway: far, Local: hostA, Why: "there is no SA"}, NotOutside: "blocked", NotInside: "no SA"}, nil, nil),
	}
}

func TestSchema(t *testing.T) {
	s := schema(t)
	for name, d := range documents(t) {
		var js bytes.Buffer
		if err := d.WriteJSON(&js); err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(&js)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(doc); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		doc.(map[string]any)["mood"] = "good"
		if s.Validate(doc) == nil {
			t.Errorf("%s: the schema takes what is not in it", name)
		}
	}
}

// TestJudge holds what follows from a measurement: fits, inner MTU measured and computed and let through,
// what to set, and words that have to be in the text.
func TestJudge(t *testing.T) {
	type row struct {
		fits                                    string
		measured, computed, believed, mtu, mss4 int
		text                                    []string
	}
	yes, no := "fits", "change"
	docs := documents(t)
	for name, want := range map[string]row{
		"black hole": {no, 1346, 1346, 1446, 1346, 1306, []string{"they agree", "nobody says so, so no sender can learn of it",
			"ip route replace 198.51.100.2/32 via 192.0.2.254 dev wan src 192.0.2.1 mtu 1400",
			"ip route change 10.2.0.0/16 via 192.0.2.254 dev wan mtu 1346", "maxseg size set 1306", "maxseg size set 1286", "charon.plugins.kernel-netlink.mtu = 1346"}},
		"router tells": {yes, 1346, 1346, 1346, 1346, 1306, []string{"refused by 192.0.2.254, which says so", "small enough all the same"}},
		"fits":         {yes, 1446, 1446, 1446, 1446, 1406, []string{"The path carries what is set"}},
		"differ":       {no, 1300, 1446, 1446, 1300, 1260, []string{"they differ", "or the path treats ESP unlike other packets"}},
		"stale":        {yes, 1346, 1446, 1346, 1346, 1306, []string{"the kernel goes by 1400 octets to 198.51.100.2", "it sends less than it could", "still goes by an old path MTU"}},
		"lying router": {no, 0, 0, 0, 1400, 1360, []string{"192.0.2.254 says that 1300 octets fit, and 1400 pass"}},
		"no answer":    {"", 0, 0, 0, 0, 0, []string{"nobody answers"}},
		// What is computed stands in for what was not measured.
		"inside silent": {no, 0, 1346, 1446, 1346, 1306, []string{"1346 computed"}},
		"nothing":       {"", 0, 0, 0, 0, 0, []string{"not measured: blocked"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := docs[name]
			got := row{text: want.text}
			if d.Fits != nil {
				got.fits = map[bool]string{true: yes, false: no}[*d.Fits]
			}
			if d.Inner != nil {
				got.measured, got.computed, got.believed = d.Inner.Measured, d.Inner.Computed, d.Inner.Believed
			}
			if d.Set != nil {
				got.mtu, got.mss4 = d.Set.MTU, d.Set.MSS4
			}
			if got.fits != want.fits || got.measured != want.measured || got.computed != want.computed || got.believed != want.believed || got.mtu != want.mtu || got.mss4 != want.mss4 {
				t.Errorf("got %+v, want %+v", got, want)
			}
			var text strings.Builder
			if err := d.WriteText(&text); err != nil {
				t.Fatal(err)
			}
			flat := strings.Join(strings.Fields(text.String()), " ")
			for _, words := range want.text {
				if !strings.Contains(flat, words) {
					t.Errorf("%q is not in:\n%s", words, text.String())
				}
			}
			for line := range strings.Lines(text.String()) {
				if len(line) > columns+1 && !strings.HasPrefix(line, "      ") {
					t.Errorf("%d columns: %s", len(line)-1, line)
				}
			}
			if (got.fits == no) != (len(d.Remedy) > 0) || (got.fits == no) != (len(d.Reasons) > 0) {
				t.Errorf("%s with %d reasons and %d remedies", got.fits, len(d.Reasons), len(d.Remedy))
			}
		})
	}
}
