// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"testing"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/ledger/ledgertest"
)

// BenchmarkGateway is a snapshot and a report of a gateway with 16,000 SAs, all of them in use.
func BenchmarkGateway(b *testing.B) {
	w := ledgertest.New()
	for i := range 16000 {
		w.Inbound(ledger.SPI(0x1000+i), 32, false).Deliver(10)
	}
	s := w.Snapshot()
	b.Run("observe", func(b *testing.B) {
		l := ledger.New(ledger.Source{Kind: ledger.KindLive})
		b.ReportAllocs()
		for b.Loop() {
			l.Observe(s)
		}
	})
	b.Run("report", func(b *testing.B) {
		l := ledger.New(ledger.Source{Kind: ledger.KindLive})
		l.Observe(s)
		b.ReportAllocs()
		for b.Loop() {
			l.Report()
		}
	})
}
