// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"xfrmscope/internal/export"
	"xfrmscope/internal/privilege"
)

// serveOptions are the flags of serve.
type serveOptions struct {
	live       liveOptions
	listen     string
	webConfig  string
	interval   time.Duration
	timeout    time.Duration
	window     time.Duration
	maxTunnels int
	otlp       string
	otlpEvery  time.Duration
	trigger    triggerOptions
}

func newServe() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "The ledger as metrics, for Prometheus and OTLP",
		Long: `Keeps watching this gateway's tunnels and answers Prometheus on /metrics: the loss ledger of each tunnel,
findings, the kernel's own counters, and what xfrmscope itself costs and loses. With --otlp it also
pushes the same figures to an OpenTelemetry receiver.

It listens on loopback only. To be scraped over a network, name an address with --listen, and give a
--web.config.file with TLS and users: the file is that of all of Prometheus' exporters.

With --trigger, a finding that begins takes a capture (which has the 30 seconds before as well: packets are
copied into memory all the time then, headers only) or a recording of the time after.

/-/healthy says that the process answers, /-/ready that its figures are fresh. SIGTERM, SIGHUP and Ctrl-C end
it: hooks are detached, and packets are not touched at any time.

Exit status: 0 ended by a signal, 2 wrong usage, 3 cannot observe or listen.`,
		Example: `  xfrmscope serve
  xfrmscope serve --listen 192.0.2.10:9477 --web.config.file /etc/xfrmscope/web.yml
  xfrmscope serve --otlp http://127.0.0.1:4318 --otlp-interval 30s
  xfrmscope serve --trigger path-loss,mtu-black-hole=capture:/var/lib/xfrmscope --trigger any=record:/var/lib/xfrmscope
  curl -s http://127.0.0.1:9477/metrics | grep lost_on_path`,
		Args: cobra.NoArgs,
		RunE: work(func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return &usageError{err}
			}
			return serve(cmd.Context(), &o, cmd.ErrOrStderr())
		}),
	}
	f := cmd.Flags()
	o.live.addFlags(f)
	f.StringVar(&o.listen, "listen", "127.0.0.1:9477", "`address` and port to answer on")
	f.StringVar(&o.webConfig, "web.config.file", "", "`file` with TLS certificates and users, as Prometheus' exporters have it")
	f.DurationVar(&o.interval, "interval", 15*time.Second, "take a snapshot and judge it at least this often, e.g. 15s, 1m")
	f.DurationVar(&o.timeout, "scrape-timeout", 9*time.Second, "a snapshot that takes longer has failed, e.g. 9s")
	f.DurationVar(&o.window, "window", 5*time.Minute, "judge findings by the last one to two of these, e.g. 5m")
	f.IntVar(&o.maxTunnels, "max-tunnels", export.DefaultMaxTunnels, "so many `tunnels` have series of their own; the rest is summed up as \"other\"")
	o.live.addStats(f)
	f.StringVar(&o.otlp, "otlp", "", "push to this OTLP/HTTP `URL` as well, e.g. http://127.0.0.1:4318; headers and certificates by OTEL_EXPORTER_OTLP_*")
	f.DurationVar(&o.otlpEvery, "otlp-interval", time.Minute, "push this often, e.g. 30s")
	o.trigger.quota = 1e9
	f.StringArrayVar(&o.trigger.texts, "trigger", nil,
		"when a finding begins, take a capture or a recording: `FINDING[,FINDING]=capture:DIR` or =record:DIR; \"any\": every finding that asks for action; repeatable")
	f.DurationVar(&o.trigger.length, "trigger-for", time.Minute, "how long a recording that a trigger begins goes on, e.g. 1m")
	f.DurationVar(&o.trigger.cooldown, "trigger-cooldown", 10*time.Minute, "how long a trigger rests after it went off, e.g. 10m")
	f.IntVar(&o.trigger.keep, "trigger-keep", 10, "`files` to keep for each kind of trigger and folder: the newest")
	f.Var(&o.trigger.quota, "trigger-quota", "`bytes` that these files may have together, e.g. 1GB")
	return cmd
}

