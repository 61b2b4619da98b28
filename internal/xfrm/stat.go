// SPDX-License-Identifier: Apache-2.0

package xfrm

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// XfrmStat reads the xfrm counters of the calling thread's network namespace, by the kernel's names;
// procRoot is normally /proc. Names that this program does not know are in the map as well. From Linux
// 6.11 on each reading walks all SAs (xfrm_state_update_stats), so do not read it every second on a
// gateway with many.
func XfrmStat(procRoot string) (map[string]uint64, error) {
	// /proc/net is the process's, which is its main thread's: another thread may be elsewhere.
	path := filepath.Join(procRoot, "thread-self", "net", "xfrm_stat")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read xfrm counters: %w: this kernel is built without CONFIG_XFRM_STATISTICS, or %s is not mounted", err, procRoot)
	}
	if err != nil {
		return nil, fmt.Errorf("read xfrm counters: %w", err)
	}
	stat, err := parseStat(b)
	if err != nil {
		return nil, fmt.Errorf("read xfrm counters: parse %s: %w", path, err)
	}
	return stat, nil
}

func parseStat(b []byte) (map[string]uint64, error) {
	stat := map[string]uint64{}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) != 2 {
			return nil, fmt.Errorf("line %d has %d fields, not a name and a number", n, len(fields))
		}
		v, err := strconv.ParseUint(fields[1], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if _, twice := stat[fields[0]]; twice {
			return nil, fmt.Errorf("line %d: %s for the second time", n, fields[0])
		}
		stat[fields[0]] = v
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return stat, nil
}

// XfrmStat reads the xfrm counters of the client's network namespace.
func (c *Client) XfrmStat() (stat map[string]uint64, err error) {
	err = c.ns.Do(func() error {
		stat, err = XfrmStat("/proc")
		return err
	})
	return stat, err
}
