// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"os"
	"testing"
)

// needBPF skips a test where BPF cannot be had, but not in CI, where that would test nothing.
func needBPF(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("this test loads BPF programs, CI has to run it as root")
	}
	t.Skip("needs root")
}