// check finds what no flag parser does.
func (o *serveOptions) check() error {
	if _, _, err := net.SplitHostPort(o.listen); err != nil {
		return fmt.Errorf("--listen %q: want an address and a port, such as 127.0.0.1:9477", o.listen)
	}
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{
		{"--interval", o.interval}, {"--scrape-timeout", o.timeout}, {"--window", o.window}, {"--otlp-interval", o.otlpEvery},
	} {
		if d.value < time.Second {
			return fmt.Errorf("%s %s: at least a second", d.flag, d.value)
		}
	}
	if o.window <= o.interval {
		return fmt.Errorf("--window %s: must be longer than --interval, %s", o.window, o.interval)
	}
	if o.maxTunnels < 1 {
		return fmt.Errorf("--max-tunnels %d: at least one", o.maxTunnels)
	}
	if o.otlp != "" {
		if u, err := url.Parse(o.otlp); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("--otlp %q: want a URL such as http://127.0.0.1:4318", o.otlp)
		}
	}
	if err := o.trigger.check(); err != nil {
		return err
	}
	return export.CheckWebConfig(o.webConfig)
}

// needs are the files that are read and written while it answers: the web configuration, with its certificates, is
// read anew for each connection.
func (o *serveOptions) needs() []privilege.Need {
	out := []privilege.Need{{Cap: unix.CAP_DAC_READ_SEARCH, Try: func() error { return export.CheckWebConfig(o.webConfig) }}}
	for _, r := range o.trigger.rules {
		out = append(out, privilege.ToWrite(filepath.Join(r.Dir, "file")))
	}
	return out
}

// freshness is how old a snapshot may be to be given again: a second scraper costs no second snapshot.
const freshness = time.Second

// serve answers scrapes until the context ends.
func serve(ctx context.Context, o *serveOptions, progress io.Writer) (err error) {
	// First of all, so that a port which is taken costs no attaching.
	l, err := net.Listen("tcp", o.listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", o.listen, err)
	}
	defer l.Close()
	o.trigger.prepare(&o.live)
	s, err := openSession(ctx, &o.live)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	s.roll(o.window)
	t, err := openTriggers(s, o.trigger, progress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	if err := s.listen(t.hear); err != nil {
		return err
	}
	m, err := openMetering(s, t)
	if err != nil {
		return err
	}
	cache := export.NewCache(m.sample, m.options(o.maxTunnels), freshness, o.timeout)
	defer cache.Wait()
	if _, err := cache.Sample(ctx); err != nil {
		return err
	}
	fmt.Fprintln(progress, s.announce(0))
	fmt.Fprintf(progress, "xfrmscope: answering on %s\n", l.Addr())
	if host, _, err := net.SplitHostPort(l.Addr().String()); err == nil && !net.ParseIP(host).IsLoopback() && o.webConfig == "" {
		fmt.Fprintln(progress, "xfrmscope: anyone who reaches this address can read the metrics: --web.config.file sets users and TLS")
	}
	if o.otlp != "" {
		end, err := export.Push{URL: o.otlp, Interval: o.otlpEvery, Timeout: o.timeout, Host: hostname(), Version: version}.Open(ctx, cache)
		if err != nil {
			return err
		}
		defer func() {
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if e := end(last); e != nil {
				fmt.Fprintf(progress, "xfrmscope: last push to %s: %v\n", o.otlp, e)
			}
		}()
	}
	s.giveUp(&o.live, progress, o.needs()...)
	if err := o.live.ready(); err != nil {
		return err
	}
	server := &export.Server{
		Cache: cache, Timeout: o.timeout, Stale: 3*o.interval + o.timeout, WebConfig: o.webConfig, Version: version,
		Log: slog.New(slog.NewTextHandler(progress, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	g, run := errgroup.WithContext(ctx)
	g.Go(func() error { return s.reader.Run(run) })
	g.Go(func() error { return server.Serve(run, l) })
	g.Go(func() error { return t.run(run) })
	g.Go(func() error { return m.judge(run, cache, o.interval, progress) })
	return g.Wait()
}
