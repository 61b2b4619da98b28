// SPDX-License-Identifier: Apache-2.0

package xfrm

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/mdlayher/netlink"
)

// The encoder of the tests writes the kernel's structures field by field, as the C header has them,
// with the padding that a C compiler for a 64-bit machine inserts. It shares no offset with the decoder.

type cAddr [16]byte

type cSelector struct {
	Daddr, Saddr           cAddr
	Dport, DportMask       [2]byte // network order
	Sport, SportMask       [2]byte
	Family                 uint16
	PrefixlenD, PrefixlenS uint8
	Proto                  uint8
	_                      [3]byte
	Ifindex                int32
	User                   uint32
}

type cID struct {
	Daddr cAddr
	SPI   [4]byte // network order
	Proto uint8
	_     [3]byte
}

type cLifetime struct {
	SoftByte, HardByte, SoftPacket, HardPacket, SoftAdd, HardAdd, SoftUse, HardUse uint64
}

type cCurrent struct{ Bytes, Packets, AddTime, UseTime uint64 }

type cStats struct{ ReplayWindow, Replay, IntegrityFailed uint32 }

type cSAInfo struct {
	Sel          cSelector
	ID           cID
	Saddr        cAddr
	Lft          cLifetime
	Cur          cCurrent
	Stats        cStats
	Seq, ReqID   uint32
	Family       uint16
	Mode         uint8
	ReplayWindow uint8
	Flags        uint8
	_            [7]byte
}

type cSAID struct {
	Daddr  cAddr
	SPI    [4]byte
	Family uint16
	Proto  uint8
	_      uint8
}

type cPolicyInfo struct {
	Sel                       cSelector
	Lft                       cLifetime
	Cur                       cCurrent
	Priority, Index           uint32
	Dir, Action, Flags, Share uint8
	_                         [4]byte
}

type cTmpl struct {
	ID                     cID
	Family                 uint16
	_                      [2]byte
	Saddr                  cAddr
	ReqID                  uint32
	Mode, Share, Optional  uint8
	_                      uint8
	Aalgos, Ealgos, Calgos uint32
}

type cEncap struct {
	Type         uint16
	Sport, Dport [2]byte
	_            [2]byte
	OA           cAddr
}

type cMapping struct {
	ID                 cSAID
	ReqID              uint32
	OldSaddr, NewSaddr cAddr
	OldSport, NewSport [2]byte
}

type cReplayESN struct{ BmpLen, Oseq, Seq, OseqHi, SeqHi, ReplayWindow uint32 }

type cReplay struct{ Oseq, Seq, Bitmap uint32 }

// plain encodes any of the structures, or several parts one after the other.
func plain(t testing.TB, parts ...any) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, p := range parts {
		if err := binary.Write(&b, binary.NativeEndian, p); err != nil {
			t.Fatalf("encode %T: %v", p, err)
		}
	}
	return b.Bytes()
}

func attr(t testing.TB, typ uint16, parts ...any) []byte {
	t.Helper()
	b, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: typ, Data: plain(t, parts...)}})
	if err != nil {
		t.Fatalf("encode attribute %d: %v", typ, err)
	}
	return b
}

func algName(name string) (b [64]byte) {
	copy(b[:], name)
	return b
}

func cAddress(s string) (out cAddr) {
	copy(out[:], netip.MustParseAddr(s).AsSlice())
	return out
}

func net32(v uint32) (b [4]byte) { binary.BigEndian.PutUint32(b[:], v); return b }
func net16(v uint16) (b [2]byte) { binary.BigEndian.PutUint16(b[:], v); return b }

// saInfo is a tunnel-mode ESP SA from 192.0.2.1 to 192.0.2.2, or the same in IPv6, without limits.
func saInfo(family uint16, spi uint32) cSAInfo {
	src, dst := "192.0.2.1", "192.0.2.2"
	if family == familyIPv6 {
		src, dst = "2001:db8::1", "2001:db8::2"
	}
	inf := unlimited
	return cSAInfo{
		Sel:    cSelector{Family: family},
		ID:     cID{Daddr: cAddress(dst), SPI: net32(spi), Proto: protoESP},
		Saddr:  cAddress(src),
		Lft:    cLifetime{SoftByte: inf, HardByte: inf, SoftPacket: inf, HardPacket: inf},
		Cur:    cCurrent{Bytes: 8400, Packets: 100, AddTime: 1_700_000_000, UseTime: 1_700_000_005},
		Stats:  cStats{ReplayWindow: 3, Replay: 5, IntegrityFailed: 7},
		ReqID:  42,
		Family: family,
		Mode:   1,
	}
}

// The keys that the tests plant. They are recognisable in every form that a leak could take.
var (
	plantedKey  = []byte("KEYkeyKEYkeyKEYkeyKEYkey-SALT-!!")
	plantedKey2 = []byte("\xde\xad\xbe\xef\xca\xfe\xba\xbe\xde\xad\xbe\xef\xca\xfe\xba\xbe")
)

func aeadAttr(t testing.TB) []byte {
	return attr(t, attrAlgAEAD, algName("rfc4106(gcm(aes))"), uint32(8*len(plantedKey)), uint32(128), plantedKey)
}

