// SPDX-License-Identifier: Apache-2.0

// Package inject forwards the frames of a path in user space, untouched but for the faults that it
// was told to cause: to which packet, what, and nothing else. It needs nothing from the kernel but
// packet sockets, sees every frame, and keeps an exact account, which is the truth that the program
// under test has to find.
package inject

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxHeld bounds what the injector keeps back, so that a wrong rule fails instead of filling memory.
const maxHeld = 1 << 16

// Path names where to forward: the two interfaces, and a function that runs another one inside
// their network namespace.
type Path struct {
	A, B string
	Do   func(func() error) error
}

// Injector forwards between the two ends of a path until it is closed.
type Injector struct {
	ports [directions]*port // where packets of a direction come from
	wake  [2]int            // a pipe: writing to it ends the loop
	done  chan struct{}

	mu     sync.Mutex
	rules  []*work
	sas    [directions]map[uint32]*flow
	others [directions]int // frames that were neither ESP nor IKE
	held   int
	nat    nat

	blocked  [directions]bool
	controls []*control
	messages []Message
	parked   []parked

	last time.Time // of the last frame
	err  error     // the first thing that went wrong
}

// flow is one SA on the path.
type flow struct {
	truth   Truth
	last    uint64 // newest number, joined
	waiting []*waiting
	police  policer
}

// waiting is a packet or a copy that goes out later.
type waiting struct {
	frame   []byte
	out     Departure
	left    int  // later packets that have to pass first
	forever bool // until Release
}

// Open starts forwarding.
func Open(path Path, rules ...Rule) (*Injector, error) {
	prepared, err := prepare(rules)
	if err != nil {
		return nil, fmt.Errorf("open injector: %w", err)
	}
	in := &Injector{rules: prepared, done: make(chan struct{}), last: time.Now()}
	for d := range in.sas {
		in.sas[d] = map[uint32]*flow{}
	}
	err = path.Do(func() error {
		for d, name := range []string{path.A, path.B} {
			p, err := openPort(name)
			if err != nil {
				return err
			}
			in.ports[d] = p
		}
		return unix.Pipe2(in.wake[:], unix.O_CLOEXEC)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open injector: %w", err), in.closePorts())
	}
	go in.loop()
	return in, nil
}

// Close stops forwarding and says whether the run was valid: nothing failed, the kernel dropped no
// frame before the injector saw it, every rule found all its packets, nothing is still held back.
func (in *Injector) Close() error {
	_, err := unix.Write(in.wake[1], []byte{0})
	if err != nil {
		return fmt.Errorf("stop injector: %w", err)
	}
	<-in.done
	return errors.Join(in.Err(), in.verify(), in.closePorts(), unix.Close(in.wake[0]), unix.Close(in.wake[1]))
}

func (in *Injector) verify() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	var errs []error
	for _, w := range in.rules {
		if w.done != len(w.Seqs) {
			errs = append(errs, fmt.Errorf("invalid run: rule %q on SA %#x, %s, met %d of its %d packets",
				w.Action, w.SPI, w.Direction, w.done, len(w.Seqs)))
		}
	}
	errs = append(errs, in.verifyControl())
	if in.held > 0 {
		errs = append(errs, fmt.Errorf("invalid run: %d packets are still held back", in.held))
	}
	return errors.Join(errs...)
}

// Err is the first thing that went wrong so far, frames lost by the sockets included.
func (in *Injector) Err() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	errs := []error{in.err}
	for _, p := range in.ports {
		if p == nil { // closed: Close has reported already
			continue
		}
		if err := p.statistics(); err != nil {
			errs = append(errs, err)
		}
		if p.dropped > 0 {
			errs = append(errs, fmt.Errorf("invalid run: the kernel dropped %d frames on %s before the injector saw them", p.dropped, p.name))
		}
	}
	return errors.Join(errs...)
}

func (in *Injector) closePorts() error {
	var errs []error
	for d, p := range in.ports {
		if p != nil {
			errs = append(errs, p.close())
			in.ports[d] = nil
		}
	}
	return errors.Join(errs...)
}

// loop is the only reader of the sockets.
func (in *Injector) loop() {
	defer close(in.done)
	buf := make([]byte, maxFrameBytes)
	fds := []unix.PollFd{
		{Fd: int32(in.ports[AtoB].fd), Events: unix.POLLIN},
		{Fd: int32(in.ports[BtoA].fd), Events: unix.POLLIN},
		{Fd: int32(in.wake[0]), Events: unix.POLLIN},
	}
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			in.fail(fmt.Errorf("wait for frames: %w", err))
			return
		}
		if fds[2].Revents != 0 {
			return
		}
		for d := AtoB; d < directions; d++ {
			if fds[d].Revents == 0 {
				continue
			}
			if err := in.take(d, buf); err != nil {
				in.fail(err)
				return
			}
		}
	}
}

func (in *Injector) fail(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.err == nil {
		in.err = err
	}
}

// take forwards the next frame of a direction. It reads under the lock: a frame that is not in its socket any more
// has gone on.
func (in *Injector) take(d Direction, buf []byte) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	n, err := in.ports[d].receive(buf)
	if err == nil && n > 0 {
		in.last = time.Now()
		in.forward(d, buf[:n])
	}
	return err
}

