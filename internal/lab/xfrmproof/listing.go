// SPDX-License-Identifier: Apache-2.0

// Package xfrmproof holds the decoder of internal/xfrm against `ip -d -s xfrm` on real SAs. Its tests
// need a kernel with ESP and are meant for the lab's virtual machines.
package xfrmproof

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"xfrmscope/internal/ledger"
)

// listed is what `ip -d -s xfrm state list nokeys` prints of one SA, in the words of the decoder.
type listed struct {
	Src, Dst, SPI, Mode      string
	ReqID, Window            uint64
	Flags                    []string
	Mark, IfID               string
	Algorithms               []string
	Encap                    string
	Seq, OSeq                uint64
	Packets, Bytes           uint64
	Late, Duplicate, Failed  uint64
	SoftPackets, HardPackets string
	HardBytes, HardAdd       string
}

var (
	rxHead     = regexp.MustCompile(`(?m)^src (\S+) dst (\S+)\s*$`)
	rxProto    = regexp.MustCompile(`proto esp spi 0x([0-9a-f]+)\(\d+\) reqid (\d+)\([^)]*\) mode (\w+)`)
	rxWindow   = regexp.MustCompile(`replay-window (\d+) seq 0x`)
	rxFlag     = regexp.MustCompile(`(?m)seq 0x[0-9a-f]+ flag\s+(.*?)(?:extra_flag|\(0x)`)
	rxExtra    = regexp.MustCompile(`extra_flag (.*?)\(0x`)
	rxMark     = regexp.MustCompile(`mark (0x[0-9a-f]+|0)/(0x[0-9a-f]+)`)
	rxIfID     = regexp.MustCompile(`if_id (0x[0-9a-f]+)`)
	rxAEAD     = regexp.MustCompile(`(?m)^\s+aead (\S+) .*?(\d+)\s*$`)
	rxAuth     = regexp.MustCompile(`(?m)^\s+auth-trunc (\S+) .*?(\d+)\s*$`)
	rxEnc      = regexp.MustCompile(`(?m)^\s+enc (\S+) `)
	rxEncap    = regexp.MustCompile(`encap type espinudp sport (\d+) dport (\d+)`)
	rxESN      = regexp.MustCompile(`seq-hi 0x([0-9a-f]+), seq 0x([0-9a-f]+), oseq-hi 0x([0-9a-f]+), oseq 0x([0-9a-f]+)`)
	rxReplay   = regexp.MustCompile(`anti-replay context: seq 0x([0-9a-f]+), oseq 0x([0-9a-f]+)`)
	rxESNWin   = regexp.MustCompile(`replay_window (\d+), bitmap-length`)
	rxLifetime = regexp.MustCompile(`lifetime current:\s+(\d+)\(bytes\), (\d+)\(packets\)`)
	rxStats    = regexp.MustCompile(`stats:\s+replay-window (\d+) replay (\d+) failed (\d+)`)
	rxBytes    = regexp.MustCompile(`limit: soft \S+?\(bytes\), hard (\S+?)\(bytes\)`)
	rxPackets  = regexp.MustCompile(`limit: soft (\S+?)\(packets\), hard (\S+?)\(packets\)`)
	rxAdd      = regexp.MustCompile(`expire add: soft \d+\(sec\), hard (\d+)\(sec\)`)
)

// parse reads the listing of ip.
func parse(out string) (all []listed, err error) {
	heads := rxHead.FindAllStringSubmatchIndex(out, -1)
	for i, h := range heads {
		end := len(out)
		if i+1 < len(heads) {
			end = heads[i+1][0]
		}
		l := listed{Src: out[h[2]:h[3]], Dst: out[h[4]:h[5]]}
		if err := l.read(out[h[0]:end]); err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b listed) int { return strings.Compare(a.SPI, b.SPI) })
	return all, nil
}

