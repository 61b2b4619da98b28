// SPDX-License-Identifier: Apache-2.0

package check

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/expr-lang/expr/types"

	"xfrmscope/internal/ledger"
	"xfrmscope/internal/report"
)

// Names that are no keys of the report.
const (
	nameSA       = "sa"
	nameInbound  = "inbound"
	nameOutbound = "outbound"
	nameLoss     = "loss"
	nameDuration = "duration"
	nameStat     = "xfrm_stat"
	nameByFunc   = "drops_by_function"
)

// bins lists the bins of both directions, each once, in the order of the ledger.
var bins = sync.OnceValue(func() []string {
	var out []string
	for _, side := range []reflect.Type{reflect.TypeFor[ledger.Inbound](), reflect.TypeFor[ledger.Outbound]()} {
		for _, f := range fieldsOf(side) {
			if !slices.Contains(out, f.name) {
				out = append(out, f.name)
			}
		}
	}
	return slices.Clip(out)
})

// causes lists every cause that a packet can be dropped for, sorted.
var causes = sync.OnceValue(func() []string {
	all := append(ledger.Causes(), ledger.OutDefaultBlock, ledger.OutInterface, ledger.OtherCause)
	out := make([]string, 0, len(all))
	for _, c := range all {
		out = append(out, string(c))
	}
	slices.Sort(out)
	return slices.Clip(out)
})

