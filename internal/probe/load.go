// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// keepOnly deletes every program from the spec that is not wanted, so that the kernel never sees it.
// The maps stay.
func keepOnly(spec *ebpf.CollectionSpec, wanted []string) {
	for name := range spec.Programs {
		if !slices.Contains(wanted, name) {
			delete(spec.Programs, name)
		}
	}
}

// loadDropping loads a collection. A program that this kernel refuses is left out, if it may be, and
// the rest is loaded without it, so that one hook never sinks the others. What was left out comes
// back with the kernel's reason.
func loadDropping(spec *ebpf.CollectionSpec, opts ebpf.CollectionOptions) (*ebpf.Collection, map[string]error, error) {
	dropped := make(map[string]error)
	for {
		coll, err := ebpf.NewCollectionWithOptions(spec, opts)
		if err == nil {
			return coll, dropped, nil
		}
		name, ok := failedProgram(spec, err)
		if !ok {
			return nil, dropped, explainLoad(err)
		}
		dropped[name] = explainLoad(err)
		delete(spec.Programs, name)
		if len(spec.Programs) == 0 {
			return nil, dropped, fmt.Errorf("load: the kernel refuses every program, the last one: %w", dropped[name])
		}
	}
}

// failedProgram finds which program a failed collection load was about. The library names it at the
// start of its error and has no type for it.
func failedProgram(spec *ebpf.CollectionSpec, err error) (string, bool) {
	rest, ok := strings.CutPrefix(err.Error(), "program ")
	if !ok {
		return "", false
	}
	name, _, ok := strings.Cut(rest, ":")
	if !ok {
		return "", false
	}
	_, ok = spec.Programs[name]
	return name, ok
}

// errForbidden stands for EPERM once the capabilities are known to be there.
var errForbidden = fmt.Errorf("this kernel forbids it although the capabilities are there "+
	"(lockdown, see /sys/kernel/security/lockdown, or the policy of a container or hypervisor): %w", unix.EPERM)

// explainLoad says what to do about errors whose text does not.
func explainLoad(err error) error {
	var ve *ebpf.VerifierError
	switch {
	case errors.As(err, &ve):
		return err // its short form names the instruction
	case errors.Is(err, unix.EPERM):
		return errForbidden
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("%w: lower the SA table size or the ring size", err)
	}
	return err
}

// resize sets a map's entries, if the object has it.
func resize(spec *ebpf.CollectionSpec, name string, entries uint32) error {
	m, ok := spec.Maps[name]
	if !ok {
		return fmt.Errorf("the object has no map %s", name)
	}
	m.MaxEntries = entries
	return nil
}

// set gives a constant of the object its value.
func set(spec *ebpf.CollectionSpec, name string, value any) error {
	v, ok := spec.Variables[name]
	if !ok {
		return fmt.Errorf("the object has no variable %s", name)
	}
	if err := v.Set(value); err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}
