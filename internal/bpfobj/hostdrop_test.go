// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// dropLab is a network namespace of its own, in which nobody listens, under the drop program.
type dropLab struct {
	coll *ebpf.Collection
}

// openDropLab moves the test's thread into a new namespace, which ends with the thread. The program reads packets
// as the kernel has it do, or, on request, without bpf_rdonly_cast().
func openDropLab(t testing.TB, withoutCast bool) *dropLab {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread is given up with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("make a network namespace: %v", err)
		}
		t.Skipf("make a network namespace (needs root): %v", err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("ip link set lo up: %v: %s", err, out)
	}
	spec, err := LoadDrop()
	if err != nil {
		t.Fatal(err)
	}
	if withoutCast {
		WithoutCast(spec)
	}
	if err := ConfigureDrop(spec, true, nil); err != nil {
		t.Fatal(err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(coll.Close)
	if found, err := coll.Programs["pick_netns"].Run(&ebpf.RunOptions{}); err != nil || found != 1 {
		t.Fatalf("pick_netns: %d, %v", found, err)
	}
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "kfree_skb", Program: coll.Programs["host_drop"]})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return &dropLab{coll}
}

// seen sums what a map holds by what the test looks at.
func (l *dropLab) seen(t *testing.T, name string) map[DropKey]uint64 {
	t.Helper()
	out := map[DropKey]uint64{}
	var key DropKey
	var perCPU []uint64
	it := l.coll.Maps[name].Iterate()
	for it.Next(&key, &perCPU) {
		k := DropKey{Spi: key.Spi, Stage: key.Stage, Proto: key.Proto, Dir: key.Dir, Family: key.Family, Hook: key.Hook, Dport: key.Dport}
		for _, n := range perCPU {
			out[k] += n
		}
		if key.Location == 0 || key.Ifindex != 1 || key.Flags != 0 {
			t.Errorf("location %#x, interface %d, flags %d", key.Location, key.Ifindex, key.Flags)
		}
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// packets is how many were counted as they came in.
func (l *dropLab) packets(t *testing.T) (n uint64) {
	t.Helper()
	for _, packets := range l.seen(t, "stray_drops") {
		n += packets
	}
	return n
}

// sendESP sends packets with an ESP header to this host, which has no SA for them.
func sendESP(t *testing.T, spi uint32, count int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	p := espPacket(spi)
	for range count {
		if err := unix.Sendto(fd, p, 0, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Fatal(err)
		}
	}
}

// sendUDP sends datagrams that nobody takes, from a socket that does not hear of it.
func sendUDP(t testing.TB, to string, count int, payload []byte) {
	t.Helper()
	addr, err := net.ResolveUDPAddr("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: addr.IP})
	if err != nil {
		t.Fatal(err)
	}
	for range count {
		if _, err := conn.WriteToUDP(payload, addr); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
}

// dropMessage closes a socket of this host on a message that nobody has read, which then is dropped.
func dropMessage(t *testing.T, message []byte) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Send(pair[0], message, 0), unix.Close(pair[1]), unix.Close(pair[0])); err != nil {
		t.Fatal(err)
	}
}

// espPacket is an IPv4 packet with an ESP header.
func espPacket(spi uint32) []byte {
	p := make([]byte, 20+40)
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_ESP
	copy(p[12:], []byte{127, 0, 0, 1, 127, 0, 0, 1})
	binary.BigEndian.PutUint32(p[20:], spi)
	return p
}

// TestHostDrop drops packets of each kind, and packets of no interest, in another namespace too.
func TestHostDrop(t *testing.T) {
	for name, withoutCast := range map[string]bool{"as the kernel can": false, "without casts": true} {
		t.Run(name, func(t *testing.T) { testHostDrop(t, openDropLab(t, withoutCast)) })
	}
}

func testHostDrop(t *testing.T, l *dropLab) {
	esp := append(binary.BigEndian.AppendUint32(nil, 0xc0ffee02), make([]byte, 60)...)
	sendESP(t, 0xc0ffee01, 5)
	sendUDP(t, "127.0.0.1:500", 4, make([]byte, 40))
	sendUDP(t, "[::1]:4500", 3, make([]byte, 40)) // behind the non-ESP marker
	sendUDP(t, "127.0.0.1:4500", 6, esp)
	sendUDP(t, "127.0.0.1:4500", 2, []byte{0xff})
	sendUDP(t, "127.0.0.1:4500", 8, []byte{1, 2, 3, 4}) // too short for ESP
	sendUDP(t, "127.0.0.1:9999", 50, esp)
	dropMessage(t, espPacket(0xc0ffee04)) // no packet, whatever a user writes into it
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("ip link set lo up: %v: %s", err, out)
	}
	sendESP(t, 0xc0ffee03, 7)

	in := func(k DropKey) DropKey {
		k.Hook, k.Dir = DropDropHookDROP_HOOK_INPUT, 0
		return k
	}
	udp := DropKey{Proto: unix.IPPROTO_UDP, Family: 4}
	ike, ike6, alive := udp, udp, udp
	ike.Stage, ike.Dport = DropDropStageDROP_IKE, 500
	ike6.Stage, ike6.Dport, ike6.Family = DropDropStageDROP_IKE, 4500, 6
	short := udp
	short.Stage, short.Dport = DropDropStageDROP_IKE, 4500
	alive.Stage, alive.Dport = DropDropStageDROP_KEEPALIVE, 4500
	want := map[DropKey]uint64{
		in(DropKey{Spi: 0xc0ffee01, Proto: unix.IPPROTO_ESP, Family: 4}):              5,
		in(DropKey{Spi: 0xc0ffee02, Proto: unix.IPPROTO_ESP, Family: 4, Dport: 4500}): 6,
		in(ike): 4, in(ike6): 3, in(alive): 2, in(short): 8,
	}
	// What is sent is received, and dropped, by a softirq that may come later.
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && l.packets(t) < 5+6+4+3+2+8; {
		time.Sleep(time.Millisecond)
	}
	if diff := cmp.Diff(want, l.seen(t, "stray_drops")); diff != "" {
		t.Errorf("stray_drops (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[DropKey]uint64{}, l.seen(t, "host_drops")); diff != "" {
		t.Errorf("host_drops (-want +got):\n%s", diff)
	}
}

// benchmarkDrops has b.N packets dropped and reports what an attached program took for each by the kernel's
// own clock, above what a program took that does nothing: reading the clock is in both.
func benchmarkDrops(b *testing.B, prog *ebpf.Program, to string) {
	b.Helper()
	empty, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.RawTracepoint, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		b.Fatal(err)
	}
	defer empty.Close()
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "kfree_skb", Program: empty})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		b.Fatal(err)
	}
	defer stats.Close()
	mean := func(p *ebpf.Program, before *ebpf.ProgramStats) float64 {
		after, err := p.Stats()
		if err != nil {
			b.Fatal(err)
		}
		if after.RunCount == before.RunCount {
			return 0
		}
		return float64(after.Runtime-before.Runtime) / float64(after.RunCount-before.RunCount)
	}
	before, err := prog.Stats()
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	sendUDP(b, to, b.N, make([]byte, 64))
	b.StopTimer()
	nothing := mean(empty, &ebpf.ProgramStats{})
	b.ReportMetric(nothing, "empty-ns/drop")
	b.ReportMetric(mean(prog, before)-nothing, "above-empty-ns/drop")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkHostDrop measures what the program costs a dropped packet.
