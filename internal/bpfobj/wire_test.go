// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"errors"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
)

// builds are the two objects made from one source; every test runs on both.
var builds = []struct {
	name     string
	lockfree bool
}{{"lockfree", true}, {"locked", false}}

// needBPF skips where programs cannot be loaded, but never under CI.
func needBPF(t testing.TB) {
	t.Helper()
	if err := rlimit.RemoveMemlock(); err != nil || os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatalf("load BPF programs: need root (remove memlock limit: %v)", err)
		}
		t.Skip("loading BPF programs needs root")
	}
}

// loadWire loads one build with room for n SAs, after configure has had its way with the spec.
func loadWire(t testing.TB, lockfree bool, n uint32, configure func(*ebpf.CollectionSpec)) *ebpf.Collection {
	t.Helper()
	needBPF(t)
	spec, err := LoadWire(lockfree)
	if err != nil {
		t.Fatal(err)
	}
	if err := SetSAMax(spec, n); err != nil {
		t.Fatal(err)
	}
	if configure != nil {
		configure(spec)
	}
	coll, err := ebpf.NewCollection(spec)
	var verifier *ebpf.VerifierError
	if errors.As(err, &verifier) {
		t.Fatalf("%v", verifier)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(coll.Close)
	if err := FillSlots(coll); err != nil {
		t.Fatal(err)
	}
	return coll
}

func TestLoad(t *testing.T) {
	for _, build := range builds {
		t.Run(build.name, func(t *testing.T) {
			coll := loadWire(t, build.lockfree, 64, nil)
			for name, prog := range coll.Programs {
				info, err := prog.Info()
				if err != nil {
					t.Fatal(err)
				}
				if n, ok := info.VerifiedInstructions(); ok {
					t.Logf("%s: the verifier followed %d instructions", name, n)
				}
			}
		})
	}
}

func TestStraightPath(t *testing.T) {
	for _, build := range builds {
		t.Run(build.name, func(t *testing.T) {
			coll := loadWire(t, build.lockfree, 64, nil)
			frame := []byte{
				2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0,
				0x45, 0, 0, 60, 0, 0, 0, 0, 64, 50, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2,
				0, 0, 0x10, 1, 0, 0, 0, 0,
			}
			frame = append(frame, make([]byte, 32)...)
			for seq := byte(1); seq <= 10; seq++ {
				frame[41] = seq
				if _, err := coll.Programs["xdp_ingress"].Run(&ebpf.RunOptions{Data: frame}); err != nil {
					t.Fatal(err)
				}
			}
			var sa SAState
			if err := coll.Maps["sa_states"].Lookup(uint32(0), &sa); err != nil {
				t.Fatal(err)
			}
			if sa.Used != 1 || sa.First != SeqBias+1 || sa.Highest != SeqBias+10 || sa.Holes != 0 || sa.Duplicates != 0 {
				t.Errorf("used %d, first %d, highest %d, holes %d, duplicates %d", sa.Used, sa.First, sa.Highest, sa.Holes, sa.Duplicates)
			}
			var counts []SACount
			if err := coll.Maps["sa_counts"].Lookup(uint32(0), &counts); err != nil {
				t.Fatal(err)
			}
			var sum SACount
			for _, c := range counts {
				sum.Packets += c.Packets
				sum.Bytes += c.Bytes
			}
			if sum.Packets != 10 || sum.Bytes != 600 {
				t.Errorf("counted %+v, want 10 packets and 600 bytes", sum)
			}
		})
	}
}
