// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// notCommands are what the pages show that begins like one: names in capture files, a file's first line, and
// output.
var notCommands = map[string]bool{
	"xfrmscope decrypted": true, "xfrmscope before-encryption": true, "xfrmscope drop": true, `xfrmscope recording 1.0\n`: true,
	"xfrmscope itself lost nothing.": true,
}

// pages are the documents that a user reads, and the files that start xfrmscope.
func pages(t *testing.T) map[string]string {
	t.Helper()
	root := filepath.Join("..", "..")
	out := map[string]string{}
	add := func(path string) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out[path] = string(b)
	}
	add(filepath.Join(root, "README.md"))
	for _, dir := range []string{"docs", "deploy"} {
		if err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err == nil && (strings.HasSuffix(path, ".md") || strings.HasSuffix(path, ".service")) {
				add(path)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

var (
	inlineCode = regexp.MustCompile("`(xfrmscope [^`]*)`")
	// invoked is a command line of xfrmscope in a block of code: behind a prompt, sudo, variables, or ssh.
	invoked  = regexp.MustCompile(`^\s*(?:[#$] )?(?:sudo )?(?:[A-Z_]+=\S+ |[A-Z_]+="[^"]*" )*(?:ssh \S+ )?(?:ExecStart=/usr/bin/)?(xfrmscope(?: .*)?)$`)
	flagName = regexp.MustCompile("`(--[a-z][a-z.-]*)")
)

// TestDocumentedCommands parses every command line of xfrmscope that a page shows: the command has to be there,
// and take these flags.
func TestDocumentedCommands(t *testing.T) {
	n := 0
	for path, text := range pages(t) {
		var lines []string
		for _, m := range inlineCode.FindAllStringSubmatch(text, -1) {
			lines = append(lines, strings.Join(strings.Fields(m[1]), " "))
		}
		fenced := false
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "```") {
				fenced = !fenced
			}
			if !fenced && strings.HasSuffix(path, ".md") {
				continue
			}
			if m := invoked.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
				lines = append(lines, m[1])
			}
		}
		for _, line := range lines {
			words := strings.Fields(line)[1:]
			if end := slices.IndexFunc(words, func(w string) bool { return slices.Contains([]string{"|", "--", "&", ">", "#", "…", `\`}, w) }); end >= 0 {
				words = words[:end]
			}
			if len(words) == 0 || notCommands[line] {
				continue
			}
			found, rest, err := newRoot().Find(words)
			if err != nil || found.Parent() == nil && !strings.HasPrefix(words[0], "-") {
				t.Errorf("%s: %q: no such command", path, line)
				continue
			}
			n++
			found.InitDefaultVersionFlag()
			if err := found.ParseFlags(unquoted(rest)); err != nil && !errors.Is(err, pflag.ErrHelp) {
				t.Errorf("%s: %q: %v", path, line, err)
			}
		}
	}
	t.Logf("%d command lines", n)
	if n < 60 {
		t.Errorf("only %d command lines were found: the pages have more", n)
	}
}

// TestDocumentedFlags looks up every flag that a page names by itself.
func TestDocumentedFlags(t *testing.T) {
	known := map[string]bool{"--help": true, "--version": true}
	for _, c := range commands(newRoot()) {
		c.LocalFlags().VisitAll(func(f *pflag.Flag) { known["--"+f.Name] = true })
	}
	for path, text := range pages(t) {
		for _, m := range flagName.FindAllStringSubmatch(text, -1) {
			if !known[m[1]] {
				t.Errorf("%s names %s, which no command has", path, m[1])
			}
		}
	}
}

// everyday are abbreviations that whoever runs a gateway knows, names, and words of the output in capitals.
var everyday = strings.Fields(`
	AMD API ASCII BSD CI CPU GPL HTML HTTP HTTPS IP JSON KVM LICENSE NOT OK PPPoE QEMU README RFC SIGHUP SIGINT SIGKILL SIGQUIT SIGTERM
	SIGUSR1 SIGUSR2 SPDX SSH SYN TCP TLS TOTAL UDP URL UTC UTF VLAN VPN VXLAN XML
	PEER FFFD CAST NULL QUIC AES CBC GCM CCM CTR DES GMAC HMAC MD5 SHA RST SCTP NTP NTT VPC GRE IOS EPYC INIT INFORMATIONAL
	MUST SHOULD DELSA EXPIRE EPERM EBUSY GET HEAD CRITICAL WARNING UNATTRIBUTED`)

// code is what a page quotes: blocks and words of programs, and links.
var code = regexp.MustCompile("(?s)```.*?```|`[^`]*`|\\]\\([^)]*\\)")

// TestTermsAreExplained looks up every abbreviation of the prose in docs/glossary.md.
func TestTermsAreExplained(t *testing.T) {
	all := pages(t)
	glossary := all[filepath.Join("..", "..", "docs", "glossary.md")]
	for path, text := range all {
		if !strings.HasSuffix(path, ".md") {
			continue
		}
		for _, term := range regexp.MustCompile(`\b[A-Z][A-Z0-9]{2,}s?\b`).FindAllString(code.ReplaceAllString(text, " "), -1) {
			term = strings.TrimSuffix(term, "s")
			if slices.Contains(everyday, term) || strings.HasPrefix(term, "CAP_") {
				continue
			}
			if !regexp.MustCompile(`\b` + term + `\b`).MatchString(glossary) {
				t.Errorf("%s: %s is not in the glossary", path, term)
			}
		}
	}
}