// forward decides about one frame and sends what has to go out.
func (in *Injector) forward(d Direction, frame []byte) {
	p, ok := parse(frame)
	if !ok {
		if !in.message(d, frame) {
			in.others[d]++
			if !in.blocked[d] {
				in.send(d, frame)
			}
		}
		return
	}
	f := in.flow(d, p.spi)
	f.last = join(f.last, p.seq)
	f.truth.In = append(f.truth.In, f.last)
	if in.blocked[d] {
		f.truth.Dropped++
		return
	}
	out := Departure{Seq: f.last, IP: p.ip}
	if !in.nat.translate(d, frame, p) || f.police.drops(in.last) {
		f.truth.Dropped++
		return
	}
	if w := in.rule(d, p); w != nil {
		in.apply(d, f, w, frame, p, out)
		return
	}
	in.depart(d, f, frame, out)
	in.pass(d, f)
}

func (in *Injector) flow(d Direction, spi uint32) *flow {
	f := in.sas[d][spi]
	if f == nil {
		f = &flow{truth: Truth{SPI: spi}}
		in.sas[d][spi] = f
	}
	return f
}

// rule finds the rule that names the packet and strikes the number off its list.
func (in *Injector) rule(d Direction, p packet) *work {
	for _, w := range in.rules {
		if w.Direction == d && w.SPI == p.spi && w.left[p.seq] {
			delete(w.left, p.seq)
			w.done++
			return w
		}
	}
	return nil
}

func (in *Injector) apply(d Direction, f *flow, w *work, frame []byte, p packet, out Departure) {
	switch w.Action {
	case Drop:
		f.truth.Dropped++
	case Delay, Hold:
		out.Fate = Delayed
		in.wait(f, &waiting{frame: clone(frame), out: out, left: w.After, forever: w.Action == Hold})
	case Corrupt:
		if err := corrupt(frame, p); err != nil && in.err == nil {
			in.err = err
		}
		out.Fate = Corrupted
		in.depart(d, f, frame, out)
		in.pass(d, f)
	case Unwrap, Wrap:
		changed, err := map[Action]func([]byte, packet) ([]byte, error){Unwrap: unwrap, Wrap: wrap}[w.Action](frame, p)
		if err != nil && in.err == nil {
			in.err = err
		}
		out.IP = len(changed) - ethLen
		in.depart(d, f, changed, out)
		in.pass(d, f)
	case Mark, Move:
		if err := rewrite(frame, p, w.Rule); err != nil && in.err == nil {
			in.err = err
		}
		if w.Action == Mark {
			f.truth.Marked++
		}
		in.depart(d, f, frame, out)
		in.pass(d, f)
	case Duplicate:
		in.depart(d, f, frame, out)
		in.pass(d, f)
		out.Fate = Copied
		for range w.Copies {
			if w.After == 0 {
				in.depart(d, f, frame, out)
				continue
			}
			in.wait(f, &waiting{frame: clone(frame), out: out, left: w.After})
		}
	}
}

func (in *Injector) wait(f *flow, w *waiting) {
	if in.held++; in.held > maxHeld && in.err == nil {
		in.err = fmt.Errorf("invalid run: more than %d packets held back", maxHeld)
	}
	f.waiting = append(f.waiting, w)
	f.truth.Held++
}

// pass tells the waiting packets that a later one has gone by, and lets go those that have waited
// long enough, the longest waiting first.
func (in *Injector) pass(d Direction, f *flow) {
	for _, w := range f.waiting {
		w.left--
	}
	in.release(d, f, func(w *waiting) bool { return !w.forever && w.left <= 0 })
}

func (in *Injector) release(d Direction, f *flow, ready func(*waiting) bool) {
	var keep []*waiting
	for _, w := range f.waiting {
		if !ready(w) {
			keep = append(keep, w)
			continue
		}
		in.held--
		f.truth.Held--
		in.depart(d, f, w.frame, w.out)
	}
	f.waiting = keep
}

// Release lets go everything that is still held back, whatever it waits for.
func (in *Injector) Release() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.last = time.Now()
	in.unpark()
	for d := range in.sas {
		for _, f := range in.sas[d] {
			in.release(Direction(d), f, func(*waiting) bool { return true })
		}
	}
}

// Send puts a packet on the path that no gateway sent.
func (in *Injector) Send(d Direction, c Crafted) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.last = time.Now()
	frame := c.frame()
	f := in.flow(d, c.SPI)
	in.depart(d, f, frame, Departure{Seq: uint64(c.Seq), Fate: Made, IP: len(frame) - ethLen})
}

func (in *Injector) depart(d Direction, f *flow, frame []byte, out Departure) {
	f.truth.Out = append(f.truth.Out, out)
	in.send(d, frame)
}

// send puts the frame on the interface at the other end.
func (in *Injector) send(d Direction, frame []byte) {
	if err := in.ports[1-d].send(frame); err != nil && in.err == nil {
		in.err = err
	}
}

// Truth is the account of one SA so far; an SA that never came by has an empty one.
func (in *Injector) Truth(d Direction, spi uint32) Truth {
	in.mu.Lock()
	defer in.mu.Unlock()
	f := in.sas[d][spi]
	if f == nil {
		return Truth{SPI: spi}
	}
	t := f.truth
	t.In = append([]uint64(nil), t.In...)
	t.Out = append([]Departure(nil), t.Out...)
	return t
}

// Others is how many frames of a direction were neither whole ESP packets nor IKE messages.
func (in *Injector) Others(d Direction) int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.others[d]
}

func clone(frame []byte) []byte { return append([]byte(nil), frame...) }
