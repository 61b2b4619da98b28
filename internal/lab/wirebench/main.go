// SPDX-License-Identifier: Apache-2.0

// Wirebench measures what the programs on the wire cost per packet, above a program that does nothing,
// and fails when the wire program costs more than it may.
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
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
	only := flag.String("run", "", "measure only rows whose name, with what they are of before it, matches")
	rings := flag.Bool("ring", false, "measure the ring of events instead")
	flag.Parse()
	if *rings {
		if err := runRing(); err != nil {
			fmt.Fprintln(os.Stderr, "wirebench:", err)
			os.Exit(1)
		}
		return
	}
	pattern, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "wirebench:", err)
		os.Exit(2)
	}
	ok, err := run(pattern, *rounds, *repeat)
	if err != nil {
		fmt.Fprintln(os.Stderr, "wirebench:", err)
		os.Exit(1)
	}
	if !ok {
		os.Exit(1)
	}
}

// run measures every row that matches and prints the table; false when a row that must not be missed is.
func run(only *regexp.Regexp, rounds, repeat int) (bool, error) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Printf("cfg_hints %d\n", hints())
	fmt.Fprintf(w, "ns per packet\tempty\tprogram\tabove empty\tmin..max\ttarget\tmust\t\n")
	met := true
	for _, s := range subjects {
		fmt.Fprintf(w, "%s\t\t\t\t\t\t\t\n", s.name)
		for _, c := range s.cases {
			if !only.MatchString(s.name + ", " + c.name) {
				continue
			}
			r, err := measure(s, c, rounds, repeat)
			if err != nil {
				return false, fmt.Errorf("measure %s, %s: %w", s.name, c.name, err)
			}
			above := median(r.above)
			target, must, verdict := c.target, c.must, ""
			if !s.judged {
				target, must = 0, 0
			}
			// Whatever else the machine does adds time, to any round: what the program itself takes is in the fastest.
			if must > 0 && lowest(r.full)-lowest(r.empty) > must {
				verdict, met = "MISSED", false
			}
			fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.1f\t%.1f..%.1f\t%s\t%s %s\t\n", c.name, median(r.empty), median(r.full),
				above, lowest(r.above), highest(r.above), limit(target), limit(must), verdict)
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
