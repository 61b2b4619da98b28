// SPDX-License-Identifier: Apache-2.0

// Package swan runs strongSwan on both gateways of a lab's tunnel, so that scenarios have a real IKE
// daemon: real exchanges, real rekeys, and SAs that the daemon makes and deletes in the kernel. The
// two daemons share a file system; each has its own configuration, log and control socket.
package swan

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"xfrmscope/internal/lab/tunnel"
)

// patience bounds each step of the daemons, on an emulated machine.
const patience = 60 * time.Second

// Names of the connection and of its child, as reports have to name them.
const (
	Connection = "site"
	Child      = "net"
)

// Pair is the two daemons of a tunnel.
type Pair struct {
	A, B   *Peer
	dir    string
	secret string // of this run only: it goes into two files that none but root reads, and nowhere else
}

// Peer is one gateway's daemon.
type Peer struct {
	*tunnel.Gateway
	ID  string // by which the other end knows it
	dir string

	cmd   *exec.Cmd
	out   bytes.Buffer
	ended chan error
}

// Start configures and starts both daemons. The tunnel must have been built with NoSAs. Nothing is
// negotiated until Initiate.
func Start(t *tunnel.Tunnel, a, b Options) (p *Pair, err error) {
	key := make([]byte, 16)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("draw a secret: %w", err)
	}
	// A socket's path has room for 107 characters, so the folder is near the root.
	dir, err := os.MkdirTemp("", "xs-swan")
	if err != nil {
		return nil, fmt.Errorf("start daemons: %w", err)
	}
	p = &Pair{dir: dir, secret: hex.EncodeToString(key)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start daemons: %w", err), p.Close())
			p = nil
		}
	}()
	p.A, p.B = &Peer{Gateway: t.A, ID: "gw-a"}, &Peer{Gateway: t.B, ID: "gw-b"}
	for i, peer := range []*Peer{p.A, p.B} {
		peer.dir = filepath.Join(dir, peer.ID)
		if err := os.Mkdir(peer.dir, 0o700); err != nil {
			return p, err
		}
		if err := peer.configureDaemon([]Options{a, b}[i]); err != nil {
			return p, err
		}
		if err := peer.start(); err != nil {
			return p, err
		}
	}
	for _, peer := range []*Peer{p.A, p.B} {
		if err := peer.wait(); err != nil {
			return p, err
		}
	}
	return p, p.Configure(a, b)
}

// Configure gives the daemons their connection anew, each as its options say. What is up stays up.
func (p *Pair) Configure(a, b Options) error {
	for i, peer := range []*Peer{p.A, p.B} {
		o, other := []Options{a, b}[i].normalize(), []*Peer{p.B, p.A}[i]
		connection := map[string]any{"Options": o, "Own": peer, "Other": other, "Secret": p.secret,
			"OwnNet": hostPrefix(peer.Inner[0]), "OtherNet": hostPrefix(other.Inner[0])}
		if err := errors.Join(peer.configureDaemon(o), peer.write("swanctl.conf", connectionConfig, connection)); err != nil {
			return err
		}
		if _, err := peer.Swanctl("--reload-settings"); err != nil {
			return err
		}
		if _, err := peer.Swanctl("--load-all", "--file", filepath.Join(peer.dir, "swanctl.conf")); err != nil {
			return err
		}
	}
	return nil
}

func (p *Peer) configureDaemon(o Options) error {
	return p.write("strongswan.conf", daemonConfig, map[string]any{"Dir": p.dir, "Options": o.normalize()})
}

func hostPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// Close ends the daemons, which delete their SAs and policies, and removes what they kept on disk.
func (p *Pair) Close() error {
	var errs []error
	for _, peer := range []*Peer{p.A, p.B} {
		if peer != nil && peer.cmd != nil {
			errs = append(errs, peer.stop())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(p.dir))...)
}

// start runs the daemon in the foreground, inside the gateway's namespace.
func (p *Peer) start() error {
	program, err := lookup("charon-systemd")
	if err != nil {
		return err
	}
	cmd := exec.Command(program)
	cmd.Env = p.environment()
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	if err := p.Do(cmd.Start); err != nil {
		return fmt.Errorf("start the daemon of %s: %w", p.ID, err)
	}
	p.cmd, p.ended = cmd, make(chan error, 1)
	go func() { p.ended <- cmd.Wait() }()
	return nil
}

// wait waits until the daemon takes commands. The socket's file is there before anybody listens.
func (p *Peer) wait() error {
	return Until("the daemon of "+p.ID, func() (bool, error) {
		select {
		case err := <-p.ended:
			p.ended <- err
			return false, fmt.Errorf("the daemon of %s ended: %w\n%s", p.ID, err, p.Log())
		default:
		}
		c, err := net.Dial("unix", p.Vici())
		if err != nil {
			return false, nil
		}
		return true, c.Close()
	})
}

// stop asks the daemon to end, and makes it end if it does not.
func (p *Peer) stop() error {
	err := p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case ended := <-p.ended:
		if ended != nil {
			err = errors.Join(err, fmt.Errorf("the daemon of %s: %w\n%s", p.ID, ended, p.Log()))
		}
	case <-time.After(patience):
		err = errors.Join(err, fmt.Errorf("the daemon of %s did not end within %s of SIGTERM", p.ID, patience), p.cmd.Process.Kill())
		<-p.ended
	}
	p.cmd = nil
	return err
}

// Vici is the path of the daemon's control socket.
func (p *Peer) Vici() string { return filepath.Join(p.dir, "vici") }

// Log is what the daemon wrote. At the level it is told to write, no key is in it.
func (p *Peer) Log() string {
	text, err := os.ReadFile(filepath.Join(p.dir, "log"))
	if err != nil {
		return fmt.Sprintf("no log: %v", err)
	}
	return string(text)
}

func (p *Peer) environment() []string {
	return append(os.Environ(), "STRONGSWAN_CONF="+filepath.Join(p.dir, "strongswan.conf"))
}

// Swanctl gives the daemon a command and returns what came back.
func (p *Peer) Swanctl(args ...string) (string, error) {
	program, err := lookup("swanctl")
	if err != nil {
		return "", err
	}
	cmd := exec.Command(program, append(args, "--uri", "unix://"+p.Vici())...)
	cmd.Env = p.environment()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("swanctl %s on %s: %w\n%s", strings.Join(args, " "), p.ID, err, out)
	}
	return string(out), nil
}

// lookup finds a program of Debian's packages.
func lookup(name string) (string, error) {
	for _, path := range []string{name, "/usr/sbin/" + name, "/usr/lib/ipsec/" + name} {
		if found, err := exec.LookPath(path); err == nil {
			return found, nil
		}
	}
	return "", fmt.Errorf("%s is not installed: it comes with Debian's charon-systemd and strongswan-swanctl", name)
}

// Until waits for something that the daemons do in their own time.
func Until(what string, ready func() (bool, error)) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		ok, err := ready()
		if err != nil || ok {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not ready within %s", what, patience)
		}
	}
}
