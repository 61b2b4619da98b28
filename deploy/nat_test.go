// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// documentedScrapes is the configuration that docs/serve.md shows for a gateway behind a NAT.
func documentedScrapes(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "docs", "serve.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(page, -1) {
		if strings.Contains(string(m[1]), "metric_relabel_configs") {
			return string(m[1])
		}
	}
	t.Fatal("docs/serve.md shows no configuration for a gateway behind a NAT")
	return ""
}

// TestNATIsJoined has Debian's Prometheus scrape a gateway behind a NAT and its peer as docs/serve.md says. The
// two ends of each direction then have one name, which is what the rules join them by.
func TestNATIsJoined(t *testing.T) {
	path, err := exec.LookPath("prometheus")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("prometheus is not installed: scripts/deps test")
	}
	gateway := func(series string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, series) }))
		t.Cleanup(s.Close)
		return strings.TrimPrefix(s.URL, "http://")
	}
	inside := gateway(`xfrmscope_on_wire_packets_total{direction="out",local="10.0.0.5",peer="198.51.100.2",reqid="1"} 300
xfrmscope_unique_packets_total{direction="in",local="10.0.0.5",peer="198.51.100.2",reqid="1"} 40
`)
	outside := gateway(`xfrmscope_unique_packets_total{direction="in",local="198.51.100.2",peer="203.0.113.7",reqid="9"} 270
xfrmscope_on_wire_packets_total{direction="out",local="198.51.100.2",peer="203.0.113.7",reqid="9"} 50
`)
	dir := t.TempDir()
	config := strings.NewReplacer("gw-a.example.net:9477", inside, "gw-b.example.net:9477", outside, "15s", "1s").Replace(documentedScrapes(t))
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := runPrometheus(t, path, file, dir)
	// There: from the gateway behind the NAT to its peer; back: the other way.
	for query, want := range map[string]string{
		`xfrmscope_on_wire_packets_total{local="203.0.113.7"} - on () xfrmscope_unique_packets_total{peer="203.0.113.7"}`: "30",
		`xfrmscope_on_wire_packets_total{peer="203.0.113.7"} - on () xfrmscope_unique_packets_total{local="203.0.113.7"}`: "10",
	} {
		if got := p.await(query); got != want {
			t.Errorf("%s is %s, want %s", query, got, want)
		}
	}
}

// server is a Prometheus that runs.
type server struct {
	t   *testing.T
	url string
}

var listening = regexp.MustCompile(`Listening on" address=(\S+)`)

func runPrometheus(t *testing.T, path, config, dir string) *server {
	t.Helper()
	cmd := exec.Command(path, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0")
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(log)
	var said []string
	for lines.Scan() {
		said = append(said, lines.Text())
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			go func() {
				for lines.Scan() {
				}
			}()
			return &server{t, "http://" + m[1]}
		}
	}
	t.Fatalf("prometheus does not listen:\n%s", strings.Join(said, "\n"))
	return nil
}

// await is the value of a query with one series, once there is one.
func (s *server) await(query string) string {
	s.t.Helper()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		resp, err := http.Get(s.url + "/api/v1/query?" + url.Values{"query": {query}}.Encode())
		if err != nil {
			continue
		}
		var answer struct {
			Data struct {
				Result []struct{ Value [2]any }
			}
		}
		err = json.NewDecoder(resp.Body).Decode(&answer)
		resp.Body.Close()
		if err == nil && len(answer.Data.Result) == 1 {
			return fmt.Sprint(answer.Data.Result[0].Value[1])
		}
	}
	s.t.Fatalf("no answer to %s", query)
	return ""
}
