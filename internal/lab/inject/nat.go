// SPDX-License-Identifier: Apache-2.0

package inject

import "encoding/binary"

// nat is a translator before gateway A, for ESP in UDP over IPv4: it has one binding.
type nat struct {
	port      uint16 // A's outside; 0: no translator
	forgotten bool   // nothing gets in until A has sent again
}

// Translate puts a NAT before gateway A, or gives it another binding from now on: A's packets come from
// this port, and what B sends to another one is dropped.
func (in *Injector) Translate(port uint16) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.nat = nat{port: port}
}

// Forget lets the NAT forget its binding.
func (in *Injector) Forget() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.nat.forgotten = true
}

// translate rewrites a packet's port; false: there is no binding for it. Over IPv4 the kernel sends
// ESP in UDP without a checksum (RFC 3948 section 2.1), and one that is there is mended.
func (n *nat) translate(d Direction, frame []byte, p packet) bool {
	if n.port == 0 || p.udp == 0 {
		return true
	}
	at, now := p.udp, n.port
	if d == BtoA {
		if n.forgotten || binary.BigEndian.Uint16(frame[p.udp+2:]) != n.port {
			return false
		}
		at, now = p.udp+2, encapPort
	} else {
		n.forgotten = false
	}
	old := binary.BigEndian.Uint16(frame[at:])
	binary.BigEndian.PutUint16(frame[at:], now)
	if binary.BigEndian.Uint16(frame[p.udp+6:]) != 0 {
		mend(frame[p.udp+6:], old, now)
	}
	return true
}

// SendKeepalive puts a NAT keepalive on the path (RFC 3948 section 2.3), over IPv4, from A's outside port.
func (in *Injector) SendKeepalive(c Crafted) {
	in.mu.Lock()
	defer in.mu.Unlock()
	c.UDP = true
	frame := c.frame()
	udp := ethLen + ipv4NoFlags
	frame = append(frame[:udp+udpLen], 0xff)
	head := frame[ethLen:udp]
	binary.BigEndian.PutUint16(head[2:], uint16(len(frame)-ethLen))
	head[10], head[11] = 0, 0
	binary.BigEndian.PutUint16(head[10:], ^fold(sum(head)))
	binary.BigEndian.PutUint16(frame[udp:], in.nat.port)
	binary.BigEndian.PutUint16(frame[udp+4:], udpLen+1)
	in.nat.forgotten = false
	in.send(AtoB, frame)
}
