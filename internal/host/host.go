// SPDX-License-Identifier: Apache-2.0

// Package host reads what a network namespace and the machine around it say of themselves: sysctls,
// protocol counters, devices with their queues, rings and offloads, and the load of each CPU. It
// changes nothing.
package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/netns"
)

// espModules let GRO take ESP before the TC hook sees it (esp4_gro_receive).
var espModules = []string{"esp4_offload", "esp6_offload"}

// Source reads one network namespace. It is not safe for concurrent use.
type Source struct {
	ns       *netns.Handle
	links    *netlink.Handle
	tool     *ethtool.Ethtool
	sysfs    *sysfs
	settings map[int]deviceSettings // by index of the device
	notes    []string
}

// Open prepares to read a namespace, which stays the caller's. What is not readable here is not an
// error; each Host says it in its notes.
func Open(ns *netns.Handle) *Source {
	s := &Source{ns: ns, settings: map[int]deviceSettings{}}
	err := ns.Do(func() (err error) {
		s.sysfs, err = openSysfs()
		if errors.Is(err, unix.EPERM) && ns.SocketFD() == 0 {
			s.sysfs, err = mountedSysfs, nil
		}
		if err != nil {
			s.note("queues of devices (sysfs)", err)
		}
		if s.tool, err = ethtool.NewEthtool(); err != nil {
			s.tool = nil
			s.note("driver counters, rings and offloads (ethtool)", err)
		}
		return nil
	})
	if err != nil {
		s.note("devices", err)
		return s
	}
	at := vnetns.None()
	if fd := ns.SocketFD(); fd != 0 {
		at = vnetns.NsHandle(fd)
	}
	if s.links, err = netlink.NewHandleAt(at); err != nil {
		s.links = nil
		s.note("devices (rtnetlink)", err)
	}
	return s
}

// Close gives the sockets back.
func (s *Source) Close() error {
	if s.links != nil {
		s.links.Close()
	}
	if s.tool != nil {
		s.tool.Close()
	}
	if s.sysfs != nil {
		return s.sysfs.Close()
	}
	return nil
}

func (s *Source) note(what string, err error) {
	s.notes = append(s.notes, notReadable(what, err))
}

func notReadable(what string, err error) string {
	return fmt.Sprintf("%s: not readable: %v", what, err)
}

// Read reads everything once.
func (s *Source) Read() (ledger.Host, error) {
	h := ledger.Host{Notes: slices.Clone(s.notes)}
	note := func(what string, err error) {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			h.Notes = append(h.Notes, notReadable(what, err))
		}
	}
	machine, err := readSysctls(procSys, machineSysctls)
	note("settings of the machine", err)
	err = s.ns.Do(func() error {
		var err error
		h.Sysctls, err = readSysctls(procSys, slices.Concat(sysctls, machineSysctls))
		note("settings", err)
		h.Snmp, err = readSnmp(procNet)
		note("protocol counters", err)
		return nil
	})
	if err != nil {
		return h, fmt.Errorf("read host: %w", err)
	}
	for name, value := range machine {
		if _, own := h.Sysctls[name]; !own {
			h.Sysctls[name] = value
		}
	}
	h.CPUs, err = readCPUs("/proc/stat", procNet+"/softnet_stat")
	note("load of the CPUs", err)
	for _, module := range espModules {
		if _, err := os.Stat("/sys/module/" + module); err == nil {
			h.Modules = append(h.Modules, module)
		}
	}
	if s.links != nil {
		h.Links, err = s.readLinks()
		note("devices (rtnetlink)", err)
	}
	return h, nil
}
