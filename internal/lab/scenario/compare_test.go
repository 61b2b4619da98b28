// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/tunnel"
)

// comparison is what the test reads of `compare --json`, spelled out anew from its schema.
type comparison struct {
	Clock struct {
		From        string   `json:"from"`
		Offset      *float64 `json:"offset_s"`
		Uncertainty *float64 `json:"uncertainty_s"`
		AtoB        int      `json:"packets_a_to_b"`
		BtoA        int      `json:"packets_b_to_a"`
		SameMachine bool     `json:"same_machine"`
	} `json:"clock"`
	SAs []struct {
		SPI    string `json:"spi"`
		From   string `json:"from"`
		To     string `json:"to"`
		Joined bool   `json:"joined"`
		Why    string `json:"why"`
		Range  struct {
			First       uint64 `json:"first"`
			Last        uint64 `json:"last"`
			Uncertainty int64  `json:"uncertainty"`
		} `json:"range"`
		Sender   map[string]any `json:"sender"`
		Path     map[string]any `json:"path"`
		Receiver map[string]any `json:"receiver"`
		Lost     places         `json:"lost"`
		Drops    []struct {
			End     string `json:"end"`
			Stage   string `json:"stage"`
			Place   string `json:"place"`
			Packets int64  `json:"packets"`
		} `json:"drops"`
	} `json:"sas"`
	Unmatched []any `json:"unmatched"`
	Findings  []struct {
		ID      string `json:"id"`
		End     string `json:"end"`
		Place   string `json:"place"`
		Subject struct {
			SPI string `json:"spi"`
		} `json:"subject"`
	} `json:"findings"`
}

// places says where packets of an SA were lost.
type places struct {
	Sender       int64 `json:"sender_host"`
	Path         int64 `json:"path"`
	Receiver     int64 `json:"receiver_host"`
	Unattributed int64 `json:"unattributed"`
}

// losing is a pair of SAs, and where each of both loses its packets.
type losing struct {
	name  string
	rules []inject.Rule // of the path, without SPI and direction
	nft   string        // with %[1]s the SPI and %[2]s the inner source, in the sender's ruleset when it is of output, else in the receiver's
	tc    bool          // the sender's traffic control takes all
	lost  places
	drops string // stage and place
}

const comparedEach = 48

var losingPairs = []losing{
	{name: "clean"},
	{name: "sender's firewall", nft: "output esp spi %[1]s numgen inc mod 3 0", lost: places{Sender: 16}, drops: "egress netfilter 16"},
	// The first and the last, too: no end could know of those by itself.
	{name: "path", rules: []inject.Rule{on(inject.Drop, 0, 1, 10, 20, 21, comparedEach)}, lost: places{Path: 5}},
	{name: "receiver's firewall", nft: "input esp spi %[1]s numgen inc mod 4 0", lost: places{Receiver: 12}, drops: "before_xfrm netfilter 12"},
	{name: "receiver's xfrm", rules: []inject.Rule{on(inject.Corrupt, 0, 5, 6, 7, 45), on(inject.Delay, 40, 3)}, lost: places{Receiver: 5}},
	{name: "after decryption", nft: "forward ip saddr %[2]s numgen inc mod 5 0", lost: places{Receiver: 10}, drops: "after_decap netfilter 10"},
	{name: "everywhere", nft: "output esp spi %[1]s numgen inc mod 6 0",
		rules: []inject.Rule{on(inject.Drop, 0, 2, 3), on(inject.Duplicate, 0, 4, 5), on(inject.Corrupt, 0, 9, 10, 11)},
		lost:  places{Sender: 8, Path: 2, Receiver: 3}, drops: "egress netfilter 8"},
	{name: "sender's traffic control", tc: true, lost: places{Sender: comparedEach}, drops: "egress tc 48"},
}

