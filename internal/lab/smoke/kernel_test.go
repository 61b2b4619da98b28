// SPDX-License-Identifier: Apache-2.0

package smoke

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"xfrmscope/internal/lab/tunnel"
)

// version of a kernel. The programs themselves never ask for it: that is what makes it an independent
// measure of what they found.
type version struct{ major, minor int }

func (v version) atLeast(major, minor int) bool {
	return v.major > major || v.major == major && v.minor >= minor
}

// What kernels have, by the version that first had it.
var (
	atomics = version{5, 12} // BPF_CMPXCHG and BPF_FETCH
	tcx     = version{6, 6}

	noUDPLite = version{7, 0}
)

func (v version) has(since version) bool { return v.atLeast(since.major, since.minor) }

func running(t *testing.T) version {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatalf("ask for the kernel's version: %v", err)
	}
	var v version
	release := unix.ByteSliceToString(name.Release[:])
	if _, err := fmt.Sscanf(release, "%d.%d", &v.major, &v.minor); err != nil {
		t.Fatalf("read the kernel's version %q: %v", release, err)
	}
	return v
}

// Devices of the namespace that the tests attach in.
const (
	ethernet = "sm0" // one end of a veth pair
	bare     = "sx0" // an xfrm interface, whose packets have no link header
)

// namespace makes one with an Ethernet device and one without link headers.
func namespace(t *testing.T) *tunnel.Namespace {
	t.Helper()
	tunnel.Need(t)
	ns, err := tunnel.OpenNamespace(fmt.Sprintf("smoke%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := ns.IP(
		"link add "+ethernet+" type veth peer name sm1",
		"link set "+ethernet+" up", "link set sm1 up",
		"addr add 192.0.2.1/24 dev "+ethernet,
		"link add "+bare+" type xfrm dev "+ethernet+" if_id 7",
		"link set "+bare+" up",
	); err != nil {
		t.Fatal(err)
	}
	return ns
}
