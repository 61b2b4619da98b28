// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"errors"
	"fmt"
)

// Mode of the SAs (RFC 4301 section 4.1).
type Mode string

// The two modes that the lab builds.
const (
	TunnelMode    Mode = "tunnel"
	TransportMode Mode = "transport"
)

// Port is the UDP port that transport-mode policies protect. Tunnel-mode policies protect the inner
// networks whole.
const Port = 9000

// MaxReplayWindow is the largest window that the kernel takes (XFRMA_REPLAY_ESN_MAX).
const MaxReplayWindow = 4096

// Options describe a tunnel. The zero value is an IPv4 tunnel of one SA pair with a window of 32.
type Options struct {
	Name         string   // of the namespaces: Name-a, Name-b, Name-path; empty means unique names
	Family       int      // 4 or 6, of both the inner and the outer packets; 0 means 4
	Mode         Mode     // empty means tunnel
	ESN          bool     // extended sequence numbers (RFC 4303 section 2.2.1)
	ReplayWindow uint32   // of every SA; 0 means 32 unless NoReplay is set
	NoReplay     bool     // replay window 0: the kernel checks and tracks nothing
	CBC          bool     // AES-CBC with HMAC-SHA-256 cut to 128 bits (RFC 4868) in place of AES-GCM
	UDP          bool     // ESP in UDP, port 4500 (RFC 3948)
	EncapSocket  bool     // a socket for ESP in UDP at both ends, also where the SAs want plain ESP
	OutsidePortA uint16   // UDP: the port that gateway B knows A by, where a NAT stands before A; 0: its own
	Pairs        int      // SA pairs; 0 means 1
	Windows      []uint32 // replay windows of the first pairs, where they differ from ReplayWindow
	HardPackets  uint64   // packet limit of the SAs at the receiving end, 0 none
	LastSeq      uint32   // number that each sender last used; the next packet has the one after it
	Hosts        bool     // a host behind each gateway, Name-ha and Name-hb, that has the inner addresses
	NoSAs        bool     // neither SAs nor policies: an IKE daemon brings its own
	Router       bool     // the path is a router with the kernel's own stack, not a wire for an injector
}

// normalize fills in what was left out and refuses what the kernel would refuse with less to say.
func (o Options) normalize() (Options, error) {
	if o.Family == 0 {
		o.Family = 4
	}
	if o.Mode == "" {
		o.Mode = TunnelMode
	}
	if o.Pairs == 0 {
		o.Pairs = 1
	}
	if o.ReplayWindow == 0 && !o.NoReplay {
		o.ReplayWindow = 32
	}
	return o, o.check()
}

func (o Options) check() error {
	switch {
	case o.Family != 4 && o.Family != 6:
		return fmt.Errorf("family %d is neither 4 nor 6", o.Family)
	case o.Mode != TunnelMode && o.Mode != TransportMode:
		return fmt.Errorf("mode %q is neither %s nor %s", o.Mode, TunnelMode, TransportMode)
	case o.Pairs < 1 || o.Pairs > 200:
		return fmt.Errorf("%d SA pairs: want 1 to 200", o.Pairs)
	case o.Mode == TransportMode && o.Pairs > 1:
		return errors.New("transport mode has one address pair, so one SA pair")
	case o.Hosts && o.Mode != TunnelMode:
		return errors.New("hosts behind the gateways need tunnel mode")
	case o.NoReplay && o.ReplayWindow != 0:
		return errors.New("a replay window and none at once")
	case o.NoReplay && o.ESN:
		return errors.New("ESN needs a replay window (xfrm_init_replay refuses it)")
	case len(o.Windows) > o.Pairs || len(o.Windows) > 0 && o.NoReplay:
		return fmt.Errorf("%d windows for %d SA pairs", len(o.Windows), o.Pairs)
	}
	for _, w := range append([]uint32{o.ReplayWindow}, o.Windows...) {
		if w > MaxReplayWindow {
			return fmt.Errorf("replay window %d is above the kernel's %d", w, MaxReplayWindow)
		}
	}
	return nil
}

// window is the replay window of a pair's SAs.
func (o Options) window(pair int) uint32 {
	if pair < len(o.Windows) {
		return o.Windows[pair]
	}
	return o.ReplayWindow
}
