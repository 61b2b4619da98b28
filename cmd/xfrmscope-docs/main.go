// SPDX-License-Identifier: Apache-2.0

// Command xfrmscope-docs writes the man pages and the completions that packages ship. It is a program of
// its own so that xfrmscope does not carry the generator.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"xfrmscope/internal/cli"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: xfrmscope-docs DIR")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "xfrmscope-docs:", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	root := cli.Root()
	root.DisableAutoGenTag = true // the same input gives the same pages
	man := filepath.Join(dir, "man")
	if err := os.MkdirAll(man, 0o755); err != nil {
		return err
	}
	header := &doc.GenManHeader{Section: "8", Source: "xfrmscope " + root.Version, Manual: "System administration"}
	if err := doc.GenManTree(root, header, man); err != nil {
		return fmt.Errorf("write man pages: %w", err)
	}
	for _, c := range completions {
		path := filepath.Join(dir, "completions", c.path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := c.write(root, path); err != nil {
			return fmt.Errorf("write completion: %w", err)
		}
	}
	return nil
}

// completions are laid out as the shells look for them below /usr/share.
var completions = []struct {
	path  string
	write func(*cobra.Command, string) error
}{
	{"bash-completion/completions/xfrmscope", func(c *cobra.Command, path string) error { return c.GenBashCompletionFileV2(path, true) }},
	{"zsh/vendor-completions/_xfrmscope", (*cobra.Command).GenZshCompletionFile},
	{"fish/vendor_completions.d/xfrmscope.fish", func(c *cobra.Command, path string) error { return c.GenFishCompletionFile(path, true) }},
}
