// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/swan"
	"xfrmscope/internal/lab/tunnel"
)

// command runs a program in a namespace.
func command(t *testing.T, ns *tunnel.Namespace, line string) []byte {
	t.Helper()
	var stdout, stderr bytes.Buffer
	fields := strings.Fields(line)
	err := ns.Do(func() error {
		cmd := exec.Command(fields[0], fields[1:]...)
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		return cmd.Run()
	})
	if err != nil {
		t.Fatalf("%s in %s: %v: %s", line, ns.Name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes()
}

// kernelSince says whether the running kernel is of this version or a later one.
func kernelSince(t *testing.T, major, minor int) bool {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	var is, sub int
	release := unix.ByteSliceToString(u.Release[:])
	if _, err := fmt.Sscanf(release, "%d.%d", &is, &sub); err != nil {
		t.Fatalf("read the kernel's version %q: %v", release, err)
	}
	return is > major || is == major && sub >= minor
}

// machineSetting changes a setting of the whole machine for the time of a test.
func machineSetting(t *testing.T, name, value string) {
	t.Helper()
	path := "/proc/sys/" + name
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, bytes.TrimSpace(before), 0); err != nil {
			t.Error(err)
		}
	})
}

// shout sends datagrams that nobody listens to.
func shout(to string, count, size int) error {
	conn, err := net.Dial("udp", to)
	if err != nil {
		return err
	}
	datagram := make([]byte, size)
	for range count {
		if _, err := conn.Write(datagram); err != nil {
			return errors.Join(err, conn.Close())
		}
	}
	return conn.Close()
}

// queueDrops is what tc says that the root queue of a device dropped.
func queueDrops(t *testing.T, ns *tunnel.Namespace, device string) int64 {
	t.Helper()
	var all []struct {
		Kind  string `json:"kind"`
		Root  bool   `json:"root"`
		Drops int64  `json:"drops"`
	}
	if err := json.Unmarshal(command(t, ns, "tc -s -j qdisc show dev "+device), &all); err != nil {
		t.Fatalf("read queues of %s: %v", device, err)
	}
	for _, q := range all {
		if q.Root {
			return q.Drops
		}
	}
	t.Fatalf("%s has no root queue", device)
	return 0
}

// softnet adds up two columns of /proc/net/softnet_stat: packets dropped, times squeezed.
func softnet(t *testing.T) (dropped, squeezed int64) {
	t.Helper()
	text, err := os.ReadFile("/proc/net/softnet_stat")
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		for i, into := range []*int64{&dropped, &squeezed} {
			n, err := strconv.ParseInt(fields[1+i], 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			*into += n
		}
	}
	return dropped, squeezed
}

// link picks a device of the report by name.
func (o observation) link(t *testing.T, name string) link {
	t.Helper()
	i := slices.IndexFunc(o.report.Host.Links, func(l link) bool { return l.Name == name })
	if i < 0 {
		t.Fatalf("the report has no device %s: %+v", name, o.report.Host.Links)
	}
	return o.report.Host.Links[i]
}

// TestQueueAndDevice has the queue of gateway B's device drop packets of its SA, the device at the
// other end of the cable refuse some as too long, and the queue of a device without SAs drop as well,
// of which nothing is to be found.
func TestQueueAndDevice(t *testing.T) {
	tunnel.Need(t)
	b := open(t, tunnel.Options{}, nil)
	s := b.tunnel.BtoA[0]
	if err := b.tunnel.B.IP("link add aside type dummy", "addr add 198.18.7.1/24 dev aside", "link set aside up",
		"neigh add 198.18.7.9 lladdr 02:00:00:00:00:09 dev aside"); err != nil {
		t.Fatal(err)
	}
	b.send(s, 50)
	b.settle()
	const refused = 12
	mtu := func(n int) {
		if err := b.tunnel.Path.IP(fmt.Sprintf("link set %s mtu %d", tunnel.PathB, n)); err != nil {
			t.Fatal(err)
		}
	}
	mtu(200)
	b.send(s, refused)
	b.settle()
	mtu(1500)
	for _, device := range []string{tunnel.WAN, "aside"} {
		command(t, b.tunnel.B.Namespace, "tc qdisc replace dev "+device+" root handle 7: tbf rate 200kbit burst 1600 limit 3000")
	}
	b.send(s, 120)
	if err := b.tunnel.B.Do(func() error { return shout("198.18.7.9:9", 120, 300) }); err != nil {
		t.Fatal(err)
	}
	o := b.finishLossy()

	sent := int64(50 + refused + 120)
	arrived := int64(len(b.path.Truth(inject.BtoA, s.SPI).In))
	dropped, aside := queueDrops(t, b.tunnel.B.Namespace, tunnel.WAN), queueDrops(t, b.tunnel.B.Namespace, "aside")
	if dropped == 0 || aside == 0 {
		t.Fatalf("invalid run: the queues dropped %d and %d", dropped, aside)
	}
	diff(t, "packets that reached the path", sent-refused-dropped, arrived)
	out := o.find(t, s.SPI, "out").Ledger
	diff(t, "encapsulated, lost on egress, on the wire, unattributed", []int64{sent, refused + dropped, arrived, 0},
		[]int64{*out.Encapsulated, *out.LostOnEgress, *out.OnWire, *out.Unattributed})
	wan := o.link(t, tunnel.WAN)
	diff(t, "tx_dropped of the device", int64(refused), wan.Counters["tx_dropped"])
	if !wan.CarriesSAs || o.link(t, "aside").CarriesSAs {
		t.Error("the report mistakes which device carries SAs")
	}
	for name, want := range map[string]int64{tunnel.WAN: dropped, "aside": aside} {
		got := int64(0)
		for _, q := range o.link(t, name).Qdiscs {
			if q.Parent == "root" {
				got += q.Drops
			}
		}
		diff(t, "drops of the queue of "+name, want, got)
	}
	o.checkFindings(t, "nic-tx-errors", "qdisc-drop")
	for _, f := range o.report.Findings {
		// All that was lost was ESP of the SA, and the hook that sees packets freed says so.
		if f.Confidence != 0.99 {
			t.Errorf("%s has confidence %v: %+v", f.ID, f.Confidence, f.Evidence)
		}
	}
	o.checkSelf(t)
}

