// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/lab/tunnel"
)

// Of include/uapi/linux/cryptouser.h and include/linux/crypto.h.
const (
	cryptoNewAlg      = 0x10
	cryptoDelAlg      = 0x11
	cryptoPriorityVal = 1
	cryptoTypeAEAD    = 3
	cryptoTypeMask    = 0xf
	mostUrgent        = 9999
)

// cryptoAlg is struct crypto_user_alg.
type cryptoAlg struct {
	name, driver, module   [64]byte
	kind, mask, refs, flag uint32
}

// TestAsynchronousCipher has every packet decrypted by somebody else later, so that xfrm_input() ends before it is
// known whether the packet is good, and is entered again for it.
func TestAsynchronousCipher(t *testing.T) {
	tunnel.Need(t)
	asynchronous(t)
	b := open(t, tunnel.Options{}, oneOfEach(tunnel.FirstSPIAtoB), "--latency")
	s, back := b.tunnel.AtoB[0], b.tunnel.BtoA[0]
	b.send(s, 250)
	b.send(back, 60)
	o := b.finish()
	if l := o.find(t, s.SPI, "in").Latency; l == nil || l.Async == 0 {
		t.Errorf("invalid run: no packet was finished later: %+v", l)
	}
	for i := range o.report.SAs { // what they take is another test's question
		o.report.SAs[i].Latency = nil
	}
	b.checkOut(o, back.SPI, 60)
	b.checkEach(o)
}

// asynchronous makes the kernel prefer AES-GCM through cryptd, which hands each packet to a worker, for all
// SAs that are made until the test ends.
func asynchronous(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("modprobe", "-a", "crypto_user", "cryptd").CombinedOutput(); err != nil {
		t.Fatalf("load cryptd: %v: %s", err, out)
	}
	conn, err := netlink.Dial(unix.NETLINK_CRYPTO, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	retry := func(kind netlink.HeaderType, driver string, while error) (err error) {
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
			if err = askCrypto(conn, kind, driver); !errors.Is(err, while) {
				break
			}
		}
		return err
	}
	// EAGAIN: the kernel has begun to put the cipher together.
	if err := retry(cryptoNewAlg, "seqiv(cryptd("+gcm+"))", unix.EAGAIN); err != nil && !errors.Is(err, unix.EEXIST) {
		t.Fatalf("prefer an asynchronous cipher: %v", err)
	}
	// What ESP asks for is the inner one with its generator of initialisation vectors around it.
	outer, inner := driver(t, "seqiv("+gcm+")", "seqiv(cryptd("), driver(t, gcm, "cryptd(")
	// SAs hold on to their cipher until they are let go of, which the kernel does in the background.
	t.Cleanup(func() {
		for _, d := range []string{outer, inner} {
			if err := retry(cryptoDelAlg, d, unix.EBUSY); err != nil {
				t.Errorf("forget the asynchronous cipher %q: %v", d, err)
			}
		}
	})
}

const gcm = "rfc4106(gcm(aes))"

func askCrypto(conn *netlink.Conn, kind netlink.HeaderType, driver string) error {
	alg := cryptoAlg{kind: cryptoTypeAEAD, mask: cryptoTypeMask}
	copy(alg.driver[:], driver)
	data := append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&alg)), unsafe.Sizeof(alg))...)
	if kind == cryptoNewAlg {
		more := netlink.NewAttributeEncoder()
		more.Uint32(cryptoPriorityVal, mostUrgent)
		priority, err := more.Encode()
		if err != nil {
			return err
		}
		data = append(data, priority...)
	}
	_, err := conn.Execute(netlink.Message{Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Acknowledge}, Data: data})
	if err != nil {
		return fmt.Errorf("driver %q: %w", driver, err)
	}
	return nil
}

// driver is the name of the driver that the kernel has for a cipher and that begins so.
func driver(t *testing.T, cipher, begin string) string {
	t.Helper()
	text, err := os.ReadFile("/proc/crypto")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range strings.Split(string(text), "\n\n") {
		fields := map[string]string{}
		for line := range strings.Lines(entry) {
			key, value, _ := strings.Cut(line, ":")
			fields[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
		if fields["name"] == cipher && strings.HasPrefix(fields["driver"], begin) {
			return fields["driver"]
		}
	}
	t.Fatalf("the kernel has no driver %s… for %s", begin, cipher)
	return ""
}
