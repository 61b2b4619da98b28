// SPDX-License-Identifier: Apache-2.0

package reader

import (
	"fmt"
	"sync"

	"github.com/cilium/ebpf"

	"xfrmscope/internal/bpfobj"
)

// Names are the enums of bpf/lib/abi.h as reports write them: lower case, without the prefix, by
// value. They come from the compiled objects, so they cannot fall behind them.
type Names struct {
	Why   []string
	Aside []string
	Lost  []string
	Cause []string
	Event []string
	Place []string // enum site_kind of bpf/lib/stack_maps.h
	Stage []string // enum drop_stage of bpf/lib/drop_abi.h
	Hook  []string // enum drop_hook, the first one empty
	PMTU  []string // enum pmtu_kind of bpf/lib/pmtu_abi.h
}

// LoadNames reads the names once.
var LoadNames = sync.OnceValues(func() (*Names, error) {
	wire, err := bpfobj.LoadWire(true)
	if err != nil {
		return nil, fmt.Errorf("read names: %w", err)
	}
	stack, err := bpfobj.LoadStack()
	if err != nil {
		return nil, fmt.Errorf("read names: %w", err)
	}
	drop, err := bpfobj.LoadDrop()
	if err != nil {
		return nil, fmt.Errorf("read names: %w", err)
	}
	n := &Names{}
	for _, e := range []struct {
		spec *ebpf.CollectionSpec
		name string
		dst  *[]string
	}{
		{wire, "why", &n.Why},
		{wire, "aside", &n.Aside},
		{wire, "lost", &n.Lost},
		{wire, "event_kind", &n.Event},
		{stack, "cause", &n.Cause},
		{stack, "site_kind", &n.Place},
		{drop, "drop_stage", &n.Stage},
		{drop, "drop_hook", &n.Hook},
	} {
		if *e.dst, err = bpfobj.EnumNames(e.spec, e.name); err != nil {
			return nil, fmt.Errorf("read names: %w", err)
		}
	}
	n.Hook[0] = "" // none
	if n.PMTU, err = pmtuNames(); err != nil {
		return nil, err
	}
	return n, nil
})

// name of a value that may be newer than this build.
func name(names []string, i int) string {
	if i >= 0 && i < len(names) {
		return names[i]
	}
	return fmt.Sprintf("unknown_%d", i)
}
