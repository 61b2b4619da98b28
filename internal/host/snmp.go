// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// readSnmp reads the protocol counters of the calling thread's namespace.
func readSnmp(procNet string) (map[string]uint64, error) {
	out := map[string]uint64{}
	var errs []error
	for _, f := range []struct {
		name  string
		parse func(map[string]uint64, []byte) error
	}{
		{"snmp", parsePairs}, {"netstat", parsePairs}, {"snmp6", parseSnmp6},
	} {
		path := filepath.Join(procNet, f.name)
		b, err := os.ReadFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			// snmp6 is missing where IPv6 is.
		case err != nil:
			errs = append(errs, err)
		default:
			if err := f.parse(out, b); err != nil {
				errs = append(errs, fmt.Errorf("parse %s: %w", path, err))
			}
		}
	}
	return out, errors.Join(errs...)
}

// settings stand among the counters and are none.
var settings = []string{
	"Ip.Forwarding", "Ip.DefaultTTL", "Tcp.RtoAlgorithm", "Tcp.RtoMin", "Tcp.RtoMax", "Tcp.MaxConn", "Tcp.CurrEstab",
}

// parsePairs reads lines in pairs, "Ip: InReceives …" above "Ip: 17 …" (snmp_seq_show).
func parsePairs(out map[string]uint64, b []byte) error {
	var names []string
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		if fields[0] != names[0] || len(fields) != len(names) {
			return fmt.Errorf("line %d does not go with the names above it", n)
		}
		group := strings.TrimSuffix(names[0], ":")
		for i := 1; i < len(fields); i++ {
			v, err := strconv.ParseInt(fields[i], 10, 64)
			if err != nil {
				return fmt.Errorf("line %d, %s: %w", n, names[i], err)
			}
			// Tcp.MaxConn is -1 for "no limit".
			if name := group + "." + names[i]; v >= 0 && !slices.Contains(settings, name) {
				out[name] = uint64(v)
			}
		}
		names = nil
	}
	return lines.Err()
}

// groups6 are those of snmp6, the longer before what they begin with.
var groups6 = []string{"UdpLite6", "Icmp6", "Udp6", "Ip6"}

// parseSnmp6 reads "Ip6InReceives 17" (snmp6_seq_show).
func parseSnmp6(out map[string]uint64, b []byte) error {
	lines := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) != 2 {
			return fmt.Errorf("line %d has %d fields, not a name and a number", n, len(fields))
		}
		v, err := strconv.ParseUint(fields[1], 10, 64)
		if err != nil {
			return fmt.Errorf("line %d, %s: %w", n, fields[0], err)
		}
		for _, group := range groups6 {
			if name, ok := strings.CutPrefix(fields[0], group); ok {
				out[group+"."+name] = v
				break
			}
		}
	}
	return lines.Err()
}