// burst holds packets of gateway A back on the path and lets them go at once, so that gateway B finds
// them in its backlog faster than it takes them out.
func (b *bench) burst(s tunnel.SA, packets int) {
	b.t.Helper()
	command(b.t, b.tunnel.Path, "tc qdisc replace dev "+tunnel.PathB+" root plug limit 1000000")
	left := func() uint64 { // those that the backlog has no room for are dropped by the cable's end
		c, err := b.tunnel.Path.Link(tunnel.PathB)
		b.must(err)
		return c.TxPackets + c.TxDropped
	}
	before := left()
	b.send(s, packets)
	b.settle()
	command(b.t, b.tunnel.Path, "tc qdisc change dev "+tunnel.PathB+" root plug release_indefinite")
	b.must(swan.Until("the burst", func() (bool, error) { return left()-before >= uint64(packets), nil }))
	time.Sleep(calm) // and gateway B takes them out of its backlog
}

// TestBacklog overflows the backlog of gateway B's CPU. The hook stands behind it, so that the numbers
// look lost on the path.
func TestBacklog(t *testing.T) {
	tunnel.Need(t)
	machineSetting(t, "net/core/netdev_max_backlog", "10")
	b := open(t, tunnel.Options{}, nil, "--mode", "tc")
	s := b.tunnel.AtoB[0]
	b.send(s, 50)
	b.settle()
	before, _ := softnet(t)
	b.burst(s, 64)
	after, _ := softnet(t)
	b.send(s, 50)
	o := b.finishLossy()

	dropped := after - before
	if dropped == 0 {
		t.Fatal("invalid run: the backlog took everything")
	}
	distinct, _ := b.flows[s.SPI].Delivered()
	diff(t, "datagrams delivered", 164-dropped, int64(distinct))
	got := o.find(t, s.SPI, "in").Ledger
	diff(t, "sent, lost before the hook, decapsulated, unattributed", []int64{164, dropped, 164 - dropped, 0},
		[]int64{*got.Sent, *got.LostOnPath, *got.Decapsulated, *got.Unattributed})
	sum := int64(0)
	for _, c := range o.report.Host.CPUs {
		sum += c.Dropped
	}
	diff(t, "packets that the report says the backlog dropped", dropped, sum)
	o.checkFindings(t, "softnet-drop")
	diff(t, "what it explains", []string{"host-ingress-drop", "path-loss"}, o.report.Findings[0].Folded)
	o.checkSelf(t)
}

// TestSqueezed has the receive loop of gateway B end early time and again. That costs time and loses
// nothing, so there is nothing to find.
func TestSqueezed(t *testing.T) {
	tunnel.Need(t)
	machineSetting(t, "net/core/netdev_budget", "1")
	b := open(t, tunnel.Options{}, nil, "--mode", "tc")
	s := b.tunnel.AtoB[0]
	_, before := softnet(t)
	b.send(s, 50)
	b.burst(s, 200)
	_, after := softnet(t)
	o := b.finish()
	if after == before {
		t.Fatal("invalid run: the receive loop was never cut short")
	}
	b.checkIn(o, s, map[string]int64{})
	squeezed := int64(0)
	for _, c := range o.report.Host.CPUs {
		squeezed += c.Squeezed
	}
	if squeezed < after-before {
		t.Errorf("the report says %d times, the test counted %d", squeezed, after-before)
	}
	o.checkFindings(t)
	o.checkSelf(t)
}

// TestGROHidesESP lets GRO decapsulate before the hook: with esp4_offload loaded and GRO on a device
// that polls, TC never sees the packets. Nothing is wrong, and nothing may be called lost.
func TestGROHidesESP(t *testing.T) {
	tunnel.Need(t)
	b := open(t, tunnel.Options{}, nil, "--mode", "tc")
	b.tool.hidden = true
	s := b.tunnel.AtoB[0]
	b.send(s, 20)
	b.settle()
	command(t, b.tunnel.B.Namespace, "modprobe esp4_offload")
	t.Cleanup(func() { command(t, b.tunnel.B.Namespace, "modprobe -r esp4_offload") })
	command(t, b.tunnel.B.Namespace, "ethtool -K "+tunnel.WAN+" gro on")
	b.send(s, 100)
	b.settle()
	command(t, b.tunnel.B.Namespace, "ethtool -K "+tunnel.WAN+" gro off")
	b.send(s, 20)
	o := b.finishLossy()
	distinct, _ := b.flows[s.SPI].Delivered()
	diff(t, "datagrams delivered", 140, distinct)
	got := o.find(t, s.SPI, "in")
	diff(t, "decapsulated", int64(140), *got.Ledger.Decapsulated)
	arrived, findings := int64(40), []string{"offload-hides-esp " + name(s.SPI)}
	if !kernelSince(t, 5, 13) { // a veth polls only with an XDP program on it, so that the hook sees everything
		arrived, findings = 140, nil
	}
	diff(t, "arrivals", arrived, *got.Ledger.Arrivals)
	o.checkFindings(t, findings...)
	o.checkSelf(t)
}
