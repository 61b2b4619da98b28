// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"xfrmscope/internal/bpfobj"
	"xfrmscope/internal/capture"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/privilege"
	"xfrmscope/internal/probe"
	"xfrmscope/internal/report"
	"xfrmscope/internal/verdict"
)

// captureFlags are the flags of capture that say more than where to write.
type captureFlags struct {
	live     liveOptions
	duration time.Duration
	files    capture.Options
	fileSize byteSize
	memory   byteSize
	buffer   byteSize
	snaplen  uint32
	full     bool
	spis     []string
	reqids   []uint
	peer     string
	dir      string
	only     []string
	triggers []string
	json     bool

	chosen []ledger.SPI    // of --spi
	wanted map[uint32]bool // of --reqid
}

func newCapture() *cobra.Command {
	o := captureFlags{memory: capture.DefaultMemoryBytes, buffer: probe.DefaultPacketRingBytes}
	cmd := &cobra.Command{
		Use:   "capture -w FILE",
		Short: "Outer and inner packets, each with its verdict, for Wireshark",
		Long: `Writes the packets of the tunnels to a pcapng file: as they arrive and leave (encrypted), as they come
out of decryption, as they go into encryption, and where this host drops them. Each carries a comment that
says which SA it is of, its sequence number and what became of it; the forms of one packet refer to each
other. Headers only, unless --snaplen or --full say otherwise: what the tunnel protects would stand in the
file in the clear.

Packets are written about a second after they were seen, when it is known what became of them. Ctrl-C ends
the capture. With --last nothing is written until something happens: a --trigger, or SIGUSR1.

Exit status: 0, or 2 for wrong usage and 3 where nothing can be captured.`,
		Example: `  xfrmscope capture -w tunnel.pcapng --for 30s
  xfrmscope capture -w drops.pcapng --only drops --peer 192.0.2.1
  xfrmscope capture -w ring.pcapng --file-size 100MiB --files 10
  xfrmscope capture -w event.pcapng --last 30s --trigger drop,replay-window-too-small
  xfrmscope capture -w - --spi 0xc0ffee01 | tshark -r - -T fields -e frame.comment`,
		Args: cobra.NoArgs,
		RunE: work(func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return &usageError{err}
			}
			return o.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		}),
	}
	f := cmd.Flags()
	o.live.addFlags(f)
	addDuration(cmd, &o.duration, 0)
	f.StringVarP(&o.files.Path, "write", "w", "", "`file` to write; \"-\": standard output")
	f.Uint32Var(&o.snaplen, "snaplen", 0, fmt.Sprintf("write the first `bytes` of each packet, payload included (1 to %d)", bpfobj.PacketSnapMax))
	f.BoolVar(&o.full, "full", false, fmt.Sprintf("write whole packets, up to %d bytes", bpfobj.PacketSnapMax))
	f.StringSliceVar(&o.spis, "spi", nil, "only SAs with this `SPI` (0x… or decimal), repeatable")
	f.UintSliceVar(&o.reqids, "reqid", nil, "only SAs with this `reqid`, repeatable; SAs that come later are found within a second")
	f.StringVar(&o.peer, "peer", "", "only packets from or to this `prefix` (outer address)")
	f.StringVar(&o.dir, "direction", "", "only packets going this `way`: in or out")
	f.StringSliceVar(&o.only, "only", nil, "only these `packets`: drops, late, duplicates, all; repeatable")
	f.Uint64Var(&o.files.Packets, "packets", 0, "end after so many `packets` were written; 0: no limit")
	f.Var(&o.fileSize, "file-size", "begin a new file after so many `bytes`, e.g. 100MiB")
	f.DurationVar(&o.files.Rotate, "rotate", 0, "begin a new file after so long, e.g. 10m")
	f.IntVar(&o.files.Files, "files", 0, "keep the newest `number` of files; 0: all")
	f.DurationVar(&o.files.Last, "last", 0, "keep so much in memory, e.g. 30s, and write it when triggered")
	f.DurationVar(&o.files.After, "after", time.Second, "with --last: how long to go on after the trigger before writing")
	f.Var(&o.memory, "memory", "`bytes` to hold in memory at most")
	f.StringSliceVar(&o.triggers, "trigger", nil,
		"with --last: write when this `happens`: drop, late, any-finding, or a finding's id; repeatable")
	f.Var(&o.buffer, "buffer", "`bytes` of the ring between kernel and xfrmscope")
	f.BoolVar(&o.json, "json", false, "print what was written and lost as JSON at the end (docs/capture.schema.json)")
	f.Lookup("reqid").DefValue = "" // not "[]"
	return cmd
}

