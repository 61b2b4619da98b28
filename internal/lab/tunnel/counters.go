// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// SACounters are the kernel's own counters of one SA.
type SACounters struct {
	Packets         uint64 // curlft.packets
	Bytes           uint64
	ReplayLate      uint64 // stats.replay_window
	ReplayDuplicate uint64 // stats.replay
	IntegrityFailed uint64 // stats.integrity_failed
}

// ErrNoSA says that the gateway has no such SA.
var ErrNoSA = errors.New("no such SA")

var (
	lifetimePattern = regexp.MustCompile(`lifetime current:\s+(\d+)\(bytes\), (\d+)\(packets\)`)
	statsPattern    = regexp.MustCompile(`stats:\s+replay-window (\d+) replay (\d+) failed (\d+)`)
)

// Counters reads what a gateway's kernel counted for the SA, with a reader that is not the one under
// test. The listing is asked to leave the keys out.
func (sa SA) Counters(g *Gateway) (SACounters, error) {
	out, err := g.Output("-s", "xfrm", "state", "list", "nokeys",
		"src", sa.From.Outer.String(), "dst", sa.To.Outer.String(), "proto", "esp", "spi", fmt.Sprintf("%#x", sa.SPI))
	if err != nil {
		return SACounters{}, fmt.Errorf("list SA %#x: %w", sa.SPI, err)
	}
	if strings.TrimSpace(out) == "" {
		return SACounters{}, fmt.Errorf("list SA %#x in %s: %w", sa.SPI, g.Name, ErrNoSA)
	}
	return parseCounters(out)
}

func parseCounters(out string) (SACounters, error) {
	lifetime, stats := lifetimePattern.FindStringSubmatch(out), statsPattern.FindStringSubmatch(out)
	if lifetime == nil || stats == nil {
		return SACounters{}, errors.New("read SA counters: ip printed a form that this reader does not know")
	}
	var c SACounters
	for i, field := range []*uint64{&c.Bytes, &c.Packets} {
		if err := parseUint(lifetime[1+i], field); err != nil {
			return SACounters{}, err
		}
	}
	for i, field := range []*uint64{&c.ReplayLate, &c.ReplayDuplicate, &c.IntegrityFailed} {
		if err := parseUint(stats[1+i], field); err != nil {
			return SACounters{}, err
		}
	}
	return c, nil
}

func parseUint(text string, into *uint64) error {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return fmt.Errorf("read counter: %w", err)
	}
	*into = n
	return nil
}

// XfrmStat reads the namespace's /proc/net/xfrm_stat whole. The counters are never reset, so callers
// compare two readings.
func (n *Namespace) XfrmStat() (map[string]uint64, error) {
	stat := map[string]uint64{}
	err := n.Do(func() error {
		file, err := os.Open("/proc/thread-self/net/xfrm_stat")
		if err != nil {
			return fmt.Errorf("read xfrm counters (is the kernel built with CONFIG_XFRM_STATISTICS?): %w", err)
		}
		defer file.Close()
		lines := bufio.NewScanner(file)
		for lines.Scan() {
			fields := strings.Fields(lines.Text())
			if len(fields) != 2 {
				return fmt.Errorf("read xfrm counters: line %q has not two fields", lines.Text())
			}
			n, err := strconv.ParseUint(fields[1], 10, 64)
			if err != nil {
				return fmt.Errorf("read xfrm counter %s: %w", fields[0], err)
			}
			stat[fields[0]] = n
		}
		return lines.Err()
	})
	return stat, err
}

// LinkCounters are the interface's own view of the traffic.
type LinkCounters struct {
	RxPackets, RxDropped uint64
	TxPackets, TxDropped uint64
}

// Link reads the counters of an interface of the namespace.
func (n *Namespace) Link(name string) (LinkCounters, error) {
	var c LinkCounters
	out, err := n.Output("-s", "link", "show", "dev", name)
	if err != nil {
		return c, fmt.Errorf("read counters of %s: %w", name, err)
	}
	rows := linkPattern.FindStringSubmatch(out)
	if rows == nil {
		return c, fmt.Errorf("read counters of %s: ip printed a form that this reader does not know", name)
	}
	for i, field := range []*uint64{&c.RxPackets, &c.RxDropped, &c.TxPackets, &c.TxDropped} {
		if err := parseUint(rows[1+i], field); err != nil {
			return c, err
		}
	}
	return c, nil
}

// linkPattern matches the two rows of `ip -s link`: bytes, packets, errors, dropped, and so on.
var linkPattern = regexp.MustCompile(`RX:[^\n]*\n\s+\d+\s+(\d+)\s+\d+\s+(\d+)[^\n]*\n\s+TX:[^\n]*\n\s+\d+\s+(\d+)\s+\d+\s+(\d+)`)
