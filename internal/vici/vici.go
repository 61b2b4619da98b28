// SPDX-License-Identifier: Apache-2.0

// Package vici asks strongSwan what it calls its SAs, over the socket that swanctl uses. It asks for
// names, SPIs and addresses only; vici has no keys to give. Nothing here is required: without a daemon,
// SAs go by SPI and reqid.
package vici

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/strongswan/govici/vici"

	"xfrmscope/internal/ledger"
)

// DefaultSocket is where strongSwan listens unless told otherwise.
const DefaultSocket = "/var/run/charon.vici"

// timeout is how long an answer may take. A daemon that hangs is no reason to wait, and is left alone for restAfter.
const (
	timeout   = 2 * time.Second
	restAfter = 30 * time.Second
)

// keepMax bounds the names that are kept of SAs, living or not.
const keepMax = 1 << 16

// updates are the events that tell of SAs which may be gone before anybody asks for a list.
var updates = []string{"ike-updown", "ike-rekey", "child-updown", "child-rekey"}

// Names gathers the names of SAs. It is safe for concurrent use.
type Names struct {
	path string

	mu      sync.Mutex
	session *vici.Session
	conns   []net.Conn // of the session: for commands, then for events
	known   map[ledger.SAKey]ledger.SAName
	ike     map[ledger.IKESPI]string
	events  sync.WaitGroup
	rest    time.Time // until when nothing is asked
	err     error     // why
}

// New prepares to ask at a socket.
func New(path string) *Names {
	return &Names{path: path, known: map[ledger.SAKey]ledger.SAName{}, ike: map[ledger.IKESPI]string{}}
}

// Path is where Read asks.
func (n *Names) Path() string { return n.path }

// Read asks for the SAs that exist and returns them with those that came and went since the first call.
// After an error the next call begins anew; but of a daemon that did not answer in time it is for a while the same error.
func (n *Names) Read(ctx context.Context) ([]ledger.SAName, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if time.Now().Before(n.rest) {
		return nil, n.err
	}
	asked := time.Now()
	if err := n.ask(ctx); err != nil {
		n.err = fmt.Errorf("ask for names at %s: %w", n.path, err)
		// The library does not always say that it was for a deadline.
		if time.Since(asked) >= timeout {
			n.rest = time.Now().Add(restAfter)
		}
		return nil, n.err
	}
	out := make([]ledger.SAName, 0, len(n.known)+len(n.ike))
	for _, name := range n.known {
		out = append(out, name)
	}
	for spi, connection := range n.ike {
		out = append(out, ledger.SAName{IKE: spi, Connection: connection})
	}
	return out, nil
}

// ask connects where that is to be done, and lists the SAs.
func (n *Names) ask(ctx context.Context) error {
	if n.session == nil {
		if err := n.open(ctx); err != nil {
			return err
		}
	}
	err := n.list()
	if err != nil {
		n.drop()
	}
	return err
}

// open connects, and subscribes to events.
func (n *Names) open(ctx context.Context) error {
	n.conns = nil
	dial := func(_ context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{Timeout: timeout}).DialContext(ctx, network, addr)
		if err == nil {
			n.conns = append(n.conns, c)
		}
		return c, err
	}
	s, err := vici.NewSession(vici.WithAddr("unix", n.path), vici.WithDialContext(dial))
	if err != nil {
		n.drop()
		return err
	}
	n.session = s
	n.deadline(time.Now().Add(timeout))
	changes := make(chan vici.Event, 256)
	s.NotifyEvents(changes)
	if err := s.Subscribe(updates...); err != nil {
		n.drop()
		return fmt.Errorf("subscribe: %w", err)
	}
	n.deadline(time.Time{})
	n.events.Add(1)
	go func() {
		defer n.events.Done()
		for e := range changes {
			n.mu.Lock()
			n.keep(decode(e.Message))
			n.mu.Unlock()
		}
	}()
	return nil
}

// list asks for the SAs that exist.
func (n *Names) list() error {
	if err := n.conns[0].SetDeadline(time.Now().Add(timeout)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	messages, err := n.session.StreamedCommandRequest("list-sas", "list-sa", vici.NewMessage())
	if err != nil {
		return fmt.Errorf("list SAs: %w", err)
	}
	for _, m := range messages {
		n.keep(decode(m))
	}
	return nil
}

func (n *Names) keep(all []ledger.SAName) {
	for _, name := range all {
		if len(n.known) >= keepMax {
			clear(n.known)
		}
		if len(n.ike) >= keepMax {
			clear(n.ike)
		}
		if name.IKE != 0 {
			n.ike[name.IKE] = name.Connection
		}
		if name.Key.SPI != 0 {
			n.known[name.Key] = name
		}
	}
}

func (n *Names) deadline(t time.Time) {
	for _, c := range n.conns {
		// A connection that cannot take one fails at the next use.
		_ = c.SetDeadline(t)
	}
}

// drop gives the session up. The listener ends with its connection.
func (n *Names) drop() {
	for _, c := range n.conns {
		_ = c.Close()
	}
	n.session, n.conns = nil, nil
}

// Close ends the subscription. The daemon notices by itself.
func (n *Names) Close() error {
	n.mu.Lock()
	n.drop()
	n.mu.Unlock()
	n.events.Wait()
	return nil
}
