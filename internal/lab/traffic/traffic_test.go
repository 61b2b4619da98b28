// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// here runs a function where the test is.
func here(f func() error) error { return f() }

func TestFlowCountsWhatArrives(t *testing.T) {
	local := netip.MustParseAddr("127.0.0.1")
	f, err := Open(Ends{From: here, To: here, Src: local, Dst: local, Port: 49152})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Send(50, 0); err != nil {
		t.Fatal(err)
	}
	// The same numbers once more are repetitions, not new datagrams.
	f.next = 40
	if err := f.Send(15, 0); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if distinct, repeated := f.Delivered(); distinct == 55 && repeated == 10 {
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			return
		}
	}
	distinct, repeated := f.Delivered()
	t.Errorf("delivered %d and %d repeated, want 55 and 10", distinct, repeated)
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestOpenRefusesSizes(t *testing.T) {
	for _, size := range []int{1, 9000} {
		if _, err := Open(Ends{Size: size}); err == nil {
			t.Errorf("a datagram of %d bytes is no error", size)
		}
	}
}

func TestStreamCarriesEveryByte(t *testing.T) {
	local := netip.MustParseAddr("127.0.0.1")
	if err := Stream(Ends{From: here, To: here, Src: local, Dst: local, Port: 49153}, 3<<20); err != nil {
		t.Error(err)
	}
	nowhere := Ends{From: func(func() error) error { return errors.New("no such place") }, To: here, Src: local, Dst: local, Port: 49153}
	if err := Stream(nowhere, 1); err == nil || !strings.Contains(err.Error(), "no such place") {
		t.Errorf("Stream from nowhere = %v", err)
	}
}
