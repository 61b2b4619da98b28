// SPDX-License-Identifier: Apache-2.0

// Demo raises an ESP tunnel between two network namespaces, loses, delays and corrupts some of its
// packets, and shows what xfrmscope says about it. At the end it prints which faults it caused, so
// that the reader can compare.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"xfrmscope/internal/lab/inject"
	"xfrmscope/internal/lab/traffic"
	"xfrmscope/internal/lab/tunnel"
)

const (
	watch   = 15 * time.Second
	tail    = 3 * time.Second       // left at the end, so that what is missing becomes lost
	gap     = 10 * time.Millisecond // between two packets
	packets = int((watch - tail) / gap)
	start   = 90 * time.Second // bounds xfrmscope's start on an emulated machine
)

// The faults: 1 packet in 40 lost, 8 reordered beyond the replay window of 32, 4 corrupted.
func faults(spi uint32) []inject.Rule {
	last := uint32(packets * 2 / 3) // the sender may be slower than planned: all of it must come by
	return []inject.Rule{
		{SPI: spi, Action: inject.Drop, Seqs: inject.Every(20, last, 40)},
		{SPI: spi, Action: inject.Delay, After: 50, Seqs: inject.Every(61, 61+7*80, 80)},
		{SPI: spi, Action: inject.Corrupt, Seqs: inject.Every(75, 75+3*160, 160)},
	}
}

func main() {
	check := flag.Bool("check", false, "only say, by the exit status, whether this kernel can hold the tunnel")
	program := flag.String("xfrmscope", "xfrmscope", "the program to show")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if *check {
		err = tunnel.Supported()
	} else {
		err = show(ctx, *program)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// show is the demonstration. Whatever happens, it takes down what it raised.
func show(ctx context.Context, program string) (err error) {
	tun, err := tunnel.Build(tunnel.Options{Name: "gw"})
	if err != nil {
		return err
	}
	closing := func(f func() error) { err = errors.Join(err, f()) }
	defer closing(tun.Close)
	sa := tun.AtoB[0]
	path, err := inject.Open(inject.Path{A: tunnel.PathA, B: tunnel.PathB, Do: tun.Path.Do}, faults(sa.SPI)...)
	if err != nil {
		return err
	}
	defer closing(path.Close)
	there, back, err := flows(tun)
	if err != nil {
		return err
	}
	defer closing(there.Close)
	defer closing(back.Close)

	ready, err := os.MkdirTemp("", "xfrmscope-demo")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer closing(func() error { return os.RemoveAll(ready) })
	mark := filepath.Join(ready, "ready")
	cmd := exec.CommandContext(ctx, program, "diagnose", "--netns", tun.B.Name, "--interface", tunnel.WAN,
		"--for", watch.String(), "--ready-file", mark)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	fmt.Printf("$ %s diagnose --netns %s --interface %s --for %s\n", filepath.Base(program), tun.B.Name, tunnel.WAN, watch)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start xfrmscope (run make build): %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := talk(ctx, mark, ended, there, back); err != nil {
		return errors.Join(err, stop(cmd))
	}
	if err := verdict(<-ended); err != nil {
		return err
	}
	return account(path, sa.SPI)
}

// flows are one in each direction.
func flows(t *tunnel.Tunnel) (there, back *traffic.Flow, err error) {
	open := func(sa tunnel.SA) (*traffic.Flow, error) {
		return traffic.Open(traffic.Ends{From: sa.From.Do, To: sa.To.Do, Src: sa.Src, Dst: sa.Dst, Port: tunnel.Port})
	}
	if there, err = open(t.AtoB[0]); err != nil {
		return nil, nil, err
	}
	if back, err = open(t.BtoA[0]); err != nil {
		return nil, nil, errors.Join(err, there.Close())
	}
	return there, back, nil
}

// talk waits until xfrmscope watches and sends the traffic, four packets there for one back.
func talk(ctx context.Context, mark string, ended chan error, there, back *traffic.Flow) error {
	for deadline := time.Now().Add(start); ; {
		if _, err := os.Stat(mark); err == nil {
			break
		}
		select {
		case err := <-ended:
			ended <- err
			return nil // verdict says why
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("xfrmscope was not ready within %s", start)
		}
	}
	until := time.Now().Add(watch - tail)
	for sent := 0; sent < packets && (time.Now().Before(until) || sent < packets*3/4); sent += 4 {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := errors.Join(there.Send(4, gap), back.Send(1, 0)); err != nil {
			return err
		}
	}
	return nil
}

// verdict takes "there are findings" for what it is: the point of the demonstration.
func verdict(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("run xfrmscope: %w", err)
	}
	return nil
}

// stop ends xfrmscope when the demonstration fails before it does.
func stop(cmd *exec.Cmd) error {
	if err := cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end xfrmscope: %w", err)
	}
	return nil
}

// account prints what the demonstration did to the packets.
func account(path *inject.Injector, spi uint32) error {
	t := path.Truth(inject.AtoB, spi)
	w := t.Wire()
	fmt.Printf("\nWhat the demonstration did to SA 0x%08x on its way: of %d packets it lost %d, delayed %d by up to %d numbers\n"+
		"(the replay window is 32), and corrupted %d.\n", spi, len(t.In), t.Lost(), w.Late, w.Displacement, t.Count(inject.Corrupted))
	return nil
}
