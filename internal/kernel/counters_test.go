// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bufio"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// The enum as 7.3 has it, in its order, against the names that net/xfrm/xfrm_proc.c prints.
func TestCounterNames(t *testing.T) {
	suffixes := map[string]string{
		"INERROR": "XfrmInError", "INBUFFERERROR": "XfrmInBufferError", "INHDRERROR": "XfrmInHdrError",
		"INNOSTATES": "XfrmInNoStates", "INSTATEPROTOERROR": "XfrmInStateProtoError",
		"INSTATEMODEERROR": "XfrmInStateModeError", "INSTATESEQERROR": "XfrmInStateSeqError",
		"INSTATEEXPIRED": "XfrmInStateExpired", "INSTATEMISMATCH": "XfrmInStateMismatch",
		"INSTATEINVALID": "XfrmInStateInvalid", "INTMPLMISMATCH": "XfrmInTmplMismatch",
		"INNOPOLS": "XfrmInNoPols", "INPOLBLOCK": "XfrmInPolBlock", "INPOLERROR": "XfrmInPolError",
		"OUTERROR": "XfrmOutError", "OUTBUNDLEGENERROR": "XfrmOutBundleGenError",
		"OUTBUNDLECHECKERROR": "XfrmOutBundleCheckError", "OUTNOSTATES": "XfrmOutNoStates",
		"OUTSTATEPROTOERROR": "XfrmOutStateProtoError", "OUTSTATEMODEERROR": "XfrmOutStateModeError",
		"OUTSTATESEQERROR": "XfrmOutStateSeqError", "OUTSTATEEXPIRED": "XfrmOutStateExpired",
		"OUTPOLBLOCK": "XfrmOutPolBlock", "OUTPOLDEAD": "XfrmOutPolDead", "OUTPOLERROR": "XfrmOutPolError",
		"FWDHDRERROR": "XfrmFwdHdrError", "OUTSTATEINVALID": "XfrmOutStateInvalid",
		"ACQUIREERROR": "XfrmAcquireError", "OUTSTATEDIRERROR": "XfrmOutStateDirError",
		"INSTATEDIRERROR": "XfrmInStateDirError", "INIPTFSERROR": "XfrmInIptfsError",
		"OUTNOQSPACE": "XfrmOutNoQueueSpace",
	}
	for suffix, want := range suffixes {
		if got, known := counterName(suffix); got != want || !known {
			t.Errorf("LINUX_MIB_XFRM%s is %s (known: %v), want %s", suffix, got, known, want)
		}
	}
	if len(suffixes) != len(counterNames) {
		t.Errorf("%d names tested of %d", len(suffixes), len(counterNames))
	}
	if got, known := counterName("INNOVELTY"); known || got != "LINUX_MIB_XFRMINNOVELTY" {
		t.Errorf("a counter to come is %s (known: %v)", got, known)
	}
}

// Numbers are this kernel's, whatever order it prints the counters in.
func TestAddCounters(t *testing.T) {
	var tables Tables
	tables.addCounters(&btf.Enum{Values: []btf.EnumValue{
		{Name: "LINUX_MIB_XFRMNUM", Value: 0},
		{Name: "LINUX_MIB_XFRMOUTNOQSPACE", Value: 2},
		{Name: "LINUX_MIB_XFRMINERROR", Value: 1},
		{Name: "__LINUX_MIB_XFRMMAX", Value: 3},
	}})
	if tables.Slots != 3 || len(tables.Counters) != 2 {
		t.Fatalf("got %+v", tables)
	}
	if tables.CounterName(1) != "XfrmInError" || tables.CounterName(2) != "XfrmOutNoQueueSpace" || tables.CounterName(9) != "xfrm counter 9" {
		t.Errorf("names: %s, %s, %s", tables.CounterName(1), tables.CounterName(2), tables.CounterName(9))
	}
}

// Every counter that the running kernel prints must be in the table, and the other way round.
func TestRunningKernelsTables(t *testing.T) {
	tables, err := LoadTables(btf.NewCache())
	if err != nil {
		needRoot(t, err)
	}
	f, err := os.Open("/proc/net/xfrm_stat")
	if err != nil {
		needRoot(t, err)
	}
	defer f.Close()
	var printed, named []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		printed = append(printed, strings.Fields(lines.Text())[0])
	}
	for _, c := range tables.Counters {
		named = append(named, c.Name)
	}
	slices.Sort(printed)
	slices.Sort(named)
	if !slices.Equal(printed, named) {
		t.Errorf("the kernel prints %v\nits enum has     %v", printed, named)
	}
	if int(tables.Slots) != len(tables.Counters)+1 {
		t.Errorf("%d slots for %d counters", tables.Slots, len(tables.Counters))
	}
	if tables.Reasons != nil {
		number, ok := tables.ReasonNumber("XFRM_POLICY")
		if ok && tables.ReasonName(number) != "XFRM_POLICY" {
			t.Errorf("reason %d is %s", number, tables.ReasonName(number))
		}
	}
}
