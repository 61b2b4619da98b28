// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Namespace is a named network namespace, so that programs under test can be pointed at it with
// the name that `ip netns` knows.
type Namespace struct {
	Name string
	file *os.File
}

// OpenNamespace makes a new named network namespace with its loopback up.
func OpenNamespace(name string) (*Namespace, error) {
	if err := run(nil, "ip", "netns", "add", name); err != nil {
		return nil, fmt.Errorf("add network namespace %s (needs root): %w", name, err)
	}
	n := &Namespace{Name: name}
	file, err := os.Open(filepath.Join("/run/netns", name))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open network namespace %s: %w", name, err), n.Close())
	}
	n.file = file
	if err := n.IP("link set lo up"); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// Close deletes the namespace; the kernel takes down what lives in it once the last socket is gone.
func (n *Namespace) Close() error {
	var err error
	if n.file != nil {
		err = n.file.Close()
		n.file = nil
	}
	return errors.Join(err, run(nil, "ip", "netns", "del", n.Name))
}

// Attached says what programs a device has by XDP, tcx or clsact, as the kernel tells it; nothing: none.
func (n *Namespace) Attached(device string) (found []string, err error) {
	shown, err := n.Output("-d", "link", "show", device)
	if err != nil {
		return nil, err
	}
	if strings.Contains(shown, "xdp") {
		found = append(found, "XDP: "+shown)
	}
	err = n.Do(func() error {
		dev, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		for _, where := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			res, err := link.QueryPrograms(link.QueryOptions{Target: dev.Index, Attach: where})
			if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL) {
				break // before 6.6 there is no tcx
			}
			if err != nil {
				return fmt.Errorf("list tcx programs of %s: %w", device, err)
			}
			if len(res.Programs) > 0 {
				found = append(found, fmt.Sprintf("%s: %+v", where, res.Programs))
			}
		}
		out, err := exec.Command("tc", "qdisc", "show", "dev", device).CombinedOutput()
		if err != nil {
			return fmt.Errorf("list queues of %s: %w: %s", device, err, out)
		}
		if bytes.Contains(out, []byte("clsact")) {
			found = append(found, "clsact: "+string(out))
		}
		return nil
	})
	return found, err
}

// IP runs the lines as one `ip -batch` in the namespace. The lines go in over standard input, so
// that what they hold never shows in a process list.
func (n *Namespace) IP(lines ...string) error {
	in := []byte(strings.Join(lines, "\n") + "\n")
	if err := run(in, "ip", "-n", n.Name, "-batch", "-"); err != nil {
		return fmt.Errorf("configure namespace %s: %w", n.Name, err)
	}
	return nil
}

// Output runs one ip command in the namespace and returns what it printed.
func (n *Namespace) Output(args ...string) (string, error) {
	cmd := exec.Command("ip", append([]string{"-n", n.Name}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("ip %s in %s: %w: %s", strings.Join(args, " "), n.Name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}

// Do runs f on a thread inside the namespace. Sockets opened by f stay in the namespace, and so do
// processes that f starts.
func (n *Namespace) Do(f func() error) error {
	done := make(chan error, 1)
	go func() { done <- n.enter(f) }()
	return <-done
}

// enter locks the goroutine to its thread. When the way back fails the thread stays locked, so that
// the runtime destroys it with the goroutine instead of giving it to somebody else.
func (n *Namespace) enter(f func() error) (err error) {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer func() { err = errors.Join(err, home.Close()) }()
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", n.Name, err)
	}
	defer func() {
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			err = errors.Join(err, fmt.Errorf("leave network namespace %s: %w", n.Name, back))
			return
		}
		runtime.UnlockOSThread()
	}()
	return f()
}

// Sysctl writes one network sysctl of the namespace, named with slashes below net/.
func (n *Namespace) Sysctl(name, value string) error {
	return n.Do(func() error {
		if err := os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0); err != nil {
			return fmt.Errorf("set sysctl in %s: %w", n.Name, err)
		}
		return nil
	})
}

// linkPatience bounds how long the kernel may take to notice that a link has become usable.
const linkPatience = 10 * time.Second

// WaitUp waits until the interface can send. A veth whose peer has just come up drops what it is
// given, without a word, until the kernel's link watch has activated its queue.
func (n *Namespace) WaitUp(name string) error {
	return n.Do(func() error {
		for deadline := time.Now().Add(linkPatience); ; time.Sleep(5 * time.Millisecond) {
			link, err := net.InterfaceByName(name)
			if err != nil {
				return fmt.Errorf("find interface %s in %s: %w", name, n.Name, err)
			}
			if link.Flags&net.FlagRunning != 0 {
				return nil
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("interface %s in %s is not up after %s", name, n.Name, linkPatience)
			}
		}
	})
}

// run executes a command, feeds it in, and puts what it complained about into the error. The input
// itself is left out: it may hold keys.
func run(in []byte, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return nil
}
