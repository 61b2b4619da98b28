// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cilium/ebpf"

	"xfrmscope/internal/bpfobj"
)

// Source is where packets come from, and what their numbers mean on this machine.
type Source struct {
	Ring    *ebpf.Map // of struct packet_head and bytes
	Counts  *ebpf.Map // struct packet_count by struct packet_place
	Chosen  *ebpf.Map // SPIs that are wanted
	Windows *ebpf.Map // struct order_state by struct order_key; nil: nobody makes room in it
	Devices []Device
	Points  map[bpfobj.PacketPoint]bool // where a hook holds
	Causes  []string                    // enum cause
	// Each may be nil: numbers are shown then.
	Location func(address uint64) string
	Reason   func(uint32) string
	// Missed counts what a device dropped before the stack saw it; false: it does not tell. May be nil.
	Missed func(ifindex int) (uint64, bool)
}

// Device is one on whose wire packets are copied.
type Device struct {
	Index    int
	Name     string
	Ethernet bool // else its packets begin with the IP header
}

// Options say what to write and where.
type Options struct {
	Path        string        // "-": Stdout
	Stdout      io.Writer     // for Path "-"
	FileBytes   int64         // begin a new file after so many; 0: no limit
	Rotate      time.Duration // begin a new file after so long; 0: never
	Files       int           // keep so many of them; 0: all
	Last        time.Duration // keep so much in memory and write it when triggered; 0: write at once
	After       time.Duration // with Last: how long to go on after the trigger before writing
	MemoryBytes int64         // bound of what is held; 0: DefaultMemoryBytes
	Packets     uint64        // end after so many; 0: no limit
	Hold        time.Duration // how long a packet's fate is waited for; 0: DefaultHold
	OnDrop      bool          // with Last: a packet lost triggers
	OnLate      bool          // with Last: a late packet triggers
	Filter      string        // what the user asked for, in words
	Snaplen     uint32        // 0: headers
	Application string        // what the files say that they were written by
	Kernel      string
	Wrote       func(File) // told of each file that is complete; may be nil
	// Failed is told, with Last, of a file that could not be written; what there is of it is removed, and the run
	// goes on. nil: such a failure ends it.
	Failed func(error)
}

// Defaults of Options.
const (
	DefaultHold        = 500 * time.Millisecond
	DefaultMemoryBytes = 64 << 20
)

// Check fills in the defaults and says what does not go together.
func (o *Options) Check() error {
	if o.Hold == 0 {
		o.Hold = DefaultHold
	}
	if o.MemoryBytes == 0 {
		o.MemoryBytes = DefaultMemoryBytes
	}
	numbered := o.FileBytes > 0 || o.Rotate > 0 || o.Last > 0
	switch {
	case o.Path == "":
		return errors.New("capture: no file to write to")
	case o.Path == "-" && numbered:
		return errors.New("capture: one stream cannot hold several files: give -w a file name, or leave out --file-size, --rotate and --last")
	case o.Files > 0 && !numbered:
		return errors.New("capture: --files keeps the newest of several files: say when a new one begins, with --file-size, --rotate or --last")
	case (o.OnDrop || o.OnLate) && o.Last == 0:
		return errors.New("capture: a trigger writes what --last keeps in memory: give --last, e.g. --last 30s")
	case o.Last > 0 && (o.FileBytes > 0 || o.Rotate > 0):
		return errors.New("capture: with --last each trigger writes one file: --file-size and --rotate have no meaning")
	case o.MemoryBytes < 1<<16:
		return fmt.Errorf("capture: --memory %d bytes is too little: at least 64 KiB", o.MemoryBytes)
	}
	return nil
}

// File is one that was written.
type File struct {
	Name    string `json:"name"`
	Packets uint64 `json:"packets"`
	Bytes   int64  `json:"bytes"`
	Trigger string `json:"trigger,omitempty"` // why it was written, with Last
}

// StatsSchema names the form of Stats in JSON: docs/capture.schema.json.
const StatsSchema = "xfrmscope-capture/1"

// Stats are what was seen and lost, by interface of the files.
type Stats struct {
	Schema     string           `json:"schema"`
	Files      []File           `json:"files"`         // the newest 100
	Ended      int              `json:"files_written"` // all of them
	Interfaces []InterfaceStats `json:"interfaces"`
	Evicted    uint64           `json:"evicted"`    // packets that made room for others in memory, unwritten
	Suppressed uint64           `json:"not_losses"` // freed packets that the kernel was done with, and that were left out
}

// InterfaceStats are one interface's sums since the start.
type InterfaceStats struct {
	Name    string `json:"name"`
	Seen    uint64 `json:"seen"`    // packets of IPsec that passed
	Matched uint64 `json:"matched"` // of these, those that the filter wants
	Lost    uint64 `json:"lost"`    // of these, those that found the ring full
	Written uint64 `json:"written"` // in files, removed ones included
}
