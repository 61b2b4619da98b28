// SPDX-License-Identifier: Apache-2.0

// Gather makes the record of one kernel from what scripts/vm/test printed there and from the notes that the
// tests left, and prints it.
//
//	gather NAME OUTPUT NOTES
package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"xfrmscope/internal/lab/kernels"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: gather NAME OUTPUT NOTES")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "gather:", err)
		os.Exit(1)
	}
}

func run(name, output, dir string) (err error) {
	notes, err := kernels.ReadNotes(dir)
	if err != nil {
		return err
	}
	f, err := os.Open(output)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r, err := kernels.Gather(name, time.Now().UTC().Format(time.DateOnly), f, notes)
	if err != nil {
		return err
	}
	raw, err := r.Write()
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(raw)
	return err
}
