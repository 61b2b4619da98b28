// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"testing"

	"xfrmscope/internal/lab/tunnel"
)

// TestTimeInXfrm measures every packet of both directions, in tunnel and in transport mode. How long
// they take is the machine's business; that none is missed is not.
func TestTimeInXfrm(t *testing.T) {
	tunnel.Need(t)
	for _, options := range []tunnel.Options{{}, {Family: 6, Mode: tunnel.TransportMode}} {
		label := "v4 tunnel"
		if options.Family == 6 {
			label = "v6 transport"
		}
		t.Run(label, func(t *testing.T) {
			machineSetting(t, "kernel/bpf_stats_enabled", "1")
			b := open(t, options, nil, "--latency")
			there, back := b.tunnel.AtoB[0], b.tunnel.BtoA[0]
			b.send(there, 120)
			b.send(back, 90)
			o := b.finish()
			for _, x := range []struct {
				spi       uint32
				direction string
				packets   int64
			}{{there.SPI, "in", 120}, {back.SPI, "out", 90}} {
				l := o.find(t, x.spi, x.direction).Latency
				if l == nil {
					t.Fatalf("no time for SA %s", name(x.spi))
				}
				sum := int64(0)
				for _, n := range l.Histogram {
					sum += n
				}
				diff(t, "packets measured of "+name(x.spi), []int64{x.packets, x.packets, 0}, []int64{l.Packets, sum, l.Async})
				if l.MeanNs <= 0 || l.MedianNs > l.P99Ns || l.P99Ns > l.MaxNs || l.MeanNs > l.MaxNs {
					t.Errorf("times of SA %s make no sense: %+v", name(x.spi), l)
				}
				t.Logf("%s %s: mean %d ns, median at most %d, 99 %% at most %d, longest %d", name(x.spi), x.direction, l.MeanNs, l.MedianNs, l.P99Ns, l.MaxNs)
			}
			for program, ns := range o.report.Self.NsPerRun {
				t.Logf("cost of %s: %.0f ns a run", program, ns)
			}
			o.checkFindings(t)
			o.checkSelf(t)
		})
	}
}
