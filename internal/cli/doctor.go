// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"xfrmscope/internal/host"
	"xfrmscope/internal/kernel"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/netns"
	"xfrmscope/internal/probe"
	"xfrmscope/internal/verdict"
)

func newDoctor() *cobra.Command {
	var o struct {
		live liveOptions
		json bool
	}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "What this kernel lets xfrmscope see, what is missing, and what that costs",
		Long: `Tries what the kernel offers and plans what 'xfrmscope diagnose' would attach, without attaching it, and
reviews the configuration of SAs, policies and host: weak algorithms, policies that are never asked and so on.

Exit status: 0 all can be observed, 1 something is missing, 2 wrong usage, 3 nothing can be observed.`,
		Example: `  xfrmscope doctor
  xfrmscope doctor --netns gw --interface eth0 --mode tc`,
		Args: cobra.NoArgs,
		RunE: work(func(cmd *cobra.Command, _ []string) error {
			opts, err := o.live.probeOptions()
			if err != nil {
				return err
			}
			d, err := examine(cmd.Context(), opts)
			if err != nil {
				return err
			}
			if o.json {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetEscapeHTML(false)
				enc.SetIndent("", "  ")
				err = enc.Encode(d)
			} else {
				err = d.writeText(cmd.OutOrStdout())
			}
			switch {
			case err != nil:
				return fmt.Errorf("write report: %w", err)
			case d.Verdict == verdictNothing:
				return errors.New("nothing can be observed: see the first lines of the report for what to do")
			case d.Verdict == verdictPart:
				return errFindings
			}
			return nil
		}),
	}
	o.live.addPlanFlags(cmd.Flags())
	cmd.Flags().BoolVar(&o.json, "json", false, "report as JSON (schema xfrmscope-doctor/1)")
	return cmd
}

// The verdicts of a diagnosis, in JSON and in the exit code.
const (
	verdictAll     = "all"     // every hook has a way to be attached
	verdictPart    = "part"    // some have not
	verdictNothing = "nothing" // none can be attached
)

// doctorSchema names the form of a diagnosis in JSON: docs/doctor.schema.json.
const doctorSchema = "xfrmscope-doctor/1"

// diagnosis is what doctor found; it marshals to the object of `doctor --json`.
type diagnosis struct {
	Schema     string    `json:"schema"`
	Kernel     string    `json:"kernel"`
	Netns      string    `json:"netns,omitempty"`
	Verdict    string    `json:"verdict"`
	Privileges string    `json:"privileges,omitempty"` // what is lacking and what to do; empty: nothing
	Features   []feature `json:"features"`

	Confined []kernel.Confinement `json:"confined"` // what else may forbid it

	Hooks      []doctorHook `json:"hooks"`
	SADatabase ledger.Hook  `json:"sa_database"`
	SAs        *int         `json:"sas"`  // null: not readable
	Host       []hostCheck  `json:"host"` // settings of the namespace and of its devices
	Notes      []string     `json:"notes,omitempty"`

	Review []verdict.Finding `json:"review"` // flaws of the configuration; null: SAs and policies are not readable
}

type feature struct {
	Name  string `json:"name"`
	State string `json:"state"` // yes, no, unknown
	Why   string `json:"why,omitempty"`
	Costs string `json:"costs,omitempty"`
}

type doctorHook struct {
	Name  string   `json:"name"`
	Try   []string `json:"try"` // ways to attach it, best first; empty: it cannot be
	Why   []string `json:"why,omitempty"`
	Costs string   `json:"costs,omitempty"`
}

// examine asks and plans. Only a wrong request (an interface or namespace that is not there) is an
// error; what is missing is a result.
func examine(ctx context.Context, opts probe.Options) (d diagnosis, err error) {
	d = diagnosis{
		Schema: doctorSchema, Kernel: kernelRelease(), Netns: opts.Netns, Verdict: verdictNothing,
		Features: []feature{}, Hooks: []doctorHook{}, Host: []hostCheck{}, Confined: []kernel.Confinement{},
	}
	d.Confined = append(d.Confined, kernel.Confinements("")...)
	if err := kernel.CheckCapabilities(); err != nil {
		d.Privileges = err.Error()
		return d, nil
	}
	k, err := probe.AskKernel()
	if err != nil {
		d.Privileges = err.Error()
		return d, nil
	}
	d.Features = features(k)
	ns, err := netns.Open(opts.Netns)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, ns.Close()) }()
	sadb, err := openSADatabase(ctx, ns)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, sadb.Close()) }()
	d.SADatabase = sadb.hooks()[0]
	if sadb.missing == nil {
		n := len(sadb.sas)
		d.SAs = &n
	}
	opts.SAs = sadb.sas
	plan, err := probe.Preview(k, opts)
	if err != nil {
		return d, err
	}
	machine := host.Open(ns)
	defer func() { err = errors.Join(err, machine.Close()) }()
	settings, err := machine.Read()
	if err != nil {
		return d, err
	}
	if d.SAs != nil && *d.SAs == 0 {
		settings.Notes = append(settings.Notes, "no SA in this network namespace: if the gateway's tunnels are in another, name it with --netns (in a container: the host's network)")
	}
	d.Host, d.Notes = examineHost(settings, plan), slices.Concat(plan.Notes, settings.Notes)
	if d.Review, err = review(ctx, sadb, machine, settings); err != nil {
		return d, err
	}
	d.judge(plan)
	return d, nil
}

