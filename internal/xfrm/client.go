// SPDX-License-Identifier: Apache-2.0

package xfrm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/netns"
	"xfrmscope/internal/privilege"
)

// netlinkRoute and netlinkXfrm are the families NETLINK_ROUTE and NETLINK_XFRM.
const (
	netlinkRoute = 0
	netlinkXfrm  = 6
)

// nlDebug is what the netlink library saw in the environment when the program started.
var nlDebug = os.Getenv("NLDEBUG")

// ErrDebugged means that the netlink library's debugging would print the SAs' keys.
var ErrDebugged = errors.New("NLDEBUG is set and would print the keys of every SA: unset it")

// conn is the part of netlink.Conn that this package uses.
type conn interface {
	Send(netlink.Message) (netlink.Message, error)
	ReceiveIter() iter.Seq2[netlink.Message, error]
	JoinGroup(group uint32) error
	SetReadDeadline(time.Time) error
	SetReadBuffer(bytes int) error
	Close() error
}

// dialer opens a netlink socket of a family in the client's network namespace.
type dialer func(family int) (conn, error)

// dialIn opens sockets on a thread that is in the namespace. The library would enter it anew for each, for which the
// privilege may be gone by then.
func dialIn(ns *netns.Handle) dialer {
	return func(family int) (s conn, err error) {
		err = ns.Do(func() (err error) {
			s, err = netlink.Dial(family, nil)
			return err
		})
		return s, err
	}
}

// Client reads the IPsec databases of one network namespace. It is safe for concurrent use.
type Client struct {
	ns   *netns.Handle
	dial dialer

	mu    sync.Mutex // one dump at a time on each socket
	xfrm  conn       // nil: to be dialled again
	route conn
}

// Open connects to a network namespace, which must stay open until Close.
func Open(ns *netns.Handle) (*Client, error) {
	if nlDebug != "" || os.Getenv("NLDEBUG") != "" {
		return nil, fmt.Errorf("open xfrm netlink: %w", ErrDebugged)
	}
	// The kernel is about to put keys into this process's memory. They are overwritten at once, but not in no time.
	privilege.HideMemory()
	c := &Client{ns: ns, dial: dialIn(ns)}
	// Connect now and not at the first dump, so that a kernel without xfrm is found out here.
	for _, s := range []struct {
		name   string
		family int
		to     *conn
	}{{"xfrm", netlinkXfrm, &c.xfrm}, {"route", netlinkRoute, &c.route}} {
		got, err := c.dial(s.family)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open %s netlink: %w", s.name, explain(err)), c.Close())
		}
		*s.to = got
	}
	return c, nil
}

// Close closes the sockets.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	for _, s := range []*conn{&c.xfrm, &c.route} {
		if *s != nil {
			err = errors.Join(err, (*s).Close())
			*s = nil
		}
	}
	return err
}

// DumpSAs reads the SAD as the ledger wants it: with directions, without reservations of SPIs that no
// SA has been made of yet.
func (c *Client) DumpSAs(ctx context.Context) ([]ledger.SADEntry, error) {
	sas, err := c.Dump(ctx)
	if err != nil {
		return nil, err
	}
	entries := make([]ledger.SADEntry, 0, len(sas))
	for i := range sas {
		if !sas[i].larval() {
			entries = append(entries, sas[i].SADEntry)
		}
	}
	return entries, nil
}