// statNames lists the counters of /proc/net/xfrm_stat, sorted.
func statNames() []string {
	names := map[string]bool{}
	for _, c := range ledger.Causes() {
		names[c.Counter()] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// environment is what the type checker is told: every name that an expression may use.
func environment() types.Map {
	env := typeOf(reflect.TypeFor[report.Document]()).(types.Map)
	sa := typeOf(reflect.TypeFor[ledger.SA]()).(types.Map)
	byCause, stat := types.Map{}, types.Map{}
	for _, c := range causes() {
		byCause[c] = types.Int
	}
	for _, name := range statNames() {
		stat[name] = types.Int
	}
	sa["xfrm"] = byCause
	for _, m := range []types.Map{sa, env} {
		for _, name := range slices.Concat(bins(), causes(), []string{nameLoss}) {
			if m[name] == nil {
				m[name] = types.Int
			}
		}
	}
	env["sas"], env[nameInbound], env[nameOutbound] = types.Array(sa), types.Array(sa), types.Array(sa)
	env[nameSA] = sa
	env[nameDuration] = types.Float64
	env[nameStat] = stat
	env[nameByFunc] = types.Map{types.Extra: types.Int}
	return env
}

// values is what the names mean in one report.
func values(d report.Document, functions func(string) error) (object, error) {
	v, err := valueOf(reflect.ValueOf(d))
	if err != nil {
		return nil, err
	}
	env := v.(object)
	sas, _ := env["sas"].(list)
	if sas == nil {
		sas = list{}
	}
	in, out := list{}, list{}
	for i, x := range sas {
		sa := x.(object)
		fillSA(&d, &d.SAs[i], sa)
		if d.SAs[i].Ledger.Out != nil {
			out = append(out, sa)
		} else {
			in = append(in, sa)
		}
	}
	env["sas"], env[nameInbound], env[nameOutbound] = sas, in, out
	env[nameDuration] = d.Source.DurationS
	env[nameStat] = env["kernel"].(object)["xfrm_stat"]
	fillTotals(&d, env, sas)
	env[nameByFunc] = functionsOf(&d, env, functions)
	return env, nil
}

// fillSA adds the short forms to an SA and settles what its bins and causes mean.
func fillSA(d *report.Document, sa *ledger.SA, v object) {
	own := v["ledger"].(object)
	if passesThrough(sa) {
		for name, n := range own {
			if n == nil && (d.Drops != nil || name != "lost_in_host" && name != "lost_in_host_egress") {
				own[name] = alien{}
			}
		}
	}
	v["xfrm"] = causesOf(sa)
	for _, name := range bins() {
		if _, key := v[name]; !key {
			v[name] = own[name]
		}
	}
	byCause, _ := v["xfrm"].(object)
	for _, name := range causes() {
		if _, key := v[name]; !key {
			v[name] = byCause[name]
		}
	}
	v[nameLoss] = lossOf(d, sa, v)
}

// passesThrough says whether the packets are known to be no business of this host's xfrm: there was
// no such SA, and no hook saw xfrm refuse them.
func passesThrough(sa *ledger.SA) bool {
	if sa.State != ledger.Absent {
		return false
	}
	switch sa.Direction {
	case ledger.In:
		return sa.XfrmFrom == ledger.FromStack && sa.Ledger.In != nil && sa.Ledger.In.XfrmDropped == nil
	case ledger.Out, ledger.Unknown:
		return true
	}
	return false
}

// causesOf has every cause: what the hooks did not see is 0, and what nobody could see is not known.
func causesOf(sa *ledger.SA) any {
	if sa.Xfrm == nil && sa.XfrmFrom == "" && !passesThrough(sa) {
		return nil
	}
	out := object{}
	for _, name := range causes() {
		c := ledger.Cause(name)
		n, seen := sa.Xfrm[c]
		switch {
		case seen:
			out[name] = int(n)
		case sa.XfrmFrom == ledger.FromStack:
			out[name] = 0
		case sa.XfrmFrom == ledger.FromSAD && (c == ledger.ReplayDuplicate || c == ledger.ReplayLate || c == ledger.IntegrityFailed):
			out[name] = 0
		case passesThrough(sa):
			out[name] = alien{}
		default:
			out[name] = nil
		}
	}
	return out
}

// lossParts are the bins that hold lost packets.
var lossParts = []string{"lost_on_path", "lost_in_host", "xfrm_dropped", "policy_dropped", "inner_dropped",
	"xfrm_out_dropped", "encrypt_failed", "lost_in_host_egress"}

// lossOf adds up an SA's lost packets. A copy that the replay check refuses is none: what it is a copy of
// has arrived. Of an SA that is not this host's the bins end at the wire, so what this host dropped of it is
// taken from the list of drops.
func lossOf(d *report.Document, sa *ledger.SA, v object) any {
	sum, ok := 0, false
	for _, name := range lossParts {
		switch n := v[name].(type) {
		case nil:
			return nil
		case int:
			sum, ok = sum+n, true
		}
	}
	if !ok {
		return alien{}
	}
	if passesThrough(sa) {
		for _, drop := range d.Drops {
			if drop.Lost && drop.SPI == sa.SPI && drop.Dst == sa.Dst && drop.Proto == sa.Proto && drop.Direction == sa.Direction {
				sum += int(drop.Packets)
			}
		}
	}
	if b := sa.Ledger.In; b != nil && b.XfrmDropped != nil {
		sum -= int(sa.Xfrm[ledger.ReplayDuplicate])
	}
	return sum
}

// fillTotals adds the sums over all SAs, under the names that they have in one.
func fillTotals(d *report.Document, env object, sas list) {
	fill := func(name string, v any) {
		if _, key := env[name]; !key {
			env[name] = v
		}
	}
	for _, name := range bins() {
		sum := total(sas, name, name == "unattributed")
		if d.Packets == nil && len(sas) == 0 {
			sum = nil // no SA, and nobody who would have seen one
		}
		fill(name, sum)
	}
	lone := lonesome(d)
	for _, name := range causes() {
		sum := total(sas, name, false)
		if n, ok := sum.(int); ok {
			switch {
			case lone != nil:
				sum = n + lone[name]
			case d.UnknownSPIs == nil || name != string(ledger.NoState):
				sum = nil // nobody saw what belongs to no SA
			}
		}
		fill(name, sum)
	}
	loss := total(sas, nameLoss, false)
	if d.Packets == nil && len(sas) == 0 {
		loss = nil
	}
	if n, ok := loss.(int); ok {
		if lone == nil {
			loss = nil
		} else {
			for name, m := range lone {
				if name != string(ledger.ReplayDuplicate) {
					n += m
				}
			}
			loss = n
		}
	}
	fill(nameLoss, loss)
}

// total is a figure's sum over the SAs that it applies to; of unattributed the sum of amounts, so that
// two SAs do not cancel out. One SA in which it was not observed leaves the sum unknown.
func total(sas list, name string, amounts bool) any {
	sum := 0
	for _, x := range sas {
		switch n := x.(object)[name].(type) {
		case nil:
			return nil
		case int:
			if amounts {
				n = max(n, -n)
			}
			sum += n
		}
	}
	return sum
}

// lonesome are xfrm's drops that no SA of the report has; nil: not observed.
func lonesome(d *report.Document) map[string]int {
	if d.Kernel.WithoutSA == nil {
		return nil
	}
	out := map[string]int{}
	for c, n := range d.Kernel.WithoutSA {
		out[string(c)] += int(n)
	}
	for _, s := range d.UnknownSPIs {
		row := slices.ContainsFunc(d.SAs, func(sa ledger.SA) bool {
			return sa.SPI == s.SPI && sa.Dst == s.Dst && sa.Proto == s.Proto && sa.Direction == s.Direction
		})
		if !row {
			out[string(ledger.NoState)] += int(s.Packets)
		}
	}
	return out
}

// functionOf says in which function of the kernel xfrm decides to drop for a cause: the one that moves
// the counter, or the step that it is part of.
func functionOf(cause string) string {
	c := ledger.Cause(cause)
	switch c {
	case ledger.FwdHdrError:
		return "__xfrm_route_forward"
	case ledger.InIptfsError:
		return "iptfs_input"
	case ledger.InnerModeError:
		return "xfrm_input"
	case ledger.OutProtoError, ledger.OutModeError, ledger.OutSeqError, ledger.OutExpired, ledger.OutInvalid,
		ledger.OutDirError, ledger.OutError:
		return "xfrm_output_one"
	case ledger.OutNoQueueSpace:
		return "iptfs_output_collect"
	case ledger.OtherCause:
		return ""
	}
	switch {
	case c.Outbound():
		return "xfrm_lookup_with_ifid"
	case c.AfterDecap():
		return "__xfrm_policy_check"
	}
	return "xfrm_input"
}

// byFunction counts what was dropped by kernel function.
type byFunction struct {
	packets  map[string]int
	xfrm     map[string]bool    // functions whose drops the stack hooks see
	unseen   bool               // drops outside xfrm are not observed
	unnamed  int                // drops whose function is not known
	known    func(string) error // nil: nobody knows what this kernel has
	xfrmSeen bool
}

func functionsOf(d *report.Document, env object, known func(string) error) *byFunction {
	out := &byFunction{packets: map[string]int{}, xfrm: map[string]bool{}, unseen: d.Drops == nil, known: known}
	for _, drop := range d.Drops {
		name, _, _ := strings.Cut(drop.Function, "+")
		name, _, _ = strings.Cut(name, ".") // .isra.0 and the like are the compiler's
		if name == "" || strings.HasPrefix(name, "0x") {
			out.unnamed += int(drop.Packets)
			continue
		}
		out.packets[name] += int(drop.Packets)
	}
	out.xfrmSeen = d.Kernel.WithoutSA != nil
	for _, c := range causes() {
		function := functionOf(c)
		if function == "" {
			continue
		}
		out.xfrm[function] = true
		if n, ok := env[c].(int); ok {
			out.packets[function] += n
		}
	}
	return out
}

// get looks a function up; why says what the answer lacks.
func (b *byFunction) get(name string) (n any, why string) {
	count, seen := b.packets[name]
	switch {
	case b.unseen:
		return nil, "drops outside xfrm are not observed"
	case b.xfrm[name] && !b.xfrmSeen:
		return nil, "xfrm's drops are not observed"
	case seen && b.unnamed == 0:
		return count, ""
	case b.unnamed > 0:
		return nil, "some packets were dropped by functions whose names are not readable (kernel.kptr_restrict)"
	case !b.xfrm[name] && b.known != nil:
		if err := b.known(name); err != nil {
			return nil, err.Error()
		}
	}
	return count, ""
}