func BenchmarkHostDrop(b *testing.B) {
	for _, row := range []struct {
		name, to string
	}{{"not IPsec", "127.0.0.1:9999"}, {"IKE", "127.0.0.1:500"}} {
		b.Run(row.name, func(b *testing.B) {
			l := openDropLab(b, false)
			benchmarkDrops(b, l.coll.Programs["host_drop"], row.to)
		})
	}
}

// BenchmarkAnyDrop measures what the program of `drops` costs a dropped packet, with and without stacks.
func BenchmarkAnyDrop(b *testing.B) {
	for name, config := range map[string]DropsConfig{
		"count": {HasReason: true}, "stack": {HasReason: true, Stacks: true}, "follow": {HasReason: true, Follow: 1 << 30},
	} {
		b.Run(name, func(b *testing.B) {
			openDropLab(b, false) // the namespace; its program is not counted
			spec, err := LoadDrops()
			if err != nil {
				b.Fatal(err)
			}
			if err := ConfigureDrops(spec, config); err != nil {
				b.Fatal(err)
			}
			if config.Stacks {
				spec.Maps["drop_stacks"].MaxEntries = DropsStacks
				if err := spec.Variables["cfg_stacks"].Set(uint32(1)); err != nil {
					b.Fatal(err)
				}
			}
			coll, err := ebpf.NewCollection(spec)
			if err != nil {
				b.Fatalf("%+v", err)
			}
			b.Cleanup(coll.Close)
			if found, err := coll.Programs["pick_netns"].Run(&ebpf.RunOptions{}); err != nil || found != 1 {
				b.Fatalf("pick_netns: %d, %v", found, err)
			}
			l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "kfree_skb", Program: coll.Programs["any_drop"]})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			benchmarkDrops(b, coll.Programs["any_drop"], "127.0.0.1:9999")
		})
	}
}
