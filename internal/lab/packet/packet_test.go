// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// Frames are read back by a decoder that we did not write.
func TestDecodes(t *testing.T) {
	for _, tt := range []struct {
		name  string
		build *Builder
		want  []string
	}{
		{"esp over ipv4", Eth().IPv4("192.0.2.1", "192.0.2.2").ESP(1, 2, 32), []string{"Ethernet", "IPv4", "IPSecESP"}},
		{"options", Eth().IPv4Options("192.0.2.1", "192.0.2.2", 3).ESP(1, 2, 32), []string{"Ethernet", "IPv4", "IPSecESP"}},
		{"two tags", Eth().QinQ(5).VLAN(6).IPv6("2001:db8::1", "2001:db8::2").ESP(1, 2, 32), []string{"Ethernet", "Dot1Q", "Dot1Q", "IPv6", "IPSecESP"}},
		{"extensions", Eth().IPv6("2001:db8::1", "2001:db8::2").HopByHop(1).DstOpts(0).ESP(1, 2, 32), []string{"Ethernet", "IPv6", "IPv6HopByHop", "IPv6Destination", "IPSecESP"}},
		{"ah", Eth().IPv4("192.0.2.1", "192.0.2.2").AH(7, 1, 12).ESP(1, 2, 32), []string{"Ethernet", "IPv4", "IPSecAH", "IPSecESP"}},
		{"udp", Eth().IPv4("192.0.2.1", "192.0.2.2").UDP(1111, 9).Bytes(make([]byte, 9)), []string{"Ethernet", "IPv4", "UDP", "Payload"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := gopacket.NewPacket(tt.build.Frame().Data, layers.LayerTypeEthernet, gopacket.Default)
			if e := p.ErrorLayer(); e != nil {
				t.Fatal(e.Error())
			}
			var got []string
			for _, l := range p.Layers() {
				got = append(got, l.LayerType().String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error("layers (-want +got):\n" + diff)
			}
			if ip, ok := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4); ok {
				sent := ip.Checksum
				buf := gopacket.NewSerializeBuffer()
				if err := ip.SerializeTo(buf, gopacket.SerializeOptions{ComputeChecksums: true}); err != nil {
					t.Fatal(err)
				}
				if ip.Checksum != sent {
					t.Errorf("IPv4 checksum %#x, want %#x", sent, ip.Checksum)
				}
			}
		})
	}
}

func TestEndAtKeepsLengthsTrue(t *testing.T) {
	f := Eth().IPv4("192.0.2.1", "192.0.2.2").UDP(4500, 4500).ESP(1, 2, 32).Frame().EndAt(ESP, 3)
	p := gopacket.NewPacket(f.Data, layers.LayerTypeEthernet, gopacket.Default)
	ip, udp := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4), p.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if ip.Length != 31 || udp.Length != 11 || len(f.Data) != 45 {
		t.Errorf("IP %d, UDP %d, frame %d bytes; want 31, 11, 45", ip.Length, udp.Length, len(f.Data))
	}
}