func (l *listed) read(text string) error {
	need := func(rx *regexp.Regexp) []string {
		m := rx.FindStringSubmatch(text)
		if m == nil {
			m = make([]string, rx.NumSubexp()+1)
		}
		return m
	}
	number := func(s string, base int) uint64 {
		n, _ := strconv.ParseUint(s, base, 64) // what is not printed is 0
		return n
	}
	proto := need(rxProto)
	if proto[0] == "" {
		return fmt.Errorf("read listing: no SPI in %q", text)
	}
	l.SPI, l.ReqID, l.Mode = "0x"+proto[1], number(proto[2], 10), proto[3]
	l.Window = number(need(rxWindow)[1], 10)
	l.Flags = append(strings.Fields(need(rxFlag)[1]), strings.Fields(need(rxExtra)[1])...)
	if m := need(rxMark); m[0] != "" {
		l.Mark = fmt.Sprintf("%#x/%s", number(strings.TrimPrefix(m[1], "0x"), 16), m[2])
	}
	l.IfID = need(rxIfID)[1]
	for kind, rx := range map[string]*regexp.Regexp{"aead": rxAEAD, "authentication": rxAuth} {
		if m := need(rx); m[0] != "" {
			l.Algorithms = append(l.Algorithms, fmt.Sprintf("%s %s icv %s", kind, m[1], m[2]))
		}
	}
	if m := need(rxEnc); m[0] != "" {
		l.Algorithms = append(l.Algorithms, fmt.Sprintf("encryption %s icv 0", m[1]))
	}
	l.Encap = "none"
	if m := need(rxEncap); m[0] != "" {
		l.Encap = fmt.Sprintf("udp %s %s", m[1], m[2])
	}
	if m := need(rxESN); m[0] != "" {
		l.Seq, l.OSeq = number(m[1], 16)<<32|number(m[2], 16), number(m[3], 16)<<32|number(m[4], 16)
		l.Window = number(need(rxESNWin)[1], 10)
	} else {
		m := need(rxReplay)
		l.Seq, l.OSeq = number(m[1], 16), number(m[2], 16)
	}
	life, stats := need(rxLifetime), need(rxStats)
	l.Bytes, l.Packets = number(life[1], 10), number(life[2], 10)
	l.Late, l.Duplicate, l.Failed = number(stats[1], 10), number(stats[2], 10), number(stats[3], 10)
	l.HardBytes, l.HardAdd = need(rxBytes)[1], need(rxAdd)[1]
	p := need(rxPackets)
	l.SoftPackets, l.HardPackets = p[1], p[2]
	return nil
}

// decoded says the same of a decoded SA.
func decoded(e ledger.SADEntry) listed {
	limit := func(n uint64) string {
		if n == 0 {
			return "(INF)"
		}
		return fmt.Sprint(n)
	}
	l := listed{
		Src: e.Src.String(), Dst: e.Key.Dst.String(), SPI: e.Key.SPI.String(), Mode: e.Mode,
		ReqID: uint64(e.ReqID), Window: uint64(e.ReplayWindow), Encap: string(e.Encap),
		Seq: e.Seq, OSeq: e.OSeq, Packets: e.Packets, Bytes: e.Bytes,
		Late: e.ReplayLate, Duplicate: e.ReplayDuplicate, Failed: e.IntegrityFailed,
		SoftPackets: limit(e.Lifetimes.SoftPackets), HardPackets: limit(e.Lifetimes.HardPackets),
		HardBytes: limit(e.Lifetimes.HardBytes), HardAdd: fmt.Sprint(int(e.Lifetimes.HardAdd.Seconds())),
	}
	l.Flags = e.Flags
	if e.MarkMask != 0 {
		l.Mark = fmt.Sprintf("%#x/%#x", e.MarkValue, e.MarkMask)
	}
	if e.IfID != 0 {
		l.IfID = fmt.Sprintf("%#x", e.IfID)
	}
	for _, a := range e.Algorithms {
		l.Algorithms = append(l.Algorithms, fmt.Sprintf("%s %s icv %d", a.Kind, a.Name, a.ICVBits))
	}
	if e.Encap == ledger.EncapUDP {
		l.Encap = fmt.Sprintf("udp %d %d", e.EncapSrcPort, e.EncapDstPort)
	}
	return l
}
