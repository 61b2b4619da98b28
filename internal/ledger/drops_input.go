// SPDX-License-Identifier: Apache-2.0

package ledger

import "net/netip"

// HostDrop is packets that the kernel freed as dropped without moving an xfrm counter, all of them
// alike. The source is the kfree_skb tracepoint (bpf/drop.bpf.c); packets that xfrm's own counters
// explain are in StackSA and never here.
type HostDrop struct {
	DropID
	Packets uint64 // absolute; a packet merged from several (GSO) counts as those
}

// DropID tells one kind of drop from another. It is comparable.
type DropID struct {
	Stage    DropStage
	Key      SAKey      // SPI 0: it belongs to no SA
	Src      netip.Addr // sender in the outer header, or of the SA
	SrcPort  uint16     // of UDP on an IPsec port, else 0
	DstPort  uint16
	ReqID    uint32 // of the SA in the packet's sec_path, else 0
	IfID     uint32
	Function string // kernel function that freed it, without offset; "" where symbols are not readable
	Module   string // its module, "" for the kernel itself
	Reason   string // enum skb_drop_reason without its prefix; "" on kernels that give none
	Hook     string // netfilter hook by the packet's state: prerouting, input, forward, output, postrouting
	Ifindex  int    // device that the packet was at
}

// DropStage says where on its way a packet was.
type DropStage string

// The stages. Which of the first and the third an ESP packet is in is only sure once its SA is known.
const (
	BeforeXfrm DropStage = "before_xfrm" // received, still encrypted
	AfterDecap DropStage = "after_decap" // decrypted
	AtEgress   DropStage = "egress"      // encapsulated, on its way out
	IKEPacket  DropStage = "ike"         // IKE, either way
	Keepalive  DropStage = "keepalive"   // NAT keepalive, either way (RFC 3948 section 2.3)
)
