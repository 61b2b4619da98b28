// SPDX-License-Identifier: Apache-2.0

package bpfobj

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// EnumNames returns the names of a kernel-side enum ("why", "aside", "lost", "cause", "event_kind",
// "direction"), indexed by value, in lower case and without the prefix they share. They come from
// the object's own type information, so they cannot differ from what the kernel counts.
func EnumNames(spec *ebpf.CollectionSpec, enum string) ([]string, error) {
	var e *btf.Enum
	if err := spec.Types.TypeByName(enum, &e); err != nil {
		return nil, fmt.Errorf("find enum %s in the object: %w", enum, err)
	}
	prefix := e.Values[0].Name
	for _, v := range e.Values {
		for !strings.HasPrefix(v.Name, prefix) {
			prefix = prefix[:len(prefix)-1]
		}
	}
	prefix = prefix[:strings.LastIndexByte(prefix, '_')+1]
	var names []string
	for i, v := range e.Values {
		if v.Value != uint64(i) {
			return nil, fmt.Errorf("read enum %s: %s is %d, want %d", enum, v.Name, v.Value, i)
		}
		if name := strings.TrimPrefix(v.Name, prefix); name != "MAX" {
			names = append(names, strings.ToLower(name))
		}
	}
	return names, nil
}
