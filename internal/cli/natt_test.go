// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"slices"
	"testing"

	"github.com/spf13/pflag"
)

// TestNATTPorts: a port that is named comes on top of the usual one, in every command that has the flag.
func TestNATTPorts(t *testing.T) {
	live, dropped := liveOptions{}, dropsOptions{nattPorts: []uint{10000}}
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	live.addFlags(f)
	if err := f.Parse([]string{"--natt-port", "10000,4500", "--natt-port", "10000"}); err != nil {
		t.Fatal(err)
	}
	opts, err := live.probeOptions()
	if want := []uint16{4500, 10000}; err != nil || !slices.Equal(opts.NATTPorts, want) {
		t.Errorf("live: %v, %v", opts.NATTPorts, err)
	}
	if err := dropped.check(); err != nil || !slices.Equal(dropped.NATTPorts, []uint16{4500, 10000}) {
		t.Errorf("drops: %v, %v", dropped.NATTPorts, err)
	}
	if got, err := espPorts(nil); err != nil || !slices.Equal(got, []uint16{4500}) {
		t.Errorf("none named: %v, %v", got, err)
	}
	var usage *usageError
	for _, bad := range [][]uint{{0}, {65536}, {1, 2, 3, 4, 5, 6, 7, 8}} {
		if got, err := espPorts(bad); !errors.As(err, &usage) {
			t.Errorf("%v: %v, %v", bad, got, err)
		}
	}
	if _, err := espPorts([]uint{1, 2, 3, 4, 5, 6, 7, 4500}); err != nil {
		t.Error(err)
	}
}