// cbcAttrs is what the kernel sends for AES-CBC with HMAC: the authentication twice.
func cbcAttrs(t testing.TB) []byte {
	return bytes.Join([][]byte{
		attr(t, attrAlgAuth, algName("hmac(sha256)"), uint32(8*len(plantedKey)), plantedKey),
		attr(t, attrAlgAuthTrunc, algName("hmac(sha256)"), uint32(8*len(plantedKey)), uint32(128), plantedKey),
		attr(t, attrAlgCrypt, algName("cbc(aes)"), uint32(8*len(plantedKey2)), plantedKey2),
	}, nil)
}

// oldSA is the message of a kernel like 5.10: legacy replay state, nothing that came later.
func oldSA(t testing.TB) []byte {
	info := saInfo(familyIPv4, 0xc0ffee01)
	info.ReplayWindow = 32
	info.Flags = 1 | 4
	info.Lft = cLifetime{SoftByte: 1 << 40, HardByte: 2 << 40, SoftPacket: 1000, HardPacket: 2000, SoftAdd: 3000, HardAdd: 3600, SoftUse: 50, HardUse: 60}
	return bytes.Join([][]byte{
		plain(t, info),
		cbcAttrs(t),
		attr(t, attrEncap, cEncap{Type: 2, Sport: net16(4500), Dport: net16(4501)}),
		attr(t, attrMark, uint32(0x10), uint32(0xff)),
		attr(t, attrReplayVal, cReplay{Oseq: 9, Seq: 107, Bitmap: 0xffffffff}),
		attr(t, attrLastUsed, uint64(1_700_000_077)),
	}, nil)
}

// newSA is the message of a kernel like 7.x: ESN with a wide window, direction, and an attribute from
// the future.
func newSA(t testing.TB) []byte {
	info := saInfo(familyIPv6, 0xc0ffee02)
	info.Flags = flagESN
	info.Mode = 5
	return bytes.Join([][]byte{
		plain(t, info),
		aeadAttr(t),
		attr(t, attrReplayESNVal, cReplayESN{BmpLen: 4, Oseq: 1, Seq: 2, OseqHi: 3, SeqHi: 4, ReplayWindow: 128}, make([]uint32, 4)),
		attr(t, attrIfID, uint32(77)),
		attr(t, attrOffloadDev, int32(3), uint8(2|4), [3]byte{}),
		attr(t, attrSAExtraFlags, uint32(1|2)),
		attr(t, attrMTimerThresh, uint32(20)),
		attr(t, attrSADir, uint8(1)),
		attr(t, attrNATKeepalive, uint32(30)),
		attr(t, attrSAPCPU, uint32(6)),
		attr(t, attrIPTFSDropTime, uint32(1_000_000)),
		attr(t, attrIPTFSReorderWin, uint16(8)),
		attr(t, attrIPTFSDontFrag),
		attr(t, attrIPTFSInitDelay, uint32(250)),
		attr(t, attrIPTFSMaxQueueSize, uint32(1<<20)),
		attr(t, attrIPTFSPacketSize, uint32(1400)),
		attr(t, 99, plantedKey2), // not on the allow-list
	}, nil)
}

// deletedSA is XFRM_MSG_DELSA of an SA that a NEWSA message describes.
func deletedSA(t testing.TB, sa []byte) []byte {
	var info cSAInfo
	if err := binary.Read(bytes.NewReader(sa), binary.NativeEndian, &info); err != nil {
		t.Fatal(err)
	}
	return bytes.Join([][]byte{
		plain(t, cSAID{Daddr: info.ID.Daddr, SPI: info.ID.SPI, Family: info.Family, Proto: info.ID.Proto}),
		attr(t, attrSA, sa[:binary.Size(info)]),
		sa[binary.Size(info):],
	}, nil)
}

func expiredSA(t testing.TB, info cSAInfo, hard uint8) []byte {
	return plain(t, info, hard, [7]byte{}, attr(t, attrMark, uint32(0), uint32(0)), attr(t, attrIfID, uint32(0)))
}

func outPolicy(t testing.TB, tmpl cTmpl, dir uint8) []byte {
	return bytes.Join([][]byte{
		plain(t, cPolicyInfo{
			Sel: cSelector{
				Family: familyIPv4, Daddr: cAddress("10.2.0.0"), Saddr: cAddress("10.1.0.0"), PrefixlenD: 16, PrefixlenS: 24,
				Proto: 6, Dport: net16(443), DportMask: net16(0xffff), Ifindex: 9,
			},
			Cur: cCurrent{Bytes: 1, Packets: 2, AddTime: 1_700_000_000, UseTime: 1_700_000_009}, Priority: 3, Index: 65, Dir: dir, Flags: 2,
		}),
		attr(t, attrTmpl, tmpl, tmpl),
		attr(t, attrPolicyType, uint8(1), uint16(0), uint16(0), uint8(0)),
		attr(t, attrMark, uint32(1), uint32(0xff)),
		attr(t, attrIfID, uint32(8)),
	}, nil)
}
