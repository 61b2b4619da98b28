// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/lab/tunnel"
)

// gcm is what the lab's SAs are encrypted with; ESP has a generator of initialisation vectors put around it.
const (
	gcm    = "rfc4106(gcm(aes))"
	gcmESP = "seqiv(" + gcm + ")"
)

// TestAsynchronousCipher has every packet encrypted and decrypted by somebody else later, so that xfrm_input() ends
// before it is known whether the packet is good, and is entered again for it. Packets are lost, late, repeated and
// broken meanwhile; the account is exact all the same.
func TestAsynchronousCipher(t *testing.T) {
	tunnel.Need(t)
	asynchronous(t)
	for _, row := range []struct {
		name    string
		options tunnel.Options
	}{{"IPv4", tunnel.Options{}}, {"IPv6", tunnel.Options{Family: 6}}} {
		t.Run(row.name, func(t *testing.T) {
			b := open(t, row.options, oneOfEach(tunnel.FirstSPIAtoB), "--latency")
			// Two SAs at each of two gateways, each with a cipher of its own.
			if c := best(t, gcmESP); !c.asynchronous || !strings.Contains(c.driver, "cryptd(") || c.users <= 4 {
				t.Fatalf("invalid run: SAs are encrypted by %+v", c)
			}
			s, back := b.tunnel.AtoB[0], b.tunnel.BtoA[0]
			b.send(s, 250)
			b.send(back, 60)
			obs := b.finish()
			l := obs.find(t, s.SPI, "in").Latency
			if l == nil || l.Async != l.Packets || l.Packets == 0 {
				t.Errorf("invalid run: not all packets were finished later: %+v", l)
			}
			for i := range obs.report.SAs { // what they take is another test's question
				obs.report.SAs[i].Latency = nil
			}
			b.checkOut(obs, back.SPI, 60)
			b.checkEach(obs)
		})
	}
}

// algorithm is an implementation as /proc/crypto lists it.
type algorithm struct {
	driver          string
	priority, users int
	asynchronous    bool
}

// algorithms lists the implementations of a name.
func algorithms(t *testing.T, name string) (all []algorithm) {
	t.Helper()
	text, err := os.ReadFile("/proc/crypto")
	if err != nil {
		t.Fatal(err)
	}
	for entry := range strings.SplitSeq(string(text), "\n\n") {
		fields := map[string]string{}
		for line := range strings.Lines(entry) {
			key, value, _ := strings.Cut(line, ":")
			fields[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
		if fields["name"] != name || fields["selftest"] != "passed" {
			continue
		}
		a := algorithm{driver: fields["driver"], asynchronous: fields["async"] == "yes"}
		for key, into := range map[string]*int{"priority": &a.priority, "refcnt": &a.users} {
			if *into, err = strconv.Atoi(fields[key]); err != nil {
				t.Fatalf("/proc/crypto: %v", err)
			}
		}
		all = append(all, a)
	}
	return all
}

// best is the implementation that the kernel prefers.
func best(t *testing.T, name string) algorithm {
	t.Helper()
	all := algorithms(t, name)
	if len(all) == 0 {
		t.Fatalf("the kernel has no %s", name)
	}
	return slices.MaxFunc(all, func(a, b algorithm) int { return cmp.Compare(a.priority, b.priority) })
}

// asynchronous makes the kernel prefer AES-GCM through cryptd, which hands each packet to a worker, for all SAs that
// are made until the test ends.
func asynchronous(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("modprobe", "-a", "cryptd", "crypto_user", "algif_aead", "seqiv").CombinedOutput(); err != nil {
		if kernelSince(t, 7, 0) && strings.Contains(string(out), "cryptd not found") {
			t.Skip("this kernel is built without CONFIG_CRYPTO_CRYPTD, which nothing in it needs any more")
		}
		t.Fatalf("load cryptd: %v: %s", err, out)
	}
	if err := ask(gcm); err != nil {
		t.Fatal(err)
	}
	// The kernel makes it of an implementation that is not asynchronous itself, gives it a name that says which one,
	// and then does not find it by the name that it was asked for.
	asked := ask("cryptd(" + gcm + ")")
	made := slices.IndexFunc(algorithms(t, gcm), func(a algorithm) bool { return strings.HasPrefix(a.driver, "cryptd(") })
	if made < 0 {
		t.Fatalf("the kernel makes no AES-GCM through cryptd: %v", asked)
	}
	through := algorithms(t, gcm)[made].driver
	// What ESP asks for is kept once it was made, and goes with what it was made of.
	update(t, best(t, gcm).driver, 0)
	update(t, through, 9999)
	t.Cleanup(func() { update(t, through, 1) })
	if err := ask(gcmESP); err != nil {
		t.Fatal(err)
	}
	if c := best(t, gcmESP); !strings.Contains(c.driver, "cryptd(") {
		t.Fatalf("the kernel prefers %+v for %s", c, gcmESP)
	}
}

// ask has the kernel look for a cipher, and make it of its parts where it is not there yet.
func ask(name string) error {
	fd, err := unix.Socket(unix.AF_ALG, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrALG{Type: "aead", Name: name}), unix.Close(fd)); err != nil {
		return fmt.Errorf("ask for %s: %w", name, err)
	}
	return nil
}

// Of include/uapi/linux/cryptouser.h and include/linux/crypto.h.
const (
	cryptoUpdateAlg   = 0x12
	cryptoPriorityVal = 1
	cryptoTypeAEAD    = 3
	cryptoTypeMask    = 0xf
)

// cryptoAlg is struct crypto_user_alg.
type cryptoAlg struct {
	name, driver, module    [64]byte
	kind, mask, refs, flags uint32
}

// update has the kernel let go of whatever was made of a cipher, and gives that a priority, unless it is 0.
func update(t *testing.T, driver string, priority uint32) {
	t.Helper()
	conn, err := netlink.Dial(unix.NETLINK_CRYPTO, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	alg := cryptoAlg{kind: cryptoTypeAEAD, mask: cryptoTypeMask}
	copy(alg.driver[:], driver)
	m := netlink.Message{Header: netlink.Header{Type: cryptoUpdateAlg, Flags: netlink.Request | netlink.Acknowledge},
		Data: append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&alg)), unsafe.Sizeof(alg))...)}
	if priority != 0 {
		more := netlink.NewAttributeEncoder()
		more.Uint32(cryptoPriorityVal, priority)
		attribute, err := more.Encode()
		if err != nil {
			t.Fatal(err)
		}
		m.Data = append(m.Data, attribute...)
	}
	if _, err := conn.Execute(m); err != nil {
		t.Fatalf("update the cipher %s: %v", driver, err)
	}
}
