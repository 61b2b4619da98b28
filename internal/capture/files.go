// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/pcap"
	"xfrmscope/internal/private"
)

// output is the file being written and those before it.
type output struct {
	opts    *Options
	ifs     []iface
	file    io.WriteCloser // nil: none is open
	w       *pcap.Writer
	current File
	made    bool // the current file was created by us
	count   int  // files so far
	began   time.Time
	base    []places // the points' counts when it began
	kept    []string // with Options.Files: numbered files that are there
	written []uint64 // packets by interface, over all files
	inFile  []uint64 // the same, of this file
	done    []File   // the newest that are finished
	ended   int      // all that are finished
}

// listed is how many finished files are told of one by one: a capture may go on without end.
const listed = 100

// iface is one interface of the files.
type iface struct {
	place    bpfobj.PacketPlace
	about    pcap.Described
	observed bool
}

// interfaces lists the vantage points: two for each device, and three in the stack.
func interfaces(src *Source, o *Options) []iface {
	snap := o.Snaplen
	var out []iface
	add := func(place bpfobj.PacketPlace, name, what string, link pcap.LinkType) {
		ok := src.Points[place.Point]
		if !ok {
			what += " (not observed: the hook is not there)"
		}
		out = append(out, iface{place, pcap.Described{Name: name, Description: what, Filter: o.Filter, Link: link, Snaplen: snap}, ok})
	}
	for _, d := range src.Devices {
		link := pcap.LinkRaw
		if d.Ethernet {
			link = pcap.LinkEthernet
		}
		add(bpfobj.PacketPlace{Ifindex: uint32(d.Index), Point: bpfobj.PacketWireIn}, d.Name+" wire-in",
			"IPsec packets as they arrive on "+d.Name+", at TC ingress", link)
		add(bpfobj.PacketPlace{Ifindex: uint32(d.Index), Point: bpfobj.PacketWireOut}, d.Name+" wire-out",
			"IPsec packets as they leave by "+d.Name+", at TC egress", link)
	}
	add(bpfobj.PacketPlace{Point: bpfobj.PacketDecrypted}, pcap.InsideName("decrypted"),
		"what was inside, right after decryption", pcap.LinkRaw)
	add(bpfobj.PacketPlace{Point: bpfobj.PacketPlain}, pcap.InsideName("before-encryption"),
		"what is about to be encrypted", pcap.LinkRaw)
	add(bpfobj.PacketPlace{Point: bpfobj.PacketDrop}, pcap.InsideName("drop"),
		"packets that this host drops, outer or inner, as they were when it freed them", pcap.LinkRaw)
	return out
}

// numbered says whether there is more than one file.
func (o *Options) numbered() bool { return o.FileBytes > 0 || o.Rotate > 0 || o.Last > 0 }

// name of the nth file, from 1.
func (o *Options) name(n int) string {
	if !o.numbered() {
		return o.Path
	}
	ext := filepath.Ext(o.Path)
	return fmt.Sprintf("%s-%05d%s", strings.TrimSuffix(o.Path, ext), n, ext)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// open begins the next file. Captures hold what others should not read, so only their owner may.
func (f *output) open(now time.Time, comment string, counts []places) error {
	f.count++
	f.current, f.made = File{Name: f.opts.name(f.count)}, false
	f.inFile = make([]uint64, len(f.ifs))
	if f.opts.Path == "-" {
		f.file = nopCloser{f.opts.Stdout}
	} else {
		file, err := private.Replace(f.current.Name)
		if err != nil {
			return fmt.Errorf("create capture file: %w", err)
		}
		f.file, f.made = file, true
		// What is no file, such as a pipe, has no length to take away.
		if err := file.Truncate(0); err != nil && !errors.Is(err, unix.EINVAL) {
			return errors.Join(fmt.Errorf("create capture file: %w", err), f.abandon())
		}
	}
	var about []pcap.Described
	for _, i := range f.ifs {
		about = append(about, i.about)
	}
	w, err := pcap.NewWriter(f.file, pcap.Section{Application: f.opts.Application, OS: f.opts.Kernel, Comment: comment}, about)
	if err != nil {
		return errors.Join(err, f.abandon())
	}
	f.w, f.began, f.base = w, now, counts
	return f.w.Flush()
}

func (f *output) abandon() error {
	file := f.file
	f.file, f.w = nil, nil
	if file == nil {
		return nil
	}
	return file.Close()
}

// discard removes the file that was begun and could not be ended, and takes back what was counted of it.
func (f *output) discard() error {
	err := f.abandon()
	for i, n := range f.inFile {
		f.written[i] -= n
	}
	clear(f.inFile)
	if !f.made {
		return err
	}
	f.made = false
	if e := os.Remove(f.current.Name); e != nil {
		err = errors.Join(err, fmt.Errorf("remove what there is of it: %w", e))
	}
	return err
}

// write adds a packet to the open file. What is said of it depends on its number there.
func (f *output) write(p *packet, comment func(*packet) string) error {
	f.current.Packets++
	p.number, p.file = f.current.Packets, f.count
	f.inFile[p.iface]++
	f.written[p.iface]++
	return f.w.Packet(p.iface, p.at, p.data, int(p.head.WireLen), pcap.Remarks{
		Comment: comment(p), Inbound: p.key.Direction == "in", Outbound: p.key.Direction == "out", Lost: p.lost, ID: p.chain.id,
	})
}

// full says whether the next packet belongs into a new file.
func (f *output) full(now time.Time) bool {
	return f.opts.FileBytes > 0 && f.w.Bytes() >= f.opts.FileBytes || f.opts.Rotate > 0 && now.Sub(f.began) >= f.opts.Rotate
}

// close ends the file with what was seen and lost while it was open, and removes the oldest one too many.
func (f *output) close(now time.Time, counts []places) error {
	if f.file == nil {
		return nil
	}
	var errs []error
	for i, in := range f.ifs {
		if !in.observed {
			continue
		}
		c, b := counts[i], f.base[i]
		s := pcap.Statistics{Start: f.began, End: now, Received: c.Seen - b.Seen, Accepted: c.Matched - b.Matched,
			Dropped: c.Lost - b.Lost, Written: f.inFile[i], Missed: c.missed - b.missed, HasMissed: c.hasMissed && c.missed >= b.missed,
			Comment: "received: IPsec packets that passed here; accepted: those that the filter wants; dropped by the system: " +
				"those that found xfrmscope's ring full; dropped by the interface: what the device counts as dropped"}
		errs = append(errs, f.w.Statistics(i, s))
	}
	errs = append(errs, f.w.Flush())
	f.current.Bytes = f.w.Bytes()
	errs = append(errs, f.abandon())
	if f.opts.Failed != nil && errors.Join(errs...) != nil {
		return errors.Join(errs...)
	}
	f.ended++
	f.done = append(f.done, f.current)
	if len(f.done) > listed {
		f.done = slices.Delete(f.done, 0, 1)
	}
	if f.opts.Wrote != nil {
		f.opts.Wrote(f.current)
	}
	if !f.opts.numbered() || f.opts.Files == 0 {
		return errors.Join(errs...)
	}
	f.kept = append(f.kept, f.current.Name)
	for len(f.kept) > f.opts.Files {
		if err := os.Remove(f.kept[0]); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove the oldest capture file: %w", err))
		}
		f.kept = f.kept[1:]
	}
	return errors.Join(errs...)
}
