// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"regexp"
	"strings"
)

// plainName matches names that can stand in a command as they are.
var plainName = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

// callByName says which connection and child a finding is about, as the IKE daemon calls them, and puts their
// names where its remedies for that daemon leave a gap.
func callByName(f *Finding) {
	s := &f.Subject
	if s.Connection == "" {
		return
	}
	f.Summary += " In strongSwan: connection " + quoted(s.Connection)
	gaps := []string{}
	if plainName.MatchString(s.Connection) {
		gaps = append(gaps, "<conn>", s.Connection)
	}
	if s.Child != "" {
		f.Summary += ", child " + quoted(s.Child)
		if plainName.MatchString(s.Child) {
			gaps = append(gaps, "<child>", s.Child)
		}
	}
	f.Summary += "."
	fill := strings.NewReplacer(gaps...)
	for i := range f.Remedy {
		r := &f.Remedy[i]
		if r.For != forStrongSwan {
			continue
		}
		for k := range r.Commands {
			r.Commands[k] = fill.Replace(r.Commands[k])
		}
	}
}

// quoted writes a name so that whatever is in it does no harm.
func quoted(name string) string {
	if plainName.MatchString(name) {
		return name
	}
	return fmt.Sprintf("%q", name)
}