// Dump reads the SAD in full. SAs without an SPI, which stand for a negotiation that has just begun,
// are left out.
func (c *Client) Dump(ctx context.Context) ([]SA, error) {
	sas := []SA{}
	err := c.dump(ctx, netlinkXfrm, netlink.Message{
		Header: netlink.Header{Type: msgGetSA, Flags: netlink.Request | netlink.Dump},
	}, func(m netlink.Message) error {
		if m.Header.Type != msgNewSA {
			return nil
		}
		sa, err := decodeSA(m.Data)
		if err == nil && sa.Key.SPI != 0 {
			sas = append(sas, sa)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("dump SAs: %w", err)
	}
	if err := c.orient(ctx, sas); err != nil {
		return nil, fmt.Errorf("dump SAs: %w", err)
	}
	return sas, nil
}

// DumpPolicies reads the SPD, main and sub policies, in the order in which the kernel keeps them.
func (c *Client) DumpPolicies(ctx context.Context) ([]Policy, error) {
	policies := []Policy{}
	err := c.dump(ctx, netlinkXfrm, netlink.Message{
		Header: netlink.Header{Type: msgGetPolicy, Flags: netlink.Request | netlink.Dump},
	}, func(m netlink.Message) error {
		if m.Header.Type != msgNewPolicy {
			return nil
		}
		p, err := decodePolicy(m.Data)
		if err == nil {
			policies = append(policies, p)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("dump policies: %w", err)
	}
	return policies, nil
}

// dump sends a request and hands each message of the answer to each, which must not keep it. Every
// message is overwritten afterwards, also when each has failed: it may hold keys.
func (c *Client) dump(ctx context.Context, family int, req netlink.Message, each func(netlink.Message) error) (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	slot := &c.xfrm
	if family == netlinkRoute {
		slot = &c.route
	}
	if *slot == nil {
		if *slot, err = c.dial(family); err != nil {
			*slot = nil
			return fmt.Errorf("dial: %w", explain(err))
		}
	}
	s := *slot

	// A dump that was not read to its end leaves its rest in the socket: give the socket up then.
	done := false
	defer func() {
		if !done {
			err = errors.Join(err, s.Close())
			*slot = nil
		}
	}()
	stop := interruptible(ctx, s)
	defer stop()

	sent, err := s.Send(req)
	if err != nil {
		return fmt.Errorf("send request: %w", explain(err))
	}
	var failed error
	for m, err := range s.ReceiveIter() {
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("receive: %w", explain(err))
		}
		if m.Header.Sequence == sent.Header.Sequence && failed == nil {
			failed = each(m)
		}
		clear(m.Data)
	}
	// A deadline that struck, or may strike yet, would have the socket refuse the next dump.
	done = stop()
	return failed
}

// interruptible makes a cancelled context end a blocked read of s. stop ends that, and says whether s is as it was.
func interruptible(ctx context.Context, s conn) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		// A socket that takes no deadline can only be woken by closing it.
		if err := s.SetReadDeadline(time.Unix(1, 0)); err != nil {
			_ = s.Close()
		}
	})
}

// explain adds to the errors that users meet what to do about them.
func explain(err error) error {
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w: run as root or with CAP_NET_ADMIN (and CAP_SYS_ADMIN to enter another network namespace)", err)
	case errors.Is(err, syscall.EPROTONOSUPPORT):
		return fmt.Errorf("%w: this kernel has no xfrm netlink, load the module xfrm_user", err)
	}
	return err
}

// localAddresses reads the addresses of the network namespace (RTM_GETADDR).
func (c *Client) localAddresses(ctx context.Context) (addrSet, error) {
	const (
		newAddr, getAddr = 20, 22
		ifaAddress       = 1
		ifaLocal         = 2
		sizeHeader       = 8 // struct ifaddrmsg
	)
	local := addrSet{}
	err := c.dump(ctx, netlinkRoute, netlink.Message{
		Header: netlink.Header{Type: getAddr, Flags: netlink.Request | netlink.Dump},
		Data:   make([]byte, sizeHeader),
	}, func(m netlink.Message) error {
		if m.Header.Type != newAddr {
			return nil
		}
		if len(m.Data) < sizeHeader {
			return fmt.Errorf("%w: address message of %d bytes", ErrMalformed, len(m.Data))
		}
		family := uint16(m.Data[0])
		var addr, own []byte
		a := attributes{rest: m.Data[sizeHeader:]}
		for a.next() {
			switch a.typ {
			case ifaAddress:
				addr = a.data
			case ifaLocal: // on point-to-point links the other one is the peer's
				own = a.data
			}
		}
		if own == nil {
			own = addr
		}
		if want := map[uint16]int{familyIPv4: 4, familyIPv6: 16}[family]; a.err == nil && want != 0 && len(own) >= want {
			local[address(own, family)] = true
		}
		return a.err
	})
	if err != nil {
		return nil, fmt.Errorf("dump addresses: %w", err)
	}
	return local, nil
}

// sadInfoRequest is XFRM_MSG_GETSADINFO, which the kernel answers at once and cheaply.
func sadInfoRequest() netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: msgGetSADInfo, Flags: netlink.Request},
		Data:   binary.NativeEndian.AppendUint32(nil, 0),
	}
}

// clone makes an entry independent of the one it came from.
func clone(e ledger.SADEntry) ledger.SADEntry {
	e.Algorithms = slices.Clone(e.Algorithms)
	e.Flags = slices.Clone(e.Flags)
	return e
}