// TestCompare records both gateways at once while packets are lost at every place there is, both ways, and
// demands that the comparison finds each of them where it was lost. Both ends have one clock, so its offset
// is known, too.
func TestCompare(t *testing.T) {
	tunnel.Need(t)
	b := raise(t, tunnel.Options{Hosts: true, Pairs: len(losingPairs)}, func(*tunnel.Tunnel) error { return nil }, pathRules(losingPairs))
	ends := map[string]*tunnel.Gateway{"A": b.tunnel.A, "B": b.tunnel.B}
	b.losePackets(ends)

	fileA, fileB := b.recordBoth(len(losingPairs))
	d, exit := compareFiles(t, fileA, fileB)
	if exit != 1 {
		t.Errorf("exit code %d, want 1: packets were lost", exit)
	}
	if len(d.SAs) != 2*len(losingPairs) || len(d.Unmatched) != 0 {
		t.Fatalf("%d SAs, want %d; unmatched %v", len(d.SAs), 2*len(losingPairs), d.Unmatched)
	}
	for i, p := range losingPairs {
		b.checkLosing(t, d, p, b.tunnel.AtoB[i], "A", "B")
		b.checkLosing(t, d, p, b.tunnel.BtoA[i], "B", "A")
	}
	c := d.Clock
	if c.From != "packets" || !c.SameMachine || c.Offset == nil || math.Abs(*c.Offset) > *c.Uncertainty || c.AtoB == 0 || c.BtoA == 0 {
		t.Errorf("one clock is compared with itself: %+v", c)
	} else {
		t.Logf("offset %.1f µs ± %.1f µs by %d and %d packets", *c.Offset*1e6, *c.Uncertainty*1e6, c.AtoB, c.BtoA)
	}
	found := map[string]string{}
	for _, f := range d.Findings {
		found[f.End+" "+f.ID+" "+f.Subject.SPI] = f.Place
	}
	for key, place := range map[string]string{
		"B path-loss " + name(b.tunnel.AtoB[1].SPI): "host A", "A path-loss " + name(b.tunnel.BtoA[1].SPI): "host B",
		"B path-loss " + name(b.tunnel.AtoB[2].SPI): "path A to B", "A path-loss " + name(b.tunnel.BtoA[2].SPI): "path B to A",
		"B firewall-drop " + name(b.tunnel.AtoB[3].SPI): "host B", "A firewall-drop " + name(b.tunnel.BtoA[3].SPI): "host A",
		"B integrity-failed " + name(b.tunnel.AtoB[4].SPI): "host B", "A egress-drop " + name(b.tunnel.AtoB[7].SPI): "host A",
	} {
		if found[key] != place {
			t.Errorf("%s: place %q, want %q; all: %v", key, found[key], place, found)
		}
	}
}

// TestCompareOverUDP does the same with what the path alone can do, over IPv6 and in UDP.
func TestCompareOverUDP(t *testing.T) {
	tunnel.Need(t)
	var pairs []losing
	for _, p := range losingPairs {
		if p.nft == "" && !p.tc {
			pairs = append(pairs, p)
		}
	}
	b := raise(t, tunnel.Options{Family: 6, UDP: true, Pairs: len(pairs)}, func(*tunnel.Tunnel) error { return nil }, pathRules(pairs))
	fileA, fileB := b.recordBoth(len(pairs))
	d, exit := compareFiles(t, fileA, fileB)
	if exit != 1 || len(d.SAs) != 2*len(pairs) || len(d.Unmatched) != 0 {
		t.Fatalf("exit code %d, %d SAs of %d; unmatched %v", exit, len(d.SAs), 2*len(pairs), d.Unmatched)
	}
	for i, p := range pairs {
		b.checkLosing(t, d, p, b.tunnel.AtoB[i], "A", "B")
		b.checkLosing(t, d, p, b.tunnel.BtoA[i], "B", "A")
	}
	if c := d.Clock; c.From != "packets" || c.Offset == nil || math.Abs(*c.Offset) > *c.Uncertainty {
		t.Errorf("one clock is compared with itself: %+v", c)
	}
}

// pathRules are the faults of the path, both ways.
func pathRules(pairs []losing) (rules []inject.Rule) {
	for i, p := range pairs {
		for _, r := range p.rules {
			r.SPI = tunnel.FirstSPIAtoB + uint32(i)
			rules = append(rules, r)
			r.Direction, r.SPI = inject.BtoA, tunnel.FirstSPIBtoA+uint32(i)
			rules = append(rules, r)
		}
	}
	return rules
}

// recordBoth records both gateways while so many pairs carry comparedEach packets each way.
func (b *bench) recordBoth(pairs int) (fileA, fileB string) {
	t := b.t
	t.Helper()
	stage := stages(t)
	dir := t.TempDir()
	fileA, fileB = filepath.Join(dir, "a.xsr"), filepath.Join(dir, "b.xsr")
	// Loading takes the longest, and who follows TCP inside the tunnels is of no account here.
	atA, atB := start(t, b.tunnel.A, "record", "--no-inner", "-o", fileA), start(t, b.tunnel.B, "record", "--no-inner", "-o", fileB)
	atA.await(t)
	atB.await(t)
	stage("both record")
	for range comparedEach / 8 {
		for i := range pairs {
			b.send(b.tunnel.AtoB[i], 8)
			b.send(b.tunnel.BtoA[i], 8)
		}
	}
	b.settle()
	stage("all packets are sent")
	// A snapshot of each sender has its last number, and the receiver's last one is a horizon after that.
	grown(t, fileA, 3)
	grown(t, fileB, 3)
	time.Sleep(horizon)
	atA.end(t)
	atB.end(t)
	stage("both recordings are closed")
	return fileA, fileB
}

// grown waits until a recording has been added to so many times: once may be what had waited to be written,
// the others are snapshots.
func grown(t *testing.T, file string, times int) {
	t.Helper()
	size := int64(-1)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() == size {
			continue
		}
		if times--; times < 0 { // the first look counts for nothing
			return
		}
		size = info.Size()
	}
	t.Fatalf("%s does not grow", file)
}

// stages tells how long each part of a scenario took.
func stages(t *testing.T) func(string) {
	last := time.Now()
	return func(what string) {
		t.Helper()
		t.Logf("%s after %.1f s", what, time.Since(last).Seconds())
		last = time.Now()
	}
}

