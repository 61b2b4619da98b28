// SPDX-License-Identifier: Apache-2.0

package ike_test

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"xfrmscope/internal/ike"
	"xfrmscope/internal/ledger"
	"xfrmscope/internal/pcap"
)

// TestCaptures holds the tracker to what tshark shows of captures that others made.
func TestCaptures(t *testing.T) {
	dir := os.Getenv("XFRMSCOPE_CAPTURES")
	if dir == "" {
		t.Skip("no folder of captures is named by XFRMSCOPE_CAPTURES")
	}
	for _, tc := range []struct {
		file             string
		messages, copies int64
		want             []string
	}{
		{"arkime__IKEv2.pcap", 35, 0, []string{
			"CREATE_CHILD_SA v2 by local: 1 = 1 answered 0 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 1/27.004",
			"CREATE_CHILD_SA v2 by remote: 2 = 2 answered 0 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 2/47.9",
			"IKE_AUTH v2 by local: 1 = 1 answered 0 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 1/58.063",
			"IKE_AUTH v2 by remote: 1 = 1 answered 0 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 1/13.515",
			// The first request is repeated 40 s later; in between the other end has set up an IKE SA of its own.
			"IKE_SA_INIT v2 by local: 1 = 1 answered 0 unseen 0 unanswered 0 open; 1 repeats 0 reanswers; rtt 0/0",
			"IKE_SA_INIT v2 by remote: 1 = 1 answered 0 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 1/20.759",
			"INFORMATIONAL v2 by local: 10 = 10 answered 0 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 10/0.761",
		}},
		// The peers allow two requests at a time; the first IKE_SA_INIT is refused with a cookie.
		{"tcpdump__ikev2four.pcap", 21, 0, []string{
			"CREATE_CHILD_SA v2 by local: 7 = 7 answered 0 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 7/9.44",
			"IKE_AUTH v2 by local: 1 = 1 answered 0 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 1/5.983",
			"IKE_SA_INIT v2 by local: 2 = 2 answered 0 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 2/6.371",
			"INFORMATIONAL v2 by local: 1 = 0 answered 0 unseen 0 unanswered 1 open; 0 repeats 0 reanswers; rtt 0/0",
		}},
		// Every packet twice, and most messages in fragments.
		{"suricata-verify__detect-bypass-udp_input.pcap", 66, 58, []string{
			"IKE_AUTH v2 by local: 1 = 1 answered 0 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 1/2.886",
			"IKE_INTERMEDIATE v2 by local: 3 = 3 answered 0 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 3/0.92",
		}},
		// All at time 0; both ends repeat the end of Quick Mode.
		{"tcpdump__isakmp4500.pcap", 15, 0, []string{
			"Informational v1 by remote: 1 = 1 answered 0 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 0/0",
			"Main Mode v1 by local: 1 = 1 answered 0 unseen 0 unanswered 0 open; 0 repeats 0 reanswers; rtt 1/0",
			"Quick Mode v1 by local: 1 = 1 answered 0 unseen 0 unanswered 0 open; 2 repeats 3 reanswers; rtt 1/0",
		}},
	} {
		t.Run(tc.file, func(t *testing.T) {
			r := follow(t, filepath.Join(dir, tc.file))
			if r.Messages != tc.messages || r.Copies != tc.copies {
				t.Errorf("%d messages, %d copies; want %d and %d", r.Messages, r.Copies, tc.messages, tc.copies)
			}
			if diff := cmp.Diff(tc.want, sum(r)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func follow(t *testing.T, path string) *ledger.IKE {
	t.Helper()
	r, err := pcap.Open(path, pcap.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	tr := ike.NewTracker()
	for p := (pcap.Packet{}); ; {
		if err := r.Next(&p); errors.Is(err, io.EOF) {
			return tr.Report(p.Time().Add(time.Second))
		} else if err != nil {
			t.Fatal(err)
		}
		pkt := gopacket.NewPacket(p.Data, layers.LayerTypeEthernet, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
		udp, ok := pkt.Layer(layers.LayerTypeUDP).(*layers.UDP)
		if !ok || pkt.NetworkLayer() == nil {
			continue
		}
		body := udp.Payload
		if udp.SrcPort == 4500 || udp.DstPort == 4500 {
			if len(body) < 4 || body[0]|body[1]|body[2]|body[3] != 0 {
				continue
			}
			body = body[4:]
		} else if udp.SrcPort != 500 && udp.DstPort != 500 {
			continue
		}
		h, err := ike.ParseHeader(body)
		if err != nil || h.InitiatorSPI == 0 {
			continue
		}
		flow := pkt.NetworkLayer().NetworkFlow()
		src, _ := netip.AddrFromSlice(flow.Src().Raw())
		dst, _ := netip.AddrFromSlice(flow.Dst().Raw())
		tr.Observe(ike.Message{
			Header: h, At: p.Time(), Direction: ledger.Unknown,
			Src: netip.AddrPortFrom(src, uint16(udp.SrcPort)), Dst: netip.AddrPortFrom(dst, uint16(udp.DstPort)),
		})
	}
}
