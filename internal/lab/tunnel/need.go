// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"errors"
	"fmt"
	"os"
)

// ErrNoESP says that the machine cannot hold an ESP tunnel.
var ErrNoESP = errors.New("this kernel takes no ESP state")

// Supported tries whether the kernel can hold a tunnel, by building one. A kernel without ESP, or
// one that lacks the crypto, refuses the SAs and nothing before.
func Supported() error {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces and SAs need root")
	}
	t, err := Build(Options{})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoESP, err)
	}
	return t.Close()
}

// guestMark is there in the lab's virtual machines and nowhere else.
const guestMark = "/vm/cmd"

// tester is the part of testing.TB that Need uses.
type tester interface {
	Helper()
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Need makes a test that needs a tunnel fail in the lab's virtual machines and skip elsewhere, when
// there can be none: `make test` runs the same tests on a Debian kernel, so skipping them natively
// hides nothing, while skipping them there would.
func Need(t tester) {
	t.Helper()
	err := Supported()
	if err == nil {
		return
	}
	if _, guest := os.Stat(guestMark); guest == nil {
		t.Fatalf("%v", err)
	}
	t.Skipf("%v; make test-vm runs this on a kernel that does", err)
}
