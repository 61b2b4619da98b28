// SPDX-License-Identifier: Apache-2.0

// Vethbench sends ESP packets through a veth pair as fast as one CPU can and measures what observers
// of the receiving end add: to the kernel, by how much longer the sending CPU takes for everything up
// to forwarding, and in CPU time of their own, on another CPU. Observers take turns, round after round.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// sizes of frames.
var sizes = []int{128, 1400}

func main() {
	rounds := flag.Int("rounds", 7, "rounds, of which the median is taken")
	packets := flag.Int("packets", 1000000, "packets a round and observer")
	program := flag.String("xfrmscope", "bin/xfrmscope", "the binary to measure")
	reader := flag.String("reader", "", "be the AF_PACKET reader of this device, until interrupted")
	flag.Parse()
	var err error
	if *reader != "" {
		err = readPackets(*reader)
	} else {
		err = run(*program, *rounds, *packets)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "vethbench:", err)
		os.Exit(1)
	}
}

// sample is one observer's round, in ns for each packet.
type sample struct {
	kernel, tool float64
	lost         float64 // of the packets that the observer should have seen
	memory       float64 // bytes
	began, ended float64 // seconds until it was attached, and until it was gone
}

func run(program string, rounds, packets int) (err error) {
	lab, err := openLab()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.close()) }()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "ns per packet above nothing\tkernel\tmin..max\ttool\tmin..max\ttogether\tof tcpdump's\tlost\tMiB\ts to begin, to end\t\n")
	for _, size := range sizes {
		samples := map[string][]sample{}
		for round := -1; round < rounds; round++ {
			for _, o := range observers {
				s, err := lab.measure(o, program, size, packets)
				if err != nil {
					return fmt.Errorf("measure %s: %w", o.name, err)
				}
				if round >= 0 { // the first one warms up
					samples[o.name] = append(samples[o.name], s)
				}
			}
		}
		nothing := samples[observers[0].name]
		fmt.Fprintf(w, "%d bytes, nothing: %.0f ns (%.2f Mpps)\t\t\t\t\t\t\t\t\t\t\n", size, median(kernelOf(nothing)), 1e3/median(kernelOf(nothing)))
		reference := 0.0
		for _, o := range observers[1:] {
			of := samples[o.name]
			var above, tool, lost, memory, began, ended []float64
			for i, s := range of {
				above = append(above, s.kernel-nothing[i].kernel)
				tool = append(tool, s.tool)
				memory = append(memory, s.memory/(1<<20))
				began, ended = append(began, s.began), append(ended, s.ended)
				lost = append(lost, 100*s.lost/float64(packets))
			}
			sum := median(above) + median(tool)
			if reference == 0 {
				reference = sum // tcpdump is the first
			}
			fmt.Fprintf(w, "%s\t%.0f\t%.0f..%.0f\t%.0f\t%.0f..%.0f\t%.0f\t1/%.1f\t%.1f %%\t%.0f\t%.2f, %.2f\t\n", o.name, median(above), slices.Min(above), slices.Max(above),
				median(tool), slices.Min(tool), slices.Max(tool), sum, reference/sum, median(lost), median(memory),
				median(began), median(ended))
		}
	}
	return w.Flush()
}

func kernelOf(samples []sample) []float64 {
	var out []float64
	for _, s := range samples {
		out = append(out, s.kernel)
	}
	return out
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

// patience bounds what an observer may take to begin or to finish.
const patience = 20 * time.Second
