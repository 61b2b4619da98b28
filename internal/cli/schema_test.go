// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// schemas are the published ones, by the file's name without ".schema.json".
type schemas map[string]*jsonschema.Schema

// validCmd holds what the last command printed, or a file, against a published schema, each line by itself
// where the command prints an object a line: valid SCHEMA [FILE].
func (s schemas) validCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 || s[args[0]] == nil {
		ts.Fatalf("usage: valid schema [file]")
	}
	file := "stdout"
	if len(args) == 2 {
		file = args[1]
	}
	objects := [][]byte{[]byte(ts.ReadFile(file))}
	if args[0] == "trace" || args[0] == "drops" {
		objects = bytes.Split(bytes.TrimSpace(objects[0]), []byte("\n"))
	}
	for _, o := range objects {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(o))
		ts.Check(err)
		if err := s[args[0]].Validate(doc); err != nil {
			ts.Fatalf("%s is not what docs publish of %s: %v\n%s", file, args[0], err, o)
		}
	}
}
