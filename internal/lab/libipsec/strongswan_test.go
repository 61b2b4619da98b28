// SPDX-License-Identifier: Apache-2.0

package libipsec

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	"xfrmscope/internal/lab/tunnel"
)

// patience bounds each step of the daemons.
const patience = 20 * time.Second

// peer is one end: a namespace with a daemon of its own.
type peer struct {
	*tunnel.Namespace
	Name         string
	Outer, Inner netip.Addr
	Dir          string // its configuration, log and control socket
}

// daemonConfig loads what IKE with a pre-shared key needs, from Debian's basic packages only.
var daemonConfig = template.Must(template.New("strongswan.conf").Parse(`
charon-systemd {
  load = random nonce aes sha1 sha2 hmac kdf gmp pem pkcs1 x509 pubkey kernel-libipsec kernel-netlink socket-default vici
  plugins {
    vici {
      socket = unix://{{.Dir}}/vici
    }
  }
  filelog {
    file {
      path = {{.Dir}}/log
      flush_line = yes
      default = 1
    }
  }
}
swanctl {
  load = random nonce pem pkcs1 x509 pubkey
}
`))

// connectionConfig has no rekey of its own within the test: the test asks for each.
var connectionConfig = template.Must(template.New("swanctl.conf").Parse(`
connections {
  lab {
    version = 2
    local_addrs = {{.Own.Outer}}
    remote_addrs = {{.Other.Outer}}
    proposals = aes128-sha256-modp2048
    encap = yes
    rekey_time = 0
    local {
      auth = psk
      id = {{.Own.Name}}
    }
    remote {
      auth = psk
      id = {{.Other.Name}}
    }
    children {
      child {
        local_ts = {{.Own.Inner}}/32
        remote_ts = {{.Other.Inner}}/32
        esp_proposals = aes128-sha256
        rekey_time = 0
      }
    }
  }
}
secrets {
  ike-lab {
    secret = "{{.Secret}}"
  }
}
`))

// pair makes the two namespaces, joins them, and leaves the daemons to start.
func pair(t *testing.T) (left, right *peer) {
	t.Helper()
	peers := make([]*peer, 2)
	for i, name := range []string{"left", "right"} {
		ns, err := tunnel.OpenNamespace(fmt.Sprintf("xs%d-%s", os.Getpid(), name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := ns.Close(); err != nil {
				t.Error(err)
			}
		})
		// A socket's path has room for 107 characters; the test's own folder may be deeper than that.
		dir, err := os.MkdirTemp("", "xs")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		peers[i] = &peer{Namespace: ns, Name: name, Dir: dir,
			Outer: netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i+1)), Inner: netip.MustParseAddr(fmt.Sprintf("10.%d.0.1", i+1))}
	}
	left, right = peers[0], peers[1]
	must(t, left.IP(fmt.Sprintf("link add %s type veth peer name %s netns %s", tunnel.WAN, tunnel.WAN, right.Namespace.Name)))
	for _, p := range peers {
		must(t, p.IP(
			fmt.Sprintf("addr add %s/24 dev %s", p.Outer, tunnel.WAN),
			fmt.Sprintf("addr add %s/32 dev lo", p.Inner),
			fmt.Sprintf("link set %s up", tunnel.WAN),
		))
		must(t, p.Do(func() error { return tunnel.OffloadsOff(tunnel.WAN) }))
	}
	must(t, left.WaitUp(tunnel.WAN))
	must(t, right.WaitUp(tunnel.WAN))
	return left, right
}

// start runs the peer's daemon until the test ends, and loads its connection.
func (p *peer) start(t *testing.T, other *peer) {
	t.Helper()
	p.write(t, daemonConfig, p)
	p.write(t, connectionConfig, map[string]any{"Own": p, "Other": other, "Secret": "of this test only"})
	cmd := exec.Command(lookup(t, "charon-systemd"))
	cmd.Env = append(os.Environ(), "STRONGSWAN_CONF="+filepath.Join(p.Dir, "strongswan.conf"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, p.Do(cmd.Start))
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		end(t, "the daemon of "+p.Name, cmd, ended)
		if t.Failed() {
			log, err := os.ReadFile(filepath.Join(p.Dir, "log"))
			t.Logf("log of %s (%v):\n%s%s", p.Name, err, log, out.Bytes())
		}
	})
	waitFor(t, "the daemon of "+p.Name, func() bool {
		// The socket's file is there a moment before anybody listens.
		c, err := net.Dial("unix", filepath.Join(p.Dir, "vici"))
		if err != nil {
			return false
		}
		must(t, c.Close())
		return true
	})
	p.swanctl(t, "--load-all", "--file", filepath.Join(p.Dir, "swanctl.conf"))
}

// end asks a daemon to end, and makes it end if it does not.
func end(t *testing.T, what string, cmd *exec.Cmd, ended <-chan error) {
	t.Helper()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("end %s: %v", what, err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	case <-time.After(patience):
		t.Errorf("%s did not end within %s of SIGTERM", what, patience)
		if err := cmd.Process.Kill(); err != nil {
			t.Errorf("kill %s: %v", what, err)
		}
		<-ended
	}
}

func (p *peer) write(t *testing.T, tmpl *template.Template, data any) {
	t.Helper()
	var text bytes.Buffer
	must(t, tmpl.Execute(&text, data))
	must(t, os.WriteFile(filepath.Join(p.Dir, tmpl.Name()), text.Bytes(), 0o600))
}

// swanctl commands the peer's daemon.
func (p *peer) swanctl(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(lookup(t, "swanctl"), append(args, "--uri", "unix://"+filepath.Join(p.Dir, "vici"))...)
	cmd.Env = append(os.Environ(), "STRONGSWAN_CONF="+filepath.Join(p.Dir, "strongswan.conf"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("swanctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// ping sends echo requests through the tunnel until count are answered, and returns how many it sent: while the
// daemons change an SA they lose some, and more of them on a busy machine.
func (p *peer) ping(t *testing.T, to *peer, count int) (sent int) {
	t.Helper()
	for end := time.Now().Add(patience); count > 0; {
		if time.Now().After(end) {
			t.Fatalf("%d of %d pings through the tunnel were sent and not answered", count, sent)
		}
		cmd := exec.Command(lookup(t, "ping"), "-q", "-c", fmt.Sprint(count), "-i", "0.02", "-W", "1", "-I", p.Inner.String(), to.Inner.String())
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		must(t, p.Do(cmd.Start))
		_ = cmd.Wait() // it fails where nothing is answered
		m := regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`).FindStringSubmatch(out.String())
		if m == nil {
			t.Fatalf("ping: %s", out.Bytes())
		}
		n, err := strconv.Atoi(m[1])
		must(t, err)
		answered, err := strconv.Atoi(m[2])
		must(t, err)
		sent, count = sent+n, count-answered
	}
	return sent
}

// lookup finds a program that the test cannot do without. In CI its absence is a failure: the make
// target installs it, so a test that skipped would hide that it no longer does.
func lookup(t *testing.T, name string) string {
	t.Helper()
	for _, path := range []string{name, "/usr/sbin/" + name, "/usr/lib/ipsec/" + name} {
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	unable(t, "%s is not installed: run scripts/deps test", name)
	return ""
}

// unable ends a test that the machine cannot run: skipped on somebody's desk, failed in CI.
func unable(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

func waitFor(t *testing.T, what string, ready func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ready(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s was not ready within %s", what, patience)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
