// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/ledger"
)

// A device that goes away takes its hooks with it, and one that comes has none: a PPPoE session that
// reconnects, a driver that is loaded again, a VLAN that is made anew. Without care, observation would end
// there and nobody would be told.

// FollowHook is what the list of hooks calls Follow where it does not work, and FollowCosts what that costs.
const (
	FollowHook  = "devices that come and go"
	FollowCosts = "a device that is made anew is not observed"
)

// followPause bounds how often the devices are listed, however often they change.
const followPause = 250 * time.Millisecond

// wireHook joins a hook on a device to what holds it there.
type wireHook struct {
	plan   Hook
	hook   int       // in Set.hooks
	closer io.Closer // nil: not attached
	copies bool      // of packets: a capture's interfaces are settled when it begins, so it is not attached anew
	later  bool      // its device came after the others were planned
}

// follower hears the kernel announce devices.
type follower struct {
	conn *netlink.Conn
	done chan struct{}
	mu   sync.Mutex    // of the deadline: whoever ends the following has the last word
	stop chan struct{} // closed: the end
}

// Follow keeps the wire hooks where they belong while devices come and go, until the returned closer is
// closed, which has to come before the set's own Close. Hooks tells what holds at the moment.
func (s *Set) Follow() (io.Closer, error) {
	f := &follower{done: make(chan struct{}), stop: make(chan struct{})}
	err := s.ns.Do(func() (err error) {
		f.conn, err = netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: unix.RTMGRP_LINK})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen for devices that come and go: %w", err)
	}
	go s.follow(f)
	return f, nil
}

// Close ends the following.
func (f *follower) Close() error {
	// A deadline in the past wakes who waits for an announcement.
	f.mu.Lock()
	close(f.stop)
	err := f.conn.SetReadDeadline(time.Unix(1, 0))
	f.mu.Unlock()
	<-f.done
	return errors.Join(err, f.conn.Close())
}

func (s *Set) follow(f *follower) {
	defer close(f.done)
	// Devices may have changed between attaching and listening.
	err := s.refresh()
	for {
		if err != nil {
			f.wake(time.Now().Add(followPause)) // and look again
		}
		messages, heard := f.conn.Receive()
		switch {
		case f.ended():
			return
		case errors.Is(heard, os.ErrDeadlineExceeded):
			f.wake(time.Time{})
		case errors.Is(heard, unix.ENOBUFS): // announcements were lost: looking is always right
		case heard != nil: // a socket that will never say anything again
			s.deaf(heard)
			return
		case !slices.ContainsFunc(messages, s.concerns):
			continue
		}
		err = s.refresh()
		// What is announced meanwhile waits in the socket.
		select {
		case <-f.stop:
			return
		case <-time.After(followPause):
		}
	}
}

// deaf notes that nobody follows the devices any more.
func (s *Set) deaf(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hooks = append(s.hooks, ledger.Hook{Name: FollowHook, Why: "listen for devices that come and go: " + why.Error(),
		Costs: FollowCosts})
}

func (f *follower) ended() bool {
	select {
	case <-f.stop:
		return true
	default:
		return false
	}
}

// wake ends the wait for an announcement at a time; the zero one: never.
func (f *follower) wake(at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ended() {
		_ = f.conn.SetReadDeadline(at) // fails on a closed socket alone
	}
}

// ifinfomsg is as long as struct ifinfomsg, which has the index in its second word.
const ifinfomsg = 16

// concerns says whether an announcement calls for a look at all devices.
func (s *Set) concerns(m netlink.Message) bool {
	if len(m.Data) < ifinfomsg {
		return false
	}
	index := int(int32(binary.NativeEndian.Uint32(m.Data[4:])))
	s.mu.Lock()
	defer s.mu.Unlock()
	held := slices.ContainsFunc(s.wireHooks, func(w *wireHook) bool { return w.closer != nil && w.plan.Device.Index == index })
	switch {
	case m.Header.Type == unix.RTM_DELLINK:
		return held
	case m.Header.Type != unix.RTM_NEWLINK || held:
		return false // what is observed has changed in some way that does not matter
	case len(s.plan.Options.Interfaces) == 0:
		return true
	}
	ad, err := netlink.NewAttributeDecoder(m.Data[ifinfomsg:])
	if err != nil {
		return true
	}
	for ad.Next() {
		if ad.Type() == unix.IFLA_IFNAME {
			return slices.Contains(s.plan.Options.Interfaces, ad.String())
		}
	}
	return true
}