// losePackets sets both gateways up to lose packets.
func (b *bench) losePackets(ends map[string]*tunnel.Gateway) {
	b.t.Helper()
	chains := map[string]map[string][]string{"A": {}, "B": {}}
	add := func(p losing, s tunnel.SA, from, to string) {
		spi := fmt.Sprintf("0x%08x", s.SPI)
		if p.nft != "" {
			chain, match, _ := strings.Cut(p.nft, " ")
			end := to
			if chain == "output" {
				end = from
			}
			if strings.Contains(match, "%[2]s") {
				match = fmt.Sprintf(match, spi, s.Src)
			} else {
				match = fmt.Sprintf(match, spi)
			}
			chains[end][chain] = append(chains[end][chain], fmt.Sprintf("%s counter drop comment \"spi-%s\"", match, spi))
		}
		if p.tc {
			ns := ends[from].Namespace
			command(b.t, ns, "tc qdisc replace dev "+tunnel.WAN+" clsact")
			command(b.t, ns, "tc filter add dev "+tunnel.WAN+" egress protocol ip u32 match ip protocol 50 0xff match u32 "+spi+" 0xffffffff at 20 action drop")
		}
	}
	for i, p := range losingPairs {
		add(p, b.tunnel.AtoB[i], "A", "B")
		add(p, b.tunnel.BtoA[i], "B", "A")
	}
	for label, g := range ends {
		var set strings.Builder
		set.WriteString("table inet lab {\n")
		for chain, rules := range chains[label] {
			fmt.Fprintf(&set, "chain at_%s {\ntype filter hook %s priority 0; policy accept;\n%s\n}\n", chain, chain, strings.Join(rules, "\n"))
		}
		set.WriteString("}\n")
		err := g.Do(func() error {
			cmd := exec.Command("nft", "-f", "-")
			cmd.Stdin = strings.NewReader(set.String())
			out, err := cmd.CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s\n%s", err, out, set.String())
			}
			return nil
		})
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

// compareFiles runs the command on two files.
func compareFiles(t *testing.T, a, b string) (comparison, int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(binary(t), "compare", "--json", a, b)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		t.Fatalf("compare: %v\n%s", err, stderr.Bytes())
	}
	var d comparison
	if err := json.Unmarshal(stdout.Bytes(), &d); err != nil {
		t.Fatalf("read comparison: %v\n%s", err, stdout.Bytes())
	}
	valid(t, "compare", stdout.Bytes())
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("comparison:\n%s", stdout.Bytes())
		}
	})
	return d, cmd.ProcessState.ExitCode()
}

// checkLosing holds the account of one SA against what was done to it.
func (b *bench) checkLosing(t *testing.T, d comparison, p losing, s tunnel.SA, from, to string) {
	t.Helper()
	for _, sa := range d.SAs {
		if sa.SPI != name(s.SPI) {
			continue
		}
		what := fmt.Sprintf("%s from %s: ", p.name, from)
		if !sa.Joined || sa.From != from || sa.To != to {
			t.Errorf("%sjoined %v from %s to %s: %s", what, sa.Joined, sa.From, sa.To, sa.Why)
			return
		}
		diff(t, what+"first, last, uncertainty", []int64{1, comparedEach, 0}, []int64{int64(sa.Range.First), int64(sa.Range.Last), sa.Range.Uncertainty})
		diff(t, what+"lost", p.lost, sa.Lost)
		// The receiver's socket is a judge that knows nothing of ledgers.
		distinct, _ := b.flows[s.SPI].Delivered()
		kept := comparedEach - p.lost.Sender - p.lost.Path - p.lost.Receiver
		diff(t, what+"datagrams delivered", []int64{kept, kept}, []int64{int64(distinct), figure(sa.Receiver["delivered"])})
		diff(t, what+"numbered, on the wire", []int64{comparedEach, comparedEach - p.lost.Sender},
			[]int64{figure(sa.Sender["numbered"]), figure(sa.Sender["on_wire"])})
		way := map[string]inject.Direction{"A": inject.AtoB, "B": inject.BtoA}[from]
		truth := b.path.Truth(way, s.SPI)
		diff(t, what+"packets that reached the path and that left it", []int64{int64(len(truth.In)), int64(len(truth.Out))},
			[]int64{figure(sa.Sender["on_wire"]), figure(sa.Receiver["arrivals"])})
		for _, part := range []map[string]any{sa.Sender, sa.Path, sa.Receiver} {
			if u := figure(part["unattributed"]); u != 0 {
				t.Errorf("%sunattributed %v", what, part)
			}
		}
		var drops []string
		for _, x := range sa.Drops {
			drops = append(drops, x.Stage+" "+x.Place+" "+strconv.FormatInt(x.Packets, 10))
		}
		diff(t, what+"drops outside xfrm", p.drops, strings.Join(drops, ", "))
		return
	}
	t.Errorf("no SA %s", name(s.SPI))
}

func figure(v any) int64 {
	n, ok := v.(float64)
	if !ok {
		return math.MinInt64
	}
	return int64(n)
}
