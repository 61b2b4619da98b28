// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"net/netip"
	"time"
)

// Selector is the traffic that a policy or an SA is for (struct xfrm_selector).
type Selector struct {
	Src, Dst         netip.Prefix // the zero Prefix: any address of either family
	Proto            uint8        // 0: any
	SrcPort, DstPort uint16       // of ICMP the type and the code
	SrcMask, DstMask uint16       // 0: any port
	Ifindex          int          // 0: any interface
}

// Policy is one entry of the SPD (struct xfrm_userpolicy_info and its attributes).
type Policy struct {
	Dir       string // in, out, fwd; "socket in", "socket out" for a single socket's own
	Sub       bool   // of the sub policy database, which is asked after the main one
	Action    string // allow, block
	Priority  uint32 // lower is asked first
	Index     uint32
	Selector  Selector
	Templates []Template
	IfID      uint32
	MarkValue uint32
	MarkMask  uint32
	Flags     []string
	Offload   int    // ifindex of a device that applies it, 0: none
	Packets   uint64 // the kernel keeps both, and never counts
	Bytes     uint64
	Added     time.Time
	Used      time.Time // zero: never
}

// Template names the SA that a policy demands (struct xfrm_user_tmpl).
type Template struct {
	Src, Dst netip.Addr // zero address in transport mode: as in the packet
	SPI      SPI        // 0: any
	Proto    Proto
	ReqID    uint32 // 0: any
	Mode     string
	Optional bool
}

// PolicyDefault is what happens to packets that no policy is for (XFRM_MSG_GETDEFAULT): accept or block.
type PolicyDefault struct {
	In  string `json:"in"`
	Fwd string `json:"fwd"`
	Out string `json:"out"`
}

// Site says where in the stack a policy refused a packet (enum site_kind of bpf/lib/stack_maps.h).
type Site string

// The places.
const (
	SiteInput     Site = "input"     // in xfrm_input()
	SiteDeliver   Site = "deliver"   // on the way to a socket of this host
	SiteForward   Site = "forward"   // on the way through this host
	SiteOutput    Site = "output"    // in xfrm_output()
	SiteLookup    Site = "lookup"    // another look-up with a packet at hand
	SiteInterface Site = "interface" // on the way into an xfrm interface or VTI
	SiteUnknown   Site = "unknown"   // the kernel's symbols are not readable
)

// Refusal is packets of one flow that a policy, or the want of one, refused.
type Refusal struct {
	Cause     Cause
	Place     Site
	SA        SAKey // that decrypted them; SPI 0: they had come in plaintext, or were to be sent
	ReqID     uint32
	IfID      uint32
	Elsewhere bool // that SA is of another network namespace
	Src, Dst  netip.Addr
	Proto     uint8
	SrcPort   uint16 // the higher one of two is 0, unless it is below 1024; of ICMP type and code
	DstPort   uint16
	Ifindex   int
	Mark      uint32 // of the last packet
	Packets   uint64
	Largest   uint64 // bytes of the largest one
}
