// SPDX-License-Identifier: Apache-2.0

package xfrm

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// The numbers and layouts below are include/uapi/linux/xfrm.h on 64-bit machines. The kernel promises
// that structures keep their size; attributes are only ever appended.

// Message types (XFRM_MSG_*).
const (
	msgNewSA       = 0x10
	msgDelSA       = 0x11
	msgGetSA       = 0x12
	msgNewPolicy   = 0x13
	msgDelPolicy   = 0x14
	msgGetPolicy   = 0x15
	msgExpire      = 0x18
	msgUpdPolicy   = 0x19
	msgUpdSA       = 0x1a
	msgPolExpire   = 0x1b
	msgFlushSA     = 0x1c
	msgFlushPolicy = 0x1d
	msgNewSADInfo  = 0x22
	msgGetSADInfo  = 0x23
	msgMapping     = 0x26
	msgGetDefault  = 0x28
)

// Multicast groups (enum xfrm_nlgroups). AEVENTS is left out on purpose, see the package comment.
const (
	groupExpire  = 2
	groupSA      = 3
	groupPolicy  = 4
	groupMapping = 8
)

// Attributes (enum xfrm_attr_type_t).
const (
	attrAlgAuth           = 1
	attrAlgCrypt          = 2
	attrAlgComp           = 3
	attrEncap             = 4
	attrTmpl              = 5
	attrSA                = 6
	attrPolicy            = 7
	attrLtimeVal          = 9
	attrReplayVal         = 10
	attrLastUsed          = 15
	attrPolicyType        = 16
	attrAlgAEAD           = 18
	attrAlgAuthTrunc      = 20
	attrMark              = 21
	attrReplayESNVal      = 23
	attrSAExtraFlags      = 24
	attrOffloadDev        = 28
	attrIfID              = 31
	attrMTimerThresh      = 32
	attrSADir             = 33
	attrNATKeepalive      = 34
	attrSAPCPU            = 35
	attrIPTFSDropTime     = 36
	attrIPTFSReorderWin   = 37
	attrIPTFSDontFrag     = 38
	attrIPTFSInitDelay    = 39
	attrIPTFSMaxQueueSize = 40
	attrIPTFSPacketSize   = 41
)

// Sizes of the structures, and where their parts begin.
const (
	sizeSelector   = 56
	sizeLifetime   = 64  // struct xfrm_lifetime_cfg
	sizeCurrent    = 32  // struct xfrm_lifetime_cur
	sizeSAInfo     = 224 // struct xfrm_usersa_info
	sizeSAID       = 24  // struct xfrm_usersa_id
	sizeExpire     = 232 // struct xfrm_user_expire
	sizePolicyInfo = 168 // struct xfrm_userpolicy_info
	sizePolicyID   = 64  // struct xfrm_userpolicy_id
	sizePolExpire  = 176 // struct xfrm_user_polexpire
	sizePolDefault = 3   // struct xfrm_userpolicy_default
	sizeTmpl       = 64  // struct xfrm_user_tmpl
	sizeMapping    = 64  // struct xfrm_user_mapping
	sizeReplay     = 12  // struct xfrm_replay_state
	sizeReplayESN  = 24  // struct xfrm_replay_state_esn without its bitmap
	sizeAlgName    = 64
	sizeAlgo       = 68 // struct xfrm_algo without its key
	sizeAlgoLong   = 72 // struct xfrm_algo_auth and xfrm_algo_aead without their keys

	offSAID       = 56
	offSASrc      = 80
	offSALifetime = 96
	offSACurrent  = 160
	offSAStats    = 192
)

// Address families and protocols of the messages.
const (
	familyIPv4  = 2
	familyIPv6  = 10
	protoESP    = 50
	protoAH     = 51
	protoIPComp = 108
	protoAny    = 255 // IPSEC_PROTO_ANY: the three above
)

// flagESN is XFRM_STATE_ESN: 64-bit sequence numbers.
const flagESN = 128

// unlimited is XFRM_INF, the kernel's way to say that a lifetime has no limit.
const unlimited = ^uint64(0)

// ErrMalformed marks a message that does not have the kernel's layout. It says nothing about the
// message's content, which may hold keys.
var ErrMalformed = errors.New("message does not have the kernel's layout")

func u16(b []byte) uint16  { return binary.NativeEndian.Uint16(b) }
func u32(b []byte) uint32  { return binary.NativeEndian.Uint32(b) }
func u64(b []byte) uint64  { return binary.NativeEndian.Uint64(b) }
func be16(b []byte) uint16 { return binary.BigEndian.Uint16(b) }
func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

// address reads an xfrm_address_t. A family that is neither IPv4 nor IPv6 gives the zero Addr.
func address(b []byte, family uint16) netip.Addr {
	switch family {
	case familyIPv4:
		return netip.AddrFrom4([4]byte(b[:4]))
	case familyIPv6:
		return netip.AddrFrom16([16]byte(b[:16]))
	}
	return netip.Addr{}
}
