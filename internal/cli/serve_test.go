// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// scrapeCmd asks a path of a local port until a line of the answer matches: scrape PORT PATH LINE. What was
// counted a moment ago shows in the next snapshot.
func scrapeCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: scrape PORT PATH LINE")
	}
	want := regexp.MustCompile(`(?m)^` + regexp.MustCompile(`[{}]`).ReplaceAllString(args[2], `\$0`) + `$`)
	var last string
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		body, err := fetch(fmt.Sprintf("http://127.0.0.1:%s%s", args[0], args[1]))
		if err == nil && want.MatchString(body) {
			return
		}
		last = fmt.Sprintf("%v\n%s", err, body)
	}
	ts.Fatalf("no line %s in %s", want, last)
}

func fetch(url string) (string, error) {
	resp, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}
