// SPDX-License-Identifier: Apache-2.0

// Wirebench measures what the wire program costs per packet, above a program that does nothing, and
// fails when it costs more than it may.
package main

import (
	"flag"
	"fmt"
	"os"
	"text/tabwriter"
)

var useHints = flag.Bool("hints", true, "find SAs by hints (cfg_hints), not by the hash alone")

// hints is the value of cfg_hints.
func hints() uint8 {
	if *useHints {
		return 1
	}
	return 0
}

func main() {
	rounds := flag.Int("rounds", 31, "rounds, of which the median is taken")
	repeat := flag.Int("repeat", 300000, "packets a round")
	flag.Parse()
	ok, err := run(*rounds, *repeat)
	if err != nil {
		fmt.Fprintln(os.Stderr, "wirebench:", err)
		os.Exit(1)
	}
	if !ok {
		os.Exit(1)
	}
}

// run measures every row and prints the table; false when a row that must not be missed is.
func run(rounds, repeat int) (bool, error) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Printf("cfg_hints %d\n", hints())
	fmt.Fprintf(w, "XDP, ns per packet\tempty\twire\tabove empty\tmin..max\ttarget\tmust\t\n")
	met := true
	for _, build := range builds {
		fmt.Fprintf(w, "%s build\t\t\t\t\t\t\t\n", build.name)
		for _, c := range cases {
			r, err := measure(build, c, rounds, repeat)
			if err != nil {
				return false, fmt.Errorf("measure %s, %s build: %w", c.name, build.name, err)
			}
			above := median(r.above)
			verdict := ""
			if c.must > 0 && build.judged && above > c.must {
				verdict, met = "MISSED", false
			}
			fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.1f\t%.1f..%.1f\t%s\t%s %s\t\n", c.name, median(r.empty), median(r.wire),
				above, lowest(r.above), highest(r.above), limit(c.target), limit(c.must), verdict)
		}
	}
	if err := w.Flush(); err != nil {
		return false, fmt.Errorf("write the table: %w", err)
	}
	if !met {
		fmt.Println("A limit that must be kept was missed.")
	}
	return met, nil
}

func limit(ns float64) string {
	if ns == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f", ns)
}
