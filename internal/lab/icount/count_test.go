// SPDX-License-Identifier: Apache-2.0

package icount

import (
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/traffic"
	"xfrmscope/internal/lab/tunnel"
	"xfrmscope/internal/probe"
)

const (
	rounds   = 5
	perRound = 200 // datagrams
	chunk    = 50  // of them under way at most
	patience = 2 * time.Minute
)

// scene is a set of programs at one gateway, and what passes it.
type scene struct {
	name    string
	options probe.Options
	deny    func(*probe.Capabilities)
	sender  bool // observe gateway A, which sends; else B, which receives
	twice   bool // every packet comes twice
}

// XDP is what a card has, and TC what this veth would have.
var everything = probe.Options{Mode: probe.ModeXDP, Latency: true, Packets: &probe.PacketOptions{RingBytes: 64 << 20}}

// scenes are few, because verifying the programs is most of what the machine does in them. The twins that
// are kprobes do the same as the programs that are counted.
var scenes = []scene{
	{name: "in", options: everything},
	{name: "in-tc", options: probe.Options{Mode: probe.ModeTC, WireOnly: true}},
	{name: "in-spinlock", options: probe.Options{Mode: probe.ModeXDP, WireOnly: true}, deny: func(c *probe.Capabilities) { c.Atomics = ebpf.ErrNotSupported }},
	{name: "out", options: everything, sender: true},
	{name: "replay", options: probe.Options{Mode: probe.ModeXDP}, twice: true},
	{name: "replay-drops", options: probe.Options{Mode: probe.ModeXDP, Drops: &bpfobj.DropsConfig{HasReason: true}}, twice: true},
}

// TestInstructions counts every program that runs for packets, above an empty one of its kind.
func TestInstructions(t *testing.T) {
	tunnel.Need(t)
	needCounting(t)
	counts := map[string]float64{}
	for _, s := range scenes {
		t.Run(s.name, func(t *testing.T) {
			for name, n := range s.count(t) {
				counts[s.name+"/"+name] = n
			}
		})
	}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("COUNT %s %.0f", name, counts[name])
	}
	worse, better := compare(baseline(t), counts)
	for _, line := range better {
		t.Log(line)
	}
	for _, line := range worse {
		t.Error(line)
	}
}

// straight is how many instructions, one after the other, tell what the clock counts.
const straight = 4000

// needCounting makes a test fail where the clock does not count instructions, by running some.
func needCounting(t *testing.T) {
	t.Helper()
	if line, err := os.ReadFile("/proc/cmdline"); err != nil || !strings.Contains(string(line), "vm.icount=yes") {
		t.Fatalf("the clock of this machine is not its instructions: make bench-vm runs this where it is (%v)", err)
	}
	var took [2]time.Duration
	for i, n := range []int{0, straight} {
		code := make(asm.Instructions, 0, n+2)
		code = append(code, asm.Mov.Imm(asm.R0, 0))
		for range n {
			code = append(code, asm.Add.Imm(asm.R0, 1))
		}
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "Dual BSD/GPL", Instructions: append(code, asm.Return())})
		if err != nil {
			t.Fatal(err)
		}
		defer closed(t, prog)
		for range rounds {
			_, d, err := prog.Benchmark(make([]byte, 64), 1000, nil)
			if err != nil {
				t.Fatal(err)
			}
			if took[i] == 0 || d < took[i] {
				took[i] = d
			}
		}
	}
	if n := float64((took[1] - took[0]).Nanoseconds()) / straight; n < 0.98 || n > 1.02 {
		t.Fatalf("an instruction takes %.3f ns by this machine's clock, not 1", n)
	}
}

// count runs the scene and returns the instructions of a run of each program, the median of all rounds.
func (s scene) count(t *testing.T) map[string]float64 {
	t.Helper()
	tun, err := tunnel.Build(tunnel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, tun)
	var rules []inject.Rule
	if s.twice {
		rules = append(rules, inject.Rule{Direction: inject.AtoB, SPI: tun.AtoB[0].SPI, Seqs: inject.Every(1, (rounds+1)*perRound, 1), Action: inject.Duplicate})
	}
	path, err := inject.Open(inject.Path{A: tunnel.PathA, B: tunnel.PathB, Do: tun.Path.Do}, rules...)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, path)
	k, err := probe.AskKernel()
	if err != nil {
		t.Fatal(err)
	}
	if s.deny != nil {
		s.deny(&k.Capabilities)
	}
	gateway := tun.B
	if s.sender {
		gateway = tun.A
	}
	o := s.options
	o.Netns, o.Interfaces, o.RunTimeStats = gateway.Name, []string{tunnel.WAN}, true
	set, err := probe.Open(k, o)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, set)
	src, err := set.Source()
	if err != nil {
		t.Fatal(err)
	}
	none, err := attachEmpties(tun.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, none)
	progs := maps.Clone(src.Programs)
	for kind, p := range none.progs {
		progs["empty "+kind] = p
	}
	sa := tun.AtoB[0]
	flow, err := traffic.Open(traffic.Ends{From: tun.A.Do, To: tun.B.Do, Src: sa.Src, Dst: sa.Dst, Port: tunnel.Port})
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, flow)
	send(t, flow) // opens the SA
	means := map[string][]float64{}
	for range rounds {
		before := stats(t, progs)
		send(t, flow)
		if err := path.Quiet(20*time.Millisecond, patience); err != nil {
			t.Fatal(err)
		}
		for name, after := range stats(t, progs) {
			runs := after.RunCount - before[name].RunCount
			if runs < perRound/2 {
				continue
			}
			means[name] = append(means[name], float64(after.Runtime-before[name].Runtime)/float64(runs))
		}
	}
	out := map[string]float64{}
	for name, m := range means {
		if len(m) < rounds || strings.HasPrefix(name, "empty ") {
			continue
		}
		empty := means["empty "+kindOf(progs[name])]
		if len(empty) < rounds {
			t.Errorf("%s: no empty %s program ran beside it", name, kindOf(progs[name]))
			continue
		}
		slices.Sort(m)
		slices.Sort(empty)
		t.Logf("%s: %.1f to %.1f, empty %.1f to %.1f", name, m[0], m[rounds-1], empty[0], empty[rounds-1])
		out[name] = m[rounds/2] - empty[rounds/2]
	}
	return out
}

// send sends a round's datagrams, a chunk at a time, so that nothing is dropped on the way.
func send(t *testing.T, flow *traffic.Flow) {
	t.Helper()
	for range perRound / chunk {
		if err := flow.Send(chunk, 0); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(patience)
		for {
			if got, _ := flow.Delivered(); uint64(got) == flow.Sent() {
				break
			}
			if time.Now().After(deadline) {
				got, _ := flow.Delivered()
				t.Fatalf("%d of %d datagrams arrived", got, flow.Sent())
			}
			time.Sleep(time.Millisecond)
		}
	}
}

func stats(t *testing.T, progs map[string]*ebpf.Program) map[string]ebpf.ProgramStats {
	t.Helper()
	out := map[string]ebpf.ProgramStats{}
	var errs []error
	for name, p := range progs {
		s, err := p.Stats()
		errs = append(errs, err)
		if err == nil {
			out[name] = *s
		}
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return out
}

func closed(t *testing.T, c interface{ Close() error }) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