func (d *diagnosis) judge(plan probe.Plan) {
	possible, missing := 0, !d.SADatabase.Attached
	for _, h := range append(plan.Wire, plan.Stack...) {
		out := doctorHook{Name: h.Name, Try: []string{}, Why: h.Why, Costs: h.Limits}
		for _, c := range h.Try {
			out.Try = append(out.Try, string(c.Way))
		}
		if len(h.Try) == 0 {
			out.Costs = h.Costs
			missing = true
		} else {
			possible++
		}
		d.Hooks = append(d.Hooks, out)
	}
	switch {
	case possible == 0:
		d.Verdict = verdictNothing
	case missing:
		d.Verdict = verdictPart
	default:
		d.Verdict = verdictAll
	}
}

func features(k *probe.Kernel) []feature {
	f := k.Features
	out := []feature{
		answered("types of the running kernel (BTF)", f.BTF, "no hook in the stack: drops are not attributed"),
		answered("programs may read the kernel's memory", f.ReadMemory, "no hook in the stack: drops are not attributed"),
		answered("ring buffer (5.8)", f.RingBuffer, "no programs at all"),
		answered("lock-free counting (5.12)", f.Atomics, "SAs are counted under a lock, which costs more when CPUs share one"),
		answered("tcx (6.6)", f.TCX, "TC is attached as clsact filters"),
		answered("programs run on a chosen CPU (5.10)", f.RunOnCPU, "the first drop on each CPU after the start may lack its cause"),
		answered("captures with time stamps (5.15)", f.XDPMetadata, "where the kernel also refuses its driver program, 'read' does not work"),
	}
	for _, x := range []struct {
		name, costs string
		err         error
	}{
		{"kernel symbols", "drops are not filtered by function: a busy firewall costs more", k.SymbolsErr},
		{"counter and drop reason names", "drops are shown by number", k.TablesErr},
	} {
		if x.err == nil {
			out = append(out, feature{Name: x.name, State: kernel.Yes.String()})
		} else {
			out = append(out, feature{Name: x.name, State: kernel.No.String(), Why: x.err.Error(), Costs: x.costs})
		}
	}
	return out
}

func answered(name string, a kernel.Answer, costs string) feature {
	f := feature{Name: name, State: a.State.String()}
	if !a.OK() {
		f.Costs = costs
		if a.Err != nil {
			f.Why = a.Err.Error()
		}
	}
	return f
}

func (d *diagnosis) writeText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "kernel %s", d.Kernel)
	if d.Netns != "" {
		fmt.Fprintf(&b, ", network namespace %s", d.Netns)
	}
	b.WriteString("\n\nPRIVILEGES\n")
	if d.Privileges != "" {
		fmt.Fprintf(&b, "  missing   %s\n", d.Privileges)
	} else {
		b.WriteString("  ok\n")
	}
	for _, c := range d.Confined {
		fmt.Fprintf(&b, "  confined  %s\n", c.Name)
		writeDetail(&b, "means", c.Does)
		writeDetail(&b, "remedy", c.Do)
	}
	if len(d.Features) > 0 {
		b.WriteString("\nKERNEL\n")
	}
	for _, f := range d.Features {
		fmt.Fprintf(&b, "  %-8s  %s\n", f.State, f.Name)
		writeDetail(&b, "because", f.Why)
		writeDetail(&b, "costs", f.Costs)
	}
	if d.SADatabase.Name != "" {
		b.WriteString("\nSA DATABASE\n")
		if d.SAs != nil {
			fmt.Fprintf(&b, "  %-8s  %d SAs\n", "yes", *d.SAs)
		} else {
			fmt.Fprintf(&b, "  %-8s\n", "no")
			writeDetail(&b, "because", d.SADatabase.Why)
			writeDetail(&b, "costs", d.SADatabase.Costs)
		}
	}
	if len(d.Hooks) > 0 {
		b.WriteString("\nHOOKS\n")
	}
	told := ""
	for _, h := range d.Hooks {
		how := strings.Join(h.Try, ", else ")
		if how == "" {
			how = "MISSING"
		}
		fmt.Fprintf(&b, "  %-34s  %s\n", h.Name, how)
		why := strings.Join(h.Why, "; ")
		if why != "" && why == told {
			writeDetail(&b, "because", "the same")
		} else {
			writeDetail(&b, "because", why)
		}
		told = why
		writeDetail(&b, "costs", h.Costs)
	}
	d.writeHost(&b)
	d.writeReview(&b)
	for _, n := range d.Notes {
		fmt.Fprintf(&b, "\nnote: %s\n", n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeDetail(b *strings.Builder, what, text string) {
	if text != "" {
		fmt.Fprintf(b, "            %-8s %s\n", what, text)
	}
}
