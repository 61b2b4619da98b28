// SPDX-License-Identifier: Apache-2.0

package export

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/crypto/bcrypt"

	"xfrmscope/internal/ledger"
)

func goodCache() *Cache {
	return NewCache(func(context.Context) (Sample, error) {
		g := &gateway{sas: 4}
		l := ledger.NewRolling(ledger.Source{Kind: ledger.KindLive}, time.Hour)
		l.Observe(g.snapshot(10, time.Second))
		l.Observe(g.snapshot(10, time.Second))
		return Sample{At: g.at, Totals: l.Totals(), Report: l.Report()}, nil
	}, Options{Version: "1"}, time.Hour, time.Minute)
}

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func handlerOf(t *testing.T, s *Server) http.Handler {
	t.Helper()
	h, err := s.Handler()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestPages: what each path says, and when.
func TestPages(t *testing.T) {
	s := &Server{Cache: goodCache(), Timeout: time.Minute, Stale: time.Hour}
	h := handlerOf(t, s)
	if code, body := get(t, h, "/-/ready"); code != http.StatusServiceUnavailable {
		t.Errorf("ready before the first snapshot: %d %s", code, body)
	}
	code, body := get(t, h, "/metrics")
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, series := range map[string]int{
		"xfrmscope_up": 1, "xfrmscope_sent_packets_total": 2, "xfrmscope_on_wire_packets_total": 2, "xfrmscope_sa_info": 4,
		"go_goroutines": 1, "process_cpu_seconds_total": 1, "promhttp_metric_handler_requests_total": 3,
	} {
		if f := families[name]; f == nil || len(f.Metric) != series || f.GetHelp() == "" {
			t.Errorf("%s: %v", name, f)
		}
	}
	for path, want := range map[string]int{"/-/ready": 200, "/-/healthy": 200, "/": 200, "/nonsense": 404} {
		if code, body := get(t, h, path); code != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if _, body := get(t, h, "/"); !strings.Contains(body, `href="/metrics"`) {
		t.Errorf("no link to the metrics: %s", body)
	}
	s.Stale = 0
	if code, body := get(t, h, "/-/ready"); code != http.StatusServiceUnavailable || !strings.Contains(body, "old") {
		t.Errorf("ready with a stale snapshot: %d %s", code, body)
	}
}

// TestScrapeOfAFailure: a snapshot that failed takes the ledger's series away, not the exporter's own.
func TestScrapeOfAFailure(t *testing.T) {
	c := NewCache(func(context.Context) (Sample, error) { return Sample{}, errors.New("boom") }, Options{}, time.Hour, time.Minute)
	code, body := get(t, handlerOf(t, &Server{Cache: c, Timeout: time.Minute}), "/metrics")
	if code != http.StatusOK || !strings.Contains(body, "\nxfrmscope_up 0\n") || !strings.Contains(body, "\nxfrmscope_snapshot_errors_total 1\n") ||
		strings.Contains(body, "xfrmscope_sas{") {
		t.Errorf("%d\n%s", code, body)
	}
}

// certificate makes a self-signed one for 127.0.0.1.
func certificate(t *testing.T, dir string) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, about, about, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	pool = x509.NewCertPool()
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if !pool.AppendCertsFromPEM(public) {
		t.Fatal("the certificate is none")
	}
	write(t, cert, public)
	write(t, key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw}))
	return cert, key, pool
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTLSAndUsers serves by a web configuration: over TLS, to those who know a password; and ends when told.
func TestTLSAndUsers(t *testing.T) {
	dir := t.TempDir()
	cert, key, pool := certificate(t, dir)
	hash, err := bcrypt.GenerateFromPassword([]byte("open sesame"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "web.yml")
	write(t, config, []byte("tls_server_config: {cert_file: "+cert+", key_file: "+key+"}\nbasic_auth_users: {prometheus: '"+string(hash)+"'}\n"))
	if err := CheckWebConfig(config); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	s := &Server{Cache: goodCache(), Timeout: time.Minute, Stale: time.Hour, WebConfig: config, Log: slog.New(slog.DiscardHandler)}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()

	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	ask := func(url, password string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if password != "" {
			req.SetBasicAuth("prometheus", password)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	url := "https://" + l.Addr().String() + "/metrics"
	for password, want := range map[string]int{"": 401, "wrong": 401, "open sesame": 200} {
		if code := ask(url, password); code != want {
			t.Errorf("with password %q: %d, want %d", password, code, want)
		}
	}
	if code := ask("http://"+l.Addr().String()+"/metrics", "open sesame"); code != http.StatusBadRequest {
		t.Errorf("without TLS: %d", code)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := CheckWebConfig(filepath.Join(dir, "none.yml")); err == nil {
		t.Error("a configuration that does not exist was accepted")
	}
}