// refresh looks at the devices and mends what no longer fits them. It fails where it could not look; what could not
// be attached is in the hooks.
func (s *Set) refresh() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.detached {
		return nil
	}
	return s.ns.Do(func() error {
		devices, err := Devices()
		if err != nil {
			return err
		}
		s.letGo(devices)
		s.takeUp(devices)
		return nil
	})
}

// letGo gives up the hooks of devices that are gone. One that was moved into another namespace exists
// still, and would go on being counted. Of devices that only came meanwhile nothing is kept: where containers
// come and go there is no end of them.
func (s *Set) letGo(devices []Device) {
	for _, w := range slices.Clone(s.wireHooks) {
		if slices.ContainsFunc(devices, func(d Device) bool { return d.Index == w.plan.Device.Index }) {
			continue
		}
		held := w.closer != nil
		if held {
			_ = w.closer.Close() // there may be nothing left to take it from
			w.closer = nil
		}
		switch {
		case w.later:
			s.forget(w)
		case held:
			s.hooks[w.hook] = ledger.Hook{Name: w.plan.Name, Costs: w.plan.Costs,
				Why: fmt.Sprintf("%s went away at %s", w.plan.Device.Name, time.Now().Format(time.RFC3339))}
		}
	}
}

// forget takes a hook out of all lists.
func (s *Set) forget(w *wireHook) {
	s.wireHooks = slices.DeleteFunc(s.wireHooks, func(other *wireHook) bool { return other == w })
	s.hooks = slices.Delete(s.hooks, w.hook, w.hook+1)
	for _, other := range s.wireHooks {
		if other.hook > w.hook {
			other.hook--
		}
	}
	s.unplan(w.plan.Name)
}

// unplan takes what was planned for a hook out of the plan.
func (s *Set) unplan(name string) {
	s.plan.Wire = slices.DeleteFunc(slices.Clone(s.plan.Wire), func(h Hook) bool { return h.Name == name })
}

// takeUp attaches to devices that came: those that have the name of one that was planned or, where nobody has
// named any, that would be chosen now.
func (s *Set) takeUp(devices []Device) {
	if s.wire == nil {
		return
	}
	for _, d := range s.came(devices) {
		for _, h := range wireHooks(s.plan.caps, d, s.plan.Options.Mode) {
			l, c, why := s.wire.attach(h)
			if l != nil {
				s.unplan(h.Name)
				s.plan.Wire = append(s.plan.Wire, h)
			}
			before := len(s.wireHooks)
			w := s.addWire(h, l, c, why, false)
			w.later = w.later || len(s.wireHooks) > before
		}
	}
}

// came lists the devices to take up. Two that came together may carry the same frames.
func (s *Set) came(devices []Device) (came []Device) {
	for _, d := range devices {
		if s.fits(d, devices) {
			came = append(came, d)
		}
	}
	came, _ = once(devices, came)
	return came
}

// fits says whether a device should be observed and is not, directly or by one below or above it.
func (s *Set) fits(d Device, devices []Device) bool {
	t := tree{byIndex: make(map[int]Device, len(devices)), picked: map[int]bool{}}
	for _, other := range devices {
		t.byIndex[other.Index] = other
	}
	known := slices.Contains(s.plan.Options.Interfaces, d.Name)
	for _, w := range s.wireHooks {
		if w.copies {
			continue
		}
		if w.closer != nil {
			t.picked[w.plan.Device.Index] = true
		}
		known = known || w.plan.Device.Name == d.Name
	}
	if t.picked[d.Index] {
		return false
	}
	if !known && (len(s.plan.Options.Interfaces) > 0 || !s.plan.Everything || !slices.ContainsFunc(lowest(devices), func(l Device) bool { return l.Index == d.Index })) {
		return false
	}
	if !d.Up && !slices.Contains(s.plan.Options.Interfaces, d.Name) {
		return false // it will be announced again when it comes up
	}
	if len(t.pickedBelow(d, maxStack)) > 0 {
		return false
	}
	alone := tree{byIndex: t.byIndex, picked: map[int]bool{d.Index: true}}
	return !slices.ContainsFunc(devices, func(above Device) bool {
		return t.picked[above.Index] && len(alone.pickedBelow(above, maxStack)) > 0
	})
}
