// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/reader"
)

// TestMark wants every ESP packet of a capture, copies and latecomers included, in order and with the
// capture's time, and IKE beside it.
func TestMark(t *testing.T) {
	needBPF(t)
	const rounds = 3000
	var frames [][]byte
	var want []uint64
	for i := range uint32(rounds) {
		frames = append(frames, esp(false, 7, 2*i+2, 40), ikeFrame(i), esp(false, 7, 2*i+1, 40), esp(false, 7, 2*i+1, 40))
		want = append(want, uint64(2*i+2), uint64(2*i+1), uint64(2*i+1))
	}
	var got []uint64
	var last reader.Event
	ike := 0
	res, err := Run(context.Background(), []string{writePcap(t, 1, frames)}, Options{
		IKE:  func(reader.Event) error { ike++; return nil },
		Mark: func(e reader.Event) error { got, last = append(got, e.Seq), e; return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("numbers (-want +got):\n%s", diff)
	}
	if ike != rounds || len(res.End.Self.Lost) != 0 {
		t.Errorf("%d IKE headers, want %d; lost %v", ike, rounds, res.End.Self.Lost)
	}
	// The last frame is the last mark, and frames are a microsecond apart.
	if at := res.Files[0].First.Add((4*rounds - 1) * time.Microsecond); !last.Time.Equal(at) || last.SPI != 7 {
		t.Errorf("last mark %+v, want at %s", last, at)
	}
}
