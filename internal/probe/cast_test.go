// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/kernel"
)

// TestCastTypes holds the list of types that the kernel is asked about against what the programs cast to.
func TestCastTypes(t *testing.T) {
	target := regexp.MustCompile(`target_type_id, Struct:"(\w+)"`)
	got := map[string]bool{}
	loads := []func() (*ebpf.CollectionSpec, error){bpfobj.LoadStack}
	for _, o := range append(slices.Clone(objects), anyDrop) {
		loads = append(loads, o.load)
	}
	for _, load := range loads {
		spec, err := load()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range spec.Programs {
			for i := range p.Instructions {
				if relo := btf.CORERelocationMetadata(&p.Instructions[i]); relo != nil {
					if m := target.FindStringSubmatch(relo.String()); m != nil {
						name, _, _ := strings.Cut(m[1], "___")
						got[name] = true
					}
				}
			}
		}
	}
	if diff := cmp.Diff(kernel.CastTypes, slices.Sorted(maps.Keys(got))); diff != "" {
		t.Errorf("types that are asked about, and those that are used (-asked +used):\n%s", diff)
	}
}
