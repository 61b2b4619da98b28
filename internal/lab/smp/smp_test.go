// SPDX-License-Identifier: Apache-2.0

package smp

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/lab/tunnel"
)

const (
	// flood is how long gateway B has to decrypt without a pause, trickle how long it has next to nothing
	// to do. xfrmscope does not judge less than two seconds.
	flood   = 20 * time.Second
	trickle = 50
	gap     = 50 * time.Millisecond
	// trial measures how fast the machine at hand decrypts, and mostPackets bounds the memory of a fast one.
	trial       = 1000
	mostPackets = 500000
	// replayWindow is enough for any rate, or the rate alone would be a reason for a remark.
	replayWindow = 4096
	// rules of the firewall on gateway B.
	rules = 3000
	// saturated is what the verdict demands, and calm what is far from it, in percent of a processor.
	saturated = 90
	calm      = 45
)

// bench is a tunnel whose gateway B decrypts on the busy processor.
type bench struct {
	tunnel *tunnel.Tunnel
	store  *store
}

// outcome is what one run of xfrmscope said, and what the test saw by itself meanwhile.
type outcome struct {
	report        document
	exit          int
	busy, softirq float64 // percent of the busy processor
	decrypted     uint64  // by the SA's lifetime
}

// TestCPUSaturated floods an SA with packets until the processor that decrypts them has no time left,
// which is to be found. Then the SA has little to do, on an idle processor and on one that a program
// keeps as busy as before, of which nothing is to be found.
func TestCPUSaturated(t *testing.T) {
	tunnel.Need(t)
	if runtime.NumCPU() <= busyCPU {
		t.Fatal("this test needs two processors: scripts/vm/test -c 2")
	}
	b := build(t)
	b.store.fill(trial)
	begin := time.Now()
	b.store.send(trial, 0, patience)
	rate := trial / time.Since(begin).Seconds()
	packets := min(int(1.5*rate*flood.Seconds()), mostPackets) // a busy machine may have been slow at the trial
	t.Logf("gateway B decrypts %.0f packets a second", rate)
	b.store.fill(packets + 2*trickle)

	t.Run("flood", func(t *testing.T) {
		sent := 0
		o := b.watch(t, nothing, func() { sent = b.store.send(packets, 0, flood) })
		if o.softirq < saturated {
			t.Fatalf("invalid run: processor %d was in softirq %.1f %% of its time", busyCPU, o.softirq)
		}
		b.check(t, o, sent, "cpu-saturated-by-sa "+name(b.tunnel.AtoB[0].SPI))
		if got := o.report.cpu(t, busyCPU).SoftirqPercent; got < saturated {
			t.Errorf("the report has processor %d in softirq %.1f %% of its time, the test saw %.1f %%", busyCPU, got, o.softirq)
		}
	})
	t.Run("trickle", func(t *testing.T) {
		o := b.watch(t, nothing, func() { b.store.send(trickle, gap, patience) })
		if o.softirq > calm {
			t.Fatalf("invalid run: processor %d was in softirq %.1f %% of its time", busyCPU, o.softirq)
		}
		b.check(t, o, trickle)
	})
	t.Run("busy with something else", func(t *testing.T) {
		o := b.watch(t, func() { spin(t) }, func() { b.store.send(trickle, gap, patience) })
		if o.busy < saturated || o.softirq > calm {
			t.Fatalf("invalid run: processor %d was busy %.1f %% of its time, in softirq %.1f %%", busyCPU, o.busy, o.softirq)
		}
		b.check(t, o, trickle)
	})
}

