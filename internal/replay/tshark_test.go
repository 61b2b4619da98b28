// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkBesideTshark runs `xfrmscope read` and tshark in turns over captures of one and of four million packets of
// eight SAs, each as a process of its own. tshark is asked for packets and bytes of each SA, which is the
// nearest that it has to what `read` tells. XFRMSCOPE_BIN names the binary, bin/xfrmscope else.
func BenchmarkBesideTshark(b *testing.B) {
	needBPF(b)
	for _, n := range []int{1_000_000, 4_000_000} {
		b.Run(fmt.Sprintf("packets=%d", n), func(b *testing.B) { besideTshark(b, n) })
	}
}

func besideTshark(b *testing.B, n int) {
	program := os.Getenv("XFRMSCOPE_BIN")
	if program == "" {
		program = filepath.Join("..", "..", "bin", "xfrmscope")
	}
	path := writeBig(b, n)
	columns := []string{"io,stat,0"}
	for i := range 8 {
		columns = append(columns, fmt.Sprintf("esp.spi==0x%x", 0x1000+i))
	}
	commands := map[string][]string{
		"read":                  {program, "read", path},
		"tshark":                {"tshark", "-n", "-r", path, "-q", "-z", strings.Join(columns, ",")},
		"tshark, packets alone": {"tshark", "-n", "-r", path, "-q", "-z", "io,stat,0"},
	}
	wall, cpu, memory := map[string]time.Duration{}, map[string]time.Duration{}, map[string]int64{}
	for b.Loop() {
		for name, args := range commands {
			cmd := exec.Command(args[0], args[1:]...)
			began := time.Now()
			if out, err := cmd.CombinedOutput(); err != nil && cmd.ProcessState.ExitCode() != 1 { // 1: findings
				b.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
			}
			wall[name] += time.Since(began)
			cpu[name] += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			memory[name] = max(memory[name], cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
		}
	}
	for name := range commands {
		unit := strings.ReplaceAll(strings.ReplaceAll(name, ",", ""), " ", "-")
		b.ReportMetric(float64(b.N*n)/wall[name].Seconds(), unit+"-packets/s")
		b.ReportMetric(float64(cpu[name].Nanoseconds())/float64(b.N*n), unit+"-CPU-ns/packet")
		b.ReportMetric(float64(memory[name])/1024, unit+"-MiB")
	}
	b.ReportMetric(float64(wall["tshark"])/float64(wall["read"]), "times-as-fast")
	b.ReportMetric(float64(cpu["tshark"])/float64(cpu["read"]), "times-less-CPU")
	b.ReportMetric(0, "ns/op")
}
