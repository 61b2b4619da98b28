// SPDX-License-Identifier: Apache-2.0

package vici

import (
	"net/netip"
	"strconv"

	"github.com/strongswan/govici/vici"

	"xfrmscope/internal/ledger"
)

// decode reads the IKE SAs of a message, as list-sas and the events about SAs carry them: sections
// named by the connection, with a section child-sas each. What it does not know it passes over.
func decode(m *vici.Message) []ledger.SAName {
	var out []ledger.SAName
	for _, connection := range m.Keys() {
		section, ok := m.Get(connection).(*vici.Message)
		if !ok {
			continue
		}
		out = append(out, decodeIKE(connection, section)...)
	}
	return out
}

func decodeIKE(connection string, m *vici.Message) []ledger.SAName {
	spi, err := strconv.ParseUint(text(m, "initiator-spi"), 16, 64)
	if err != nil {
		spi = 0
	}
	ends := ends{address(m, "local-host"), address(m, "remote-host")}
	out := []ledger.SAName{{Connection: connection, IKE: ledger.IKESPI(spi)}}
	children, ok := m.Get("child-sas").(*vici.Message)
	if !ok {
		return out
	}
	for _, key := range children.Keys() {
		child, ok := children.Get(key).(*vici.Message)
		if !ok {
			continue
		}
		// The event child-rekey holds both SAs in sections of their own.
		whole := []*vici.Message{child}
		for _, part := range []string{"old", "new"} {
			if c, ok := child.Get(part).(*vici.Message); ok {
				whole = append(whole, c)
			}
		}
		for _, c := range whole {
			out = append(out, ends.child(connection, ledger.IKESPI(spi), c)...)
		}
	}
	return out
}

// ends are the outer addresses of an IKE SA and its children.
type ends struct{ local, remote netip.Addr }

// child names both directions of a child SA.
func (e ends) child(connection string, ike ledger.IKESPI, m *vici.Message) []ledger.SAName {
	name := text(m, "name")
	if name == "" || !e.local.IsValid() || !e.remote.IsValid() {
		return nil
	}
	reqid, err := strconv.ParseUint(text(m, "reqid"), 10, 32)
	if err != nil {
		reqid = 0
	}
	proto := ledger.ESP
	if text(m, "protocol") == "AH" {
		proto = ledger.AH
	}
	var out []ledger.SAName
	for _, side := range []struct {
		key string
		dst netip.Addr
		dir ledger.Direction
	}{{"spi-in", e.local, ledger.In}, {"spi-out", e.remote, ledger.Out}} {
		spi, err := strconv.ParseUint(text(m, side.key), 16, 32)
		if err != nil || spi == 0 {
			continue
		}
		out = append(out, ledger.SAName{
			Key:   ledger.SAKey{Dst: side.dst, SPI: ledger.SPI(spi), Proto: proto, Direction: side.dir},
			ReqID: uint32(reqid), Connection: connection, Child: name, IKE: ike,
		})
	}
	return out
}

func text(m *vici.Message, key string) string {
	s, _ := m.Get(key).(string)
	return s
}

func address(m *vici.Message, key string) netip.Addr {
	a, err := netip.ParseAddr(text(m, key))
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}
