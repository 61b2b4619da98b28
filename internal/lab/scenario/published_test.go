// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"bytes"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"xfrmscope/internal/lab/schematest"
)

var published struct {
	once sync.Once
	by   map[string]*jsonschema.Schema
}

// valid holds an object that a command printed against the schema that is published of it. What a live gateway
// gives has more in it than unit tests make up.
func valid(t *testing.T, schema string, text []byte) {
	t.Helper()
	published.once.Do(func() { published.by = schematest.Published(t) })
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err == nil {
		err = published.by[schema].Validate(doc)
	}
	if err != nil {
		t.Errorf("not what the schema of %s says: %v\n%s", schema, err, text)
	}
}