// check judges what no flag parser can, and fills in the options that follow.
func (o *captureFlags) check() error {
	if o.files.Path == "" {
		return errors.New("capture: say where to write, e.g. -w tunnel.pcapng")
	}
	if o.duration < 0 || o.files.Rotate < 0 || o.files.Last < 0 || o.files.After < 0 {
		return errors.New("capture: a duration is not negative")
	}
	if o.full && o.snaplen != 0 {
		return errors.New("capture: --full and --snaplen exclude each other")
	}
	if o.snaplen > bpfobj.PacketSnapMax {
		return fmt.Errorf("capture: --snaplen %d: at most %d bytes of a packet", o.snaplen, bpfobj.PacketSnapMax)
	}
	if o.files.Files < 0 {
		return fmt.Errorf("capture: --files %d: a number of files is not negative", o.files.Files)
	}
	if o.json && o.files.Path == "-" {
		return errors.New("capture: --json and -w - cannot both have standard output")
	}
	if o.buffer > 1<<30 {
		return errors.New("capture: --buffer is at most 1GiB")
	}
	p := probe.PacketOptions{Snaplen: o.snaplen, RingBytes: uint32(o.buffer)}
	if o.full {
		p.Snaplen = bpfobj.PacketSnapMax
	}
	switch o.dir {
	case "":
	case "in":
		p.Dirs = 1
	case "out":
		p.Dirs = 2
	default:
		return fmt.Errorf("capture: --direction %q: want in or out", o.dir)
	}
	for _, text := range o.spis {
		var spi ledger.SPI
		if err := spi.UnmarshalText([]byte(text)); err != nil {
			return fmt.Errorf("--spi: %w", err)
		}
		o.chosen = append(o.chosen, spi)
	}
	ids, err := parseReqIDs(o.reqids)
	if err != nil {
		return err
	}
	o.wanted = map[uint32]bool{}
	for _, id := range ids {
		o.wanted[id] = true
	}
	p.BySPI = len(o.spis) > 0 || len(o.reqids) > 0
	if o.peer != "" {
		if p.Peer, err = parsePrefix(o.peer); err != nil {
			return fmt.Errorf("--peer %w", err)
		}
	}
	only := map[string]uint32{"all": bpfobj.PacketOnlyAll, "drops": bpfobj.PacketOnlyDrops, "late": bpfobj.PacketOnlyLate,
		"duplicates": bpfobj.PacketOnlyDuplicates}
	for _, what := range o.only {
		bit, ok := only[what]
		if !ok {
			return fmt.Errorf("capture: --only %q: want drops, late, duplicates or all", what)
		}
		p.Only |= bit
	}
	if len(o.triggers) > 0 && o.files.Last == 0 {
		return errors.New("capture: --trigger writes what --last keeps in memory: give --last, e.g. --last 30s")
	}
	for _, t := range o.triggers {
		switch t {
		case "drop":
			o.files.OnDrop = true
		case "late":
			o.files.OnLate = true
		case "any-finding":
		default:
			if !slices.ContainsFunc(verdict.Catalogue(), func(k verdict.Kind) bool { return string(k.ID) == t }) {
				return fmt.Errorf("capture: --trigger %q: want drop, late, any-finding or the id of a finding", t)
			}
		}
	}
	o.files.FileBytes, o.files.MemoryBytes, o.files.Snaplen = int64(o.fileSize), int64(o.memory), p.Snaplen
	o.files.Filter = o.words()
	o.live.packets = &p
	return o.files.Check()
}

// words is the filter as the files tell it.
func (o *captureFlags) words() string {
	var out []string
	add := func(flag, value string) {
		if value != "" {
			out = append(out, "--"+flag+" "+value)
		}
	}
	add("spi", strings.Join(o.spis, ","))
	if len(o.reqids) > 0 {
		add("reqid", strings.Trim(fmt.Sprint(o.reqids), "[]"))
	}
	add("peer", o.peer)
	add("direction", o.dir)
	add("only", strings.Join(o.only, ","))
	return strings.Join(out, " ")
}

