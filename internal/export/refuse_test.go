// SPDX-License-Identifier: Apache-2.0

package export

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// never is longer than any test takes.
const never = time.Hour

// serving runs a server on loopback until the test ends.
func serving(t *testing.T, by limits) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{Cache: goodCache(), Timeout: time.Minute, Stale: time.Hour, Log: slog.New(slog.DiscardHandler), limits: &by}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestOnlyReading: there is nothing to change, no page but those that are documented, and no profiler.
func TestOnlyReading(t *testing.T) {
	h := handlerOf(t, &Server{Cache: goodCache(), Timeout: time.Minute, Stale: time.Hour})
	for _, path := range []string{"/metrics", "/", "/-/ready", "/-/healthy"} {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader("a body")))
			if w.Code != http.StatusMethodNotAllowed && w.Code != http.StatusNotFound {
				t.Errorf("%s %s: %d", method, path, w.Code)
			}
		}
	}
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/profile", "/debug/vars", "/-/reload", "/-/quit", "/metrics/", "/metrics/../etc/passwd", "//etc/passwd"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != http.StatusNotFound && w.Code/100 != 3 {
			t.Errorf("GET %s: %d", path, w.Code)
		}
	}
	// The handler is the server's alone: what a library registers with the default one is not served.
	w := httptest.NewRecorder()
	http.DefaultServeMux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/debug/pprof/", nil))
	if w.Code != http.StatusNotFound {
		t.Errorf("a profiler is linked in: %d", w.Code)
	}
}

// TestLargeHeader is refused before all of it was read.
func TestLargeHeader(t *testing.T) {
	c := dial(t, serving(t, standard))
	go func() {
		// The server closes while this is under way.
		_, _ = fmt.Fprintf(c, "GET /metrics HTTP/1.1\r\nHost: x\r\nX-Much: %s\r\n\r\n", strings.Repeat("a", 1<<20))
	}()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%s", resp.Status)
	}
}

// TestSlowRequest: who does not come to the point is let go of.
func TestSlowRequest(t *testing.T) {
	by := standard
	by.header = 50 * time.Millisecond
	address := serving(t, by)
	for _, begun := range []string{"", "GET /metrics HTTP/1.1\r\nHost:"} {
		c := dial(t, address)
		if _, err := io.WriteString(c, begun); err != nil {
			t.Fatal(err)
		}
		// It ends, whatever it says before.
		if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%q: %v", begun, err)
		}
	}
}

// TestSlowReader: an answer that nobody takes is given up.
func TestSlowReader(t *testing.T) {
	by := standard
	by.write = 50 * time.Millisecond
	ended := make(chan error, 1)
	server, _ := (&Server{limits: &by}).server(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				ended <- err
				return
			}
		}
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	c := dial(t, l.Addr().String())
	if _, err := io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the answer ended with %v", err)
	}
	if err := errors.Join(server.Close()); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

// TestConnectionsAreBounded: further ones wait until others end, and cost the gateway nothing.
func TestConnectionsAreBounded(t *testing.T) {
	by := standard
	by.connections, by.header = 2, never
	address := serving(t, by)
	first, second := dial(t, address), dial(t, address)
	for _, c := range []net.Conn{first, second} {
		ask(t, c)
		answered(t, c)
	}
	third := dial(t, address)
	ask(t, third)
	if err := third.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := third.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection too many was answered: %d bytes, %v", n, err)
	}
	if err := errors.Join(first.Close(), third.SetReadDeadline(time.Time{})); err != nil {
		t.Fatal(err)
	}
	answered(t, third)
}

func ask(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.WriteString(c, "GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
}

func answered(t *testing.T, c net.Conn) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%s, %v", resp.Status, err)
	}
}

// TestEndWaitsForNobody: a request that cannot be answered does not make the end a failure.
func TestEndWaitsForNobody(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	c := NewCache(func(context.Context) (Sample, error) { close(begun); <-release; return Sample{}, nil }, Options{}, time.Hour, never)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	by := standard
	by.last = 10 * time.Millisecond
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		s := &Server{Cache: c, Timeout: never, Log: slog.New(slog.DiscardHandler), limits: &by}
		ended <- s.Serve(ctx, l)
	}()
	client := dial(t, l.Addr().String())
	if _, err := io.WriteString(client, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-begun
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	close(release)
	c.Wait()
}

// TestScrapesAreBounded: while as many as may wait for a kernel that does not answer, the next one is sent away.
func TestScrapesAreBounded(t *testing.T) {
	release := make(chan struct{})
	c := NewCache(func(context.Context) (Sample, error) { <-release; return Sample{}, nil }, Options{}, time.Hour, never)
	h := handlerOf(t, &Server{Cache: c, Timeout: never})
	codes := make(chan int)
	for range scrapesAtOnce + 1 {
		go func() {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
			codes <- w.Code
		}()
	}
	if code := <-codes; code != http.StatusServiceUnavailable {
		t.Errorf("the first answer is %d", code)
	}
	close(release)
	for range scrapesAtOnce {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("%d", code)
		}
	}
}
