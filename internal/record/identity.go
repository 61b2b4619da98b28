// SPDX-License-Identifier: Apache-2.0

package record

import (
	"net/netip"
	"reflect"
	"time"

	"xfrmscope/internal/ledger"
)

// identity tells what element of a list is which, so that one that comes or goes does not make all behind
// it look changed. A list without one is recorded as truly, only at more length.
type identity struct {
	of   func(reflect.Value) any
	same func(a, b reflect.Value) bool
}

// identities of the elements of a snapshot's lists.
var identities = map[reflect.Type]*identity{
	reflect.TypeFor[ledger.WireSA]():     by(func(x *ledger.WireSA) ledger.SAKey { return x.Key }),
	reflect.TypeFor[ledger.StackSA]():    by(func(x *ledger.StackSA) ledger.SAKey { return x.Key }),
	reflect.TypeFor[ledger.SALatency]():  by(func(x *ledger.SALatency) ledger.SAKey { return x.Key }),
	reflect.TypeFor[ledger.UnknownSPI](): by(func(x *ledger.UnknownSPI) ledger.SAKey { return x.Key }),
	reflect.TypeFor[ledger.SAName]():     by(func(x *ledger.SAName) ledger.SAKey { return x.Key }),
	reflect.TypeFor[ledger.HostDrop]():   by(func(x *ledger.HostDrop) ledger.DropID { return x.DropID }),
	reflect.TypeFor[ledger.SADEntry](): by(func(x *ledger.SADEntry) any {
		return struct {
			ledger.SAKey
			value, mask uint32
		}{x.Key, x.MarkValue, x.MarkMask}
	}),
	reflect.TypeFor[ledger.FirewallRule](): by(func(x *ledger.FirewallRule) ledger.FirewallID { return x.FirewallID }),
	reflect.TypeFor[ledger.MSSClamp]():     by(func(x *ledger.MSSClamp) ledger.FirewallID { return x.FirewallID }),
	reflect.TypeFor[ledger.FlowReading](): by(func(x *ledger.FlowReading) any {
		return struct {
			a, b   netip.AddrPort
			opened time.Duration
		}{x.Ends[0].Addr, x.Ends[1].Addr, x.Opened}
	}),
	reflect.TypeFor[ledger.KeepaliveReading](): by(func(x *ledger.KeepaliveReading) any {
		return struct {
			src, dst netip.AddrPort
			dir      ledger.Direction
		}{x.Src, x.Dst, x.Direction}
	}),
	reflect.TypeFor[ledger.PeerReading](): by(func(x *ledger.PeerReading) [2]netip.Addr {
		return [2]netip.Addr{x.Local, x.Remote}
	}),
	reflect.TypeFor[ledger.Policy](): by(func(x *ledger.Policy) any {
		return struct {
			index uint32
			dir   string
			sub   bool
		}{x.Index, x.Dir, x.Sub}
	}),
	reflect.TypeFor[ledger.Refusal](): by(func(x *ledger.Refusal) ledger.Refusal {
		id := *x
		id.Packets, id.Largest, id.Mark = 0, 0, 0
		return id
	}),
	reflect.TypeFor[ledger.PMTUEventInput](): by(func(x *ledger.PMTUEventInput) ledger.PMTUKey { return x.Key }),
	reflect.TypeFor[ledger.RouteInput]():     by(func(x *ledger.RouteInput) [2]netip.Addr { return [2]netip.Addr{x.Src, x.Dst} }),
	reflect.TypeFor[ledger.Link]():           by(func(x *ledger.Link) int { return x.Index }),
	reflect.TypeFor[ledger.CPU]():            by(func(x *ledger.CPU) int { return x.ID }),
	reflect.TypeFor[ledger.IKESA]():          by(func(x *ledger.IKESA) ledger.IKESPI { return x.InitiatorSPI }),
	reflect.TypeFor[ledger.IKEExchange](): by(func(x *ledger.IKEExchange) any {
		return struct {
			spi       ledger.IKESPI
			id        uint32
			at        int64
			requester ledger.End
		}{x.InitiatorSPI, x.MessageID, x.At.UnixNano(), x.Requester}
	}),
}

// by makes an identity of a function that gives a comparable key.
func by[T any, K comparable](key func(*T) K) *identity {
	of := func(v reflect.Value) K { return key(v.Addr().Interface().(*T)) }
	return &identity{
		of:   func(v reflect.Value) any { return of(v) },
		same: func(a, b reflect.Value) bool { return of(a) == of(b) },
	}
}
