// SPDX-License-Identifier: Apache-2.0

package printable

import "testing"

func TestName(t *testing.T) {
	for name, want := range map[string]string{
		"eth0.100":                "eth0.100",
		"wän":                     "wän",
		"a\x1b[2Jb":               "a?[2Jb",
		"a\u009b2J\u202e\x7f\r\n": "a?2J????",
		"a\xffb":                  "a\ufffdb",
	} {
		if got := Name(name); got != want {
			t.Errorf("%q becomes %q, want %q", name, got, want)
		}
	}
}
