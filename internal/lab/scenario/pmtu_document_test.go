// SPDX-License-Identifier: Apache-2.0

package scenario

// pmtuReport is what the tests read of the report about packets that did not fit.
type pmtuReport struct {
	Totals   map[string]int64 `json:"totals"`
	Events   []pmtuEvent      `json:"events"`
	Paths    []pmtuPath       `json:"paths"`
	Counters map[string]int64 `json:"counters"`
}

type pmtuEvent struct {
	Kind     string `json:"kind"`
	Src      string `json:"src"`
	Dst      string `json:"dst"`
	Protocol string `json:"protocol"`
	SPI      string `json:"spi"`
	MTU      int    `json:"mtu"`
	Packets  int64  `json:"packets"`
	Sent     *int64 `json:"sent"`
	Late     int64  `json:"late"`
	SizeMax  int    `json:"size_max"`
	Reporter string `json:"reporter"`
	SA       *struct {
		SPI string `json:"spi"`
	} `json:"sa"`
}

type pmtuPath struct {
	SPI      string `json:"spi"`
	LinkMTU  int    `json:"link_mtu"`
	RouteMTU int    `json:"route_mtu"`
	PathMTU  int    `json:"path_mtu"`
	ToldMTU  int    `json:"told_mtu"`
	InnerMTU int    `json:"inner_mtu"`
	MSS4     int    `json:"mss_ipv4"`
}
