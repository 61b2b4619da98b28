// SPDX-License-Identifier: Apache-2.0

package export

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/net/netutil"
)

// Server answers scrapes.
type Server struct {
	Cache     *Cache
	Timeout   time.Duration // that a scrape waits for a snapshot
	Stale     time.Duration // a snapshot older than this makes the server not ready
	WebConfig string        // file of TLS and users, as all of Prometheus' exporters have it; "": neither
	Version   string
	Log       *slog.Logger // of what the HTTP server has to complain about

	limits *limits // nil: standard
}

// limits bound what clients can make the server hold, whoever they are: it is on a gateway, which has other things to do.
type limits struct {
	header      time.Duration // until a request is there
	write       time.Duration // until its answer is taken, from its header on; the snapshot comes on top
	connections int           // at a time; further ones wait
	headerBytes int
	last        time.Duration // for what is under way when the end comes
}

var standard = limits{header: 10 * time.Second, write: 30 * time.Second, connections: 64, headerBytes: 16 << 10, last: 5 * time.Second}

// scrapesAtOnce bounds how many scrapes are answered at one time; further ones get 503.
const scrapesAtOnce = 8

// Handler gives the pages.
func (s *Server) Handler() (http.Handler, error) {
	reg := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{
		NewCollector(s.Cache, s.Timeout),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	landing, err := web.NewLandingPage(web.LandingConfig{
		Name: "xfrmscope", Description: "Where the packets of an IPsec tunnel go", Version: s.Version, Profiling: "false",
		Links: []web.LandingLinks{
			{Address: "/metrics", Text: "Metrics", Description: "for Prometheus"},
			{Address: "/-/healthy", Text: "Health", Description: "200 as long as the process answers"},
			{Address: "/-/ready", Text: "Readiness", Description: "200 once the hooks are attached and snapshots are fresh"},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("make landing page: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.InstrumentMetricHandler(reg, promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		Registry: reg, ErrorHandling: promhttp.HTTPErrorOnError, MaxRequestsInFlight: scrapesAtOnce,
	})))
	mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "healthy") })
	mux.HandleFunc("GET /-/ready", func(w http.ResponseWriter, _ *http.Request) {
		code, text := s.readiness()
		say(w, code, text)
	})
	mux.Handle("GET /{$}", landing)
	return mux, nil
}

// readiness says whether what is scraped is fresh.
func (s *Server) readiness() (code int, text string) {
	age, ok := s.Cache.Age()
	switch {
	case !ok:
		return http.StatusServiceUnavailable, "not ready: the last snapshot failed, or none was taken yet"
	case age > s.Stale:
		return http.StatusServiceUnavailable, fmt.Sprintf("not ready: the last snapshot is %s old", age.Round(time.Second))
	}
	return http.StatusOK, "ready"
}

func say(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	fmt.Fprintln(w, text)
}

// Serve answers on a listener until the context ends, then lets open requests end, for a few seconds.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	handler, err := s.Handler()
	if err != nil {
		return err
	}
	server, bounds := s.server(handler)
	l = netutil.LimitListener(l, bounds.connections)
	ended := make(chan error, 1)
	none := false
	go func() {
		ended <- web.Serve(l, server, &web.FlagConfig{WebSystemdSocket: &none, WebConfigFile: &s.WebConfig}, s.Log)
	}()
	select {
	case err := <-ended:
		return fmt.Errorf("serve metrics: %w", err)
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), bounds.last)
	defer cancel()
	err = server.Shutdown(last)
	if errors.Is(err, context.DeadlineExceeded) {
		// Clients that have connected and not asked, or do not take their answer, are nothing that went wrong here.
		err = server.Close()
	}
	if e := <-ended; e != nil && !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	if err != nil {
		return fmt.Errorf("end serving metrics: %w", err)
	}
	return nil
}

// server answers within the limits.
func (s *Server) server(h http.Handler) (*http.Server, limits) {
	by := standard
	if s.limits != nil {
		by = *s.limits
	}
	return &http.Server{
		Handler: h, ReadHeaderTimeout: by.header, ReadTimeout: by.header, WriteTimeout: s.Timeout + by.write, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: by.headerBytes,
	}, by
}

// CheckWebConfig says what is wrong with a file of TLS and users, before anything is attached.
func CheckWebConfig(path string) error {
	if path == "" {
		return nil
	}
	if err := web.Validate(path); err != nil {
		return fmt.Errorf("read web configuration %s: %w", path, err)
	}
	return nil
}