// build raises the tunnel and has gateway B hand all that it receives to the busy processor (RPS).
func build(t *testing.T) *bench {
	t.Helper()
	const limit = "/proc/sys/net/core/netdev_max_backlog"
	before, err := os.ReadFile(limit)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(limit, []byte(strconv.Itoa(backlog)), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(limit, bytes.TrimSpace(before), 0); err != nil {
			t.Error(err)
		}
	})
	tn, err := tunnel.Build(tunnel.Options{Hosts: true, ReplayWindow: replayWindow})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tn.Close(); err != nil {
			t.Error(err)
		}
	})
	// `ip netns exec` shows the namespace's devices in /sys; a thread that only entered it sees its own.
	steer := fmt.Sprintf("echo %x > /sys/class/net/%s/queues/rx-0/rps_cpus", 1<<busyCPU, tunnel.WAN)
	if out, err := exec.Command("ip", "netns", "exec", tn.B.Name, "sh", "-c", steer).CombinedOutput(); err != nil {
		t.Fatalf("steer packets of gateway B: %v: %s", err, out)
	}
	filter := exec.Command("ip", "netns", "exec", tn.B.Name, "nft", "-f", "-")
	filter.Stdin = strings.NewReader(ruleset())
	if out, err := filter.CombinedOutput(); err != nil {
		t.Fatalf("give gateway B a firewall: %v: %s", err, out)
	}
	return &bench{tunnel: tn, store: openStore(t, tn)}
}

// ruleset is a firewall as gateways have them, for what they forward; nothing here matches any rule. With
// it a packet costs more to take than to send, so that one processor can keep another one busy.
func ruleset() string {
	var s strings.Builder
	s.WriteString("table inet lab {\n\tchain at_forward {\n\t\ttype filter hook forward priority 0; policy accept;\n")
	for i := range rules {
		fmt.Fprintf(&s, "\t\tip saddr 198.18.%d.%d drop\n", i/256, i%256)
	}
	s.WriteString("\t}\n}\n")
	return s.String()
}

func nothing() {}

// watch runs xfrmscope on gateway B while the work is done. Only the work is measured; what prepares it
// waits until xfrmscope is ready, for in an emulated machine it could take the time for that from it.
func (b *bench) watch(t *testing.T, prepare, work func()) outcome {
	t.Helper()
	sa := b.tunnel.AtoB[0]
	counters := func() uint64 {
		c, err := sa.Counters(b.tunnel.B)
		if err != nil {
			t.Fatal(err)
		}
		return c.Packets
	}
	var o outcome
	b.store.t = t
	decrypted := counters()
	x := startTool(t, b.tunnel.B)
	prepare()
	begin := readTimes(t, busyCPU)
	work()
	end := readTimes(t, busyCPU)
	o.report, o.exit = x.finish(t)
	o.decrypted = counters() - decrypted
	total := end.total - begin.total
	o.busy = share(total-(end.idle-begin.idle), total)
	o.softirq = share(end.softirq-begin.softirq, total)
	t.Logf("processor %d: busy %.1f %%, in softirq %.1f %%; the report: %+v; %d packets", busyCPU, o.busy, o.softirq, o.report.Host.CPUs, o.decrypted)
	return o
}

// check demands exactly these findings, and every packet in its place.
func (b *bench) check(t *testing.T, o outcome, packets int, findings ...string) {
	t.Helper()
	n := int64(packets)
	diff(t, "packets that the SA decrypted", uint64(packets), o.decrypted)
	got, exit := []string{}, 0
	for _, f := range o.report.Findings {
		if f.Severity != "info" {
			exit = 1
		}
		got = append(got, strings.TrimSpace(f.ID+" "+f.Subject.SPI))
	}
	diff(t, "findings", append([]string{}, findings...), got)
	diff(t, "exit status", exit, o.exit)
	i := slices.IndexFunc(o.report.SAs, func(s sa) bool { return s.SPI == name(b.tunnel.AtoB[0].SPI) && s.Direction == "in" })
	if i < 0 {
		t.Fatal("the report lacks the SA")
	}
	s := o.report.SAs[i]
	diff(t, "the SA's packets by processor", map[string]int64{strconv.Itoa(busyCPU): n}, s.CPUs)
	diff(t, "ledger", bins{Arrivals: n, Decapsulated: n, Delivered: n}, s.Ledger)
	for _, c := range o.report.Host.CPUs {
		diff(t, fmt.Sprintf("packets that the backlog of processor %d dropped", c.ID), int64(0), c.Dropped)
	}
}

func name(spi uint32) string { return fmt.Sprintf("0x%08x", spi) }

func diff(t *testing.T, what string, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}
