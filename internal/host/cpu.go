// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"xfrmscope/internal/ledger"
)

// readCPUs joins the time of each CPU with its share of the receive path.
func readCPUs(stat, softnet string) ([]ledger.CPU, error) {
	b, err := os.ReadFile(stat)
	if err != nil {
		return nil, err
	}
	cpus, err := parseStat(b)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", stat, err)
	}
	if b, err = os.ReadFile(softnet); err != nil {
		return cpus, err
	}
	if err := parseSoftnet(cpus, b); err != nil {
		return cpus, fmt.Errorf("parse %s: %w", softnet, err)
	}
	return cpus, nil
}

// The columns of a line "cpuN" of /proc/stat (show_stat). guest and guest_nice follow; user and nice
// hold them already.
const (
	statIdle    = 3
	statIOWait  = 4
	statSoftirq = 6
	statColumns = 8 // up to steal
)

func parseStat(b []byte) ([]ledger.CPU, error) {
	var out []ledger.CPU
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, 1<<24) // the line "intr" grows with the machine
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || fields[0] == "cpu" {
			continue
		}
		number, ok := strings.CutPrefix(fields[0], "cpu")
		if !ok {
			continue
		}
		id, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("line %q: %w", fields[0], err)
		}
		if len(fields) < 1+statColumns {
			return nil, fmt.Errorf("line %s has %d columns, want %d", fields[0], len(fields)-1, statColumns)
		}
		c := ledger.CPU{ID: id}
		for i := range statColumns {
			v, err := strconv.ParseUint(fields[1+i], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("line %s: %w", fields[0], err)
			}
			c.Total += v
			switch i {
			case statIdle, statIOWait:
				c.Idle += v
			case statSoftirq:
				c.Softirq = v
			}
		}
		out = append(out, c)
	}
	return out, lines.Err()
}

// The columns of /proc/net/softnet_stat (softnet_seq_show), hexadecimal. The CPU's number is the
// thirteenth from Linux 5.10 on; before, the lines were those of the CPUs online, in their order.
const (
	softnetProcessed = 0
	softnetDropped   = 1
	softnetSqueezed  = 2
	softnetRPS       = 9
	softnetFlowLimit = 10
	softnetCPU       = 12
)

func parseSoftnet(cpus []ledger.CPU, b []byte) error {
	byID := make(map[int]*ledger.CPU, len(cpus))
	for i := range cpus {
		byID[cpus[i].ID] = &cpus[i]
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for n := 0; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		columns := make([]uint64, len(fields))
		for i, f := range fields {
			v, err := strconv.ParseUint(f, 16, 64)
			if err != nil {
				return fmt.Errorf("line %d: %w", n+1, err)
			}
			columns[i] = v
		}
		if len(columns) <= softnetFlowLimit {
			return fmt.Errorf("line %d has %d columns, want more than %d", n+1, len(columns), softnetFlowLimit)
		}
		var c *ledger.CPU
		switch {
		case len(columns) > softnetCPU:
			c = byID[int(columns[softnetCPU])]
		case n < len(cpus):
			c = &cpus[n]
		}
		if c == nil {
			continue // went offline between the two readings
		}
		c.Processed, c.Dropped, c.Squeezed = columns[softnetProcessed], columns[softnetDropped], columns[softnetSqueezed]
		c.RPS, c.FlowLimit = columns[softnetRPS], columns[softnetFlowLimit]
	}
	return lines.Err()
}
