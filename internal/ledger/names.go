// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"fmt"
	"strconv"
)

// SPI is a Security Parameters Index (RFC 4301 section 4.1), host byte order, written 0x%08x.
type SPI uint32

// String writes the SPI as operators know it.
func (s SPI) String() string { return fmt.Sprintf("0x%08x", uint32(s)) }

// MarshalText makes JSON show the SPI as a string.
func (s SPI) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote, or any number that Go can read.
func (s *SPI) UnmarshalText(b []byte) error {
	n, err := strconv.ParseUint(string(b), 0, 32)
	if err != nil {
		return fmt.Errorf("read SPI %q: %w", b, err)
	}
	*s = SPI(n)
	return nil
}

// Direction of an SA as seen from this host.
type Direction string

// In and Out are the host's own directions; a capture file does not know.
const (
	In      Direction = "in"
	Out     Direction = "out"
	Unknown Direction = "unknown"
)

// Proto is the IPsec protocol of an SA.
type Proto string

// The protocols of RFC 4302, 4303 and 3173.
const (
	ESP    Proto = "esp"
	AH     Proto = "ah"
	IPComp Proto = "comp"
)

// Encap says whether ESP travels in UDP (RFC 3948).
type Encap string

// The encapsulations that the wire programs know.
const (
	EncapNone Encap = "none"
	EncapUDP  Encap = "udp"
)

// Cause is why xfrm dropped a packet: enum cause of bpf/lib/abi.h in lower case without prefix.
type Cause string
