// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/lab/packet"
	"xfrmscope/internal/lab/schematest"
	"xfrmscope/internal/netns"
)

// The scripts in testdata/script are sessions at a shell: commands, and what they must print.

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"xfrmscope": func() { os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

func TestScripts(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("these scripts load BPF programs and make network namespaces: run as root")
		}
		t.Skip("these scripts load BPF programs and make network namespaces: run as root")
	}
	published := schemas(schematest.Published(t))
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			if err := writeCaptures(env.WorkDir); err != nil {
				return err
			}
			if err := writeEnds(env.WorkDir); err != nil {
				return err
			}
			return makeNamespace(env)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"json": jsonCmd, "fresh": freshCmd, "await": awaitCmd, "esp": espCmd, "ike": ikeCmd, "scrape": scrapeCmd,
			"valid": published.validCmd, "privileges": privilegesCmd,
		},
	})
}

// makeNamespace gives each script a network namespace $NS with a device "wan" that owns 192.0.2.2.
func makeNamespace(env *testscript.Env) error {
	name := fmt.Sprintf("xfrmscope-cli-%d-%s", os.Getpid(), filepath.Base(env.WorkDir))
	env.Setenv("NS", name)
	env.Setenv("PATH", env.Getenv("PATH")+":/usr/sbin:/sbin")
	env.Defer(func() {
		if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
			env.T().Log(fmt.Sprintf("ip netns del %s: %v: %s", name, err, out))
		}
	})
	return buildNamespace(name)
}

// buildNamespace makes a network namespace with a device "wan" that owns 192.0.2.2, and its peer.
func buildNamespace(name string) error {
	for _, args := range [][]string{
		{"netns", "add", name},
		{"-n", name, "link", "add", "wan", "type", "veth", "peer", "name", "peer"},
		{"-n", name, "addr", "add", "192.0.2.2/24", "dev", "wan"},
		{"-n", name, "link", "set", "wan", "up"},
		{"-n", name, "link", "set", "peer", "up"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

// writeCaptures writes one faulty stream in several containers: of the numbers 1 to 20, 7 and 8 never
// come, 12 comes after 14, and 15 comes twice.
func writeCaptures(dir string) error {
	frame := packet.Eth().IPv4("192.0.2.1", "192.0.2.2").ESP(0xc0ffee01, 1, 80).Frame()
	var plain bytes.Buffer
	w := pcapgo.NewWriter(&plain)
	if err := w.WriteFileHeader(65535, layers.LinkTypeEthernet); err != nil {
		return err
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, seq := range []uint32{1, 2, 3, 4, 5, 6, 9, 10, 11, 13, 14, 12, 15, 15, 16, 17, 18, 19, 20} {
		data := frame.Seq(seq).Data
		ci := gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(data), Length: len(data)}
		if err := w.WritePacket(ci, data); err != nil {
			return err
		}
		at = at.Add(time.Millisecond)
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(plain.Bytes()); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	for name, b := range map[string][]byte{
		"faulty.pcap":    plain.Bytes(),
		"faulty.pcap.gz": zipped.Bytes(),
		"cut.pcap":       plain.Bytes()[:plain.Len()-30],
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// awaitCmd waits until a file exists: await FILE.
func awaitCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await file")
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
	}
	ts.Fatalf("%s does not appear", args[0])
}

// espCmd sends ESP packets with the given sequence numbers to the device "wan" of $NS: esp SEQ...
func espCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: esp seq...")
	}
	var seqs []uint32
	for _, arg := range args {
		seq, err := strconv.ParseUint(arg, 0, 32)
		ts.Check(err)
		seqs = append(seqs, uint32(seq))
	}
	ts.Check(espInto(ts.Getenv("NS"), seqs))
}

// espInto sends ESP packets with the given sequence numbers to the device "wan" of a namespace.
func espInto(namespace string, seqs []uint32) error {
	ns, err := netns.Open(namespace)
	if err != nil {
		return err
	}
	defer ns.Close()
	frame := packet.Eth().IPv4("192.0.2.1", "192.0.2.2").ESP(0xc0ffee01, 1, 80).Frame()
	return ns.Do(func() error {
		peer, err := net.InterfaceByName("peer")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, seq := range seqs {
			if err := unix.Sendto(fd, frame.Seq(seq).Data, 0, &unix.SockaddrLinklayer{Ifindex: peer.Index}); err != nil {
				return err
			}
		}
		return nil
	})
}

// jsonCmd checks a field of the JSON object that the last command printed: json PATH VALUE, the path
// in dots with numbers for list elements, the value as JSON writes it.
func jsonCmd(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: json path value")
	}
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &v))
	for _, step := range strings.Split(args[0], ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[step]
		case []any:
			var i int
			if _, err := fmt.Sscanf(step, "%d", &i); err != nil || i >= len(x) {
				ts.Fatalf("%s: no element %s of %d", args[0], step, len(x))
			}
			v = x[i]
		default:
			ts.Fatalf("%s: nothing below %v", args[0], v)
		}
	}
	got, err := json.Marshal(v)
	ts.Check(err)
	if (string(got) == args[1]) == neg {
		ts.Fatalf("%s is %s, want %s (negated: %v)", args[0], got, args[1], neg)
	}
}
