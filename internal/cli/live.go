// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/netns"
	"xfrmscope/internal/probe"
	"xfrmscope/internal/vici"
)

// liveOptions are the flags that every command that watches a kernel has.
type liveOptions struct {
	netns        string
	interfaces   []string
	mode         probe.Mode
	nattPorts    []uint
	saTableSize  uint32
	eventsPerSec uint32
	readyFile    string
	vici         string
	viciAsked    func() bool // the flag was given
	latency      bool
	marks        uint32 // see probe.Options; of commands whose readers compare the clocks of two ends
	noInner      bool
	stats        bool // measure the programs' run time

	// events says which events the kernel is to send; nil: those that every reader of the ring gets. It is
	// called once what the user named can be looked up.
	events  func(*netns.Handle) (*probe.EventFilter, error)
	packets *probe.PacketOptions // copy packets; nil: none
}

func (o *liveOptions) addFlags(f *pflag.FlagSet) {
	o.addPlanFlags(f)
	f.StringVar(&o.vici, "vici", vici.DefaultSocket, "strongSwan's `socket`, for the names of its SAs; \"\" to leave it alone")
	o.viciAsked = func() bool { return f.Changed("vici") }
	f.StringVar(&o.readyFile, "ready-file", "", "create this `file` once everything is attached")
}

// addPlanFlags adds those that say what is attached, and how.
func (o *liveOptions) addPlanFlags(f *pflag.FlagSet) {
	o.mode = probe.ModeAuto
	f.StringVar(&o.netns, "netns", "", "network namespace to observe, by `name` or path (default: this one)")
	f.StringSliceVarP(&o.interfaces, "interface", "i", nil,
		"`device` to observe, repeatable (default: those that own the SAs' local addresses)")
	f.Var(&o.mode, "mode", "where to observe arriving packets: auto, xdp, xdp-generic or tc")
	addNATTPorts(f, &o.nattPorts)
	f.Uint32Var(&o.saTableSize, "sa-table", probe.DefaultSATableSize, "`SAs` to keep account of at once")
	f.BoolVar(&o.latency, "latency", false, "measure how long packets spend in xfrm: two more hooks run for each packet")
	f.BoolVar(&o.noInner, "no-inner", false, "do not follow TCP inside the tunnels")
}

// addStats adds --stats, for commands that show what the programs cost.
func (o *liveOptions) addStats(f *pflag.FlagSet) {
	f.BoolVar(&o.stats, "stats", false, "let the kernel measure how many ns the programs run: two clock reads more for each run of any BPF program on this machine, until the end")
}

// probeOptions checks what no flag parser can and hands over the rest.
func (o *liveOptions) probeOptions() (probe.Options, error) {
	out := probe.Options{
		Interfaces:   o.interfaces,
		Mode:         o.mode,
		Netns:        o.netns,
		SATableSize:  o.saTableSize,
		EventsPerSec: o.eventsPerSec,
		Latency:      o.latency,
		Marks:        o.marks,
		NoInner:      o.noInner,
		RunTimeStats: o.stats,
		Packets:      o.packets,
	}
	var err error
	if out.NATTPorts, err = espPorts(o.nattPorts); err != nil {
		return out, err
	}
	if o.saTableSize == 0 {
		return out, &usageError{fmt.Errorf("--sa-table 0: at least one SA must fit")}
	}
	return out, nil
}

// ready tells whoever waits for it that observation has begun.
func (o *liveOptions) ready() error {
	if o.readyFile == "" {
		return nil
	}
	// Where others may write, the name may be a link of theirs to a file of ours.
	f, err := os.OpenFile(o.readyFile, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return fmt.Errorf("create ready file: %w", err)
	}
	return nil
}

// checkDuration judges --for.
func checkDuration(d time.Duration) error {
	if d < 0 {
		return &usageError{fmt.Errorf("--for %s: a duration is not negative", d)}
	}
	return nil
}

// addDuration adds --for, which 0 turns into "until interrupted".
func addDuration(cmd *cobra.Command, d *time.Duration, value time.Duration) {
	cmd.Flags().DurationVar(d, "for", value, "how long to observe, e.g. 30s, 10m; 0: until Ctrl-C")
}