// byFinding says whether findings trigger.
func (o *captureFlags) byFinding() bool {
	return slices.ContainsFunc(o.triggers, func(t string) bool { return t != "drop" && t != "late" })
}

func (o *captureFlags) run(ctx context.Context, out, progress io.Writer) (err error) {
	s, err := openSession(ctx, &o.live)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	s.roll(captureWindow)
	if o.byFinding() {
		if err := s.listen(nil); err != nil {
			return err
		}
	}
	o.files.Stdout = out
	if o.files.Last > 0 {
		o.files.Wrote = func(f capture.File) {
			fmt.Fprintf(progress, "xfrmscope: wrote %s: %d packets, because of: %s\n", f.Name, f.Packets, f.Trigger)
		}
	}
	rec, err := s.recorder(o.files, o.chosen, o.wanted)
	if err != nil {
		return err
	}
	s.giveUp(&o.live, progress, privilege.ToWrite(o.files.Path))
	if err := o.record(ctx, s, rec, progress); err != nil {
		return err
	}
	return o.summary(rec.Stats(), out, progress)
}

// captureWindow is what findings that trigger are judged by: the last one or two of it.
const captureWindow = 5 * time.Minute

// record runs the session and the recorder side by side.
func (o *captureFlags) record(ctx context.Context, s *session, rec *capture.Recorder, progress io.Writer) error {
	ctx, cancel := limited(ctx, o.duration)
	defer cancel()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	defer signal.Stop(signals)
	g, run := errgroup.WithContext(ctx)
	done, finished := context.WithCancel(run)
	g.Go(func() error {
		// The recorder may end first, when it has enough.
		defer finished()
		return rec.Run(run, s.set.Detach)
	})
	g.Go(func() error {
		for {
			select {
			case <-done.Done():
				return nil
			case <-signals:
				rec.Trigger("SIGUSR1")
			}
		}
	})
	g.Go(func() error {
		ready := false
		known := map[string]bool{}
		return s.steps(done, 0, time.Second, func() error {
			if !ready {
				ready = true
				fmt.Fprintln(progress, s.announce(o.duration))
				return o.live.ready()
			}
			if o.byFinding() {
				known = o.findings(rec.Trigger, report.New(s.rolling.Report()).Findings, known)
			}
			return nil
		})
	})
	return g.Wait()
}

// findings triggers for each finding that was not there at the last look, and returns those that are there now.
func (o *captureFlags) findings(trigger func(string), list []verdict.Finding, known map[string]bool) map[string]bool {
	now := map[string]bool{}
	for _, f := range withExplained(list) {
		key := findingKey(f)
		now[key] = true
		if !known[key] && (slices.Contains(o.triggers, "any-finding") || slices.Contains(o.triggers, string(f.ID))) {
			trigger("finding " + key)
		}
	}
	return now
}

// withExplained lists findings with those that others explain.
func withExplained(list []verdict.Finding) []verdict.Finding {
	var out []verdict.Finding
	for _, f := range list {
		out = append(append(out, f), withExplained(f.Explains)...)
	}
	return out
}

// findingKey is a finding's kind and subject in a few words.
func findingKey(f verdict.Finding) string {
	key := string(f.ID)
	if f.Subject.SPI != nil {
		key += fmt.Sprintf(" %s", *f.Subject.SPI)
	}
	if f.Subject.Dst != nil {
		key += fmt.Sprintf(" to %s", *f.Subject.Dst)
	}
	if f.Subject.ReqID != 0 {
		key += fmt.Sprintf(" reqid %d", f.Subject.ReqID)
	}
	if f.Subject.Ifindex != 0 {
		key += fmt.Sprintf(" on device %d", f.Subject.Ifindex)
	}
	return key
}

// summary says what is in the files and what is not.
func (o *captureFlags) summary(st capture.Stats, out, progress io.Writer) error {
	if o.json {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(st)
	}
	for _, i := range st.Interfaces {
		line := fmt.Sprintf("xfrmscope: %s: %d packets passed, %d wanted, %d written", i.Name, i.Seen, i.Matched, i.Written)
		if i.Lost > 0 {
			line += fmt.Sprintf(", %d lost because the ring was full (raise --buffer)", i.Lost)
		}
		fmt.Fprintln(progress, line)
	}
	if st.Evicted > 0 {
		fmt.Fprintf(progress, "xfrmscope: %d packets made room for newer ones before anything was written (raise --memory)\n", st.Evicted)
	}
	return nil
}
