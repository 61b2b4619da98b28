// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"net/netip"
	"time"
)

// flowList is the report's account of TCP inside the tunnels.
type flowList struct {
	Seen      int64            `json:"seen"`
	Forgotten int64            `json:"forgotten"`
	Packets   map[string]int64 `json:"packets"`
	List      []tcpFlow        `json:"list"`
}

type tcpFlow struct {
	Ends        [2]flowEnd `json:"ends"`
	Connections int64      `json:"connections"`
	Closed      bool       `json:"closed"`
}

type flowEnd struct {
	Addr  netip.Addr `json:"addr"`
	Port  uint16     `json:"port"`
	Local bool       `json:"local"`
	SA    *struct {
		SPI       string `json:"spi"`
		Direction string `json:"direction"`
	} `json:"sa"`
	Packets         int64 `json:"packets"`
	Payload         int64 `json:"payload_bytes"`
	Segments        int64 `json:"segments"`
	Retransmissions int64 `json:"retransmissions"`
	Reordered       int64 `json:"reordered"`
	Gaps            int64 `json:"gaps"`
	Skipped         int64 `json:"skipped"`
	Limited         int64 `json:"window_limited"`
	Probes          int64 `json:"window_probes"`
	EdgeChecked     int64 `json:"edge_checked"`
	EdgeHit         int64 `json:"edge_hit"`
	Window          *struct {
		Max   int64 `json:"max"`
		Scale *int  `json:"scale"`
	} `json:"window"`
	Zero struct {
		Episodes  int64 `json:"episodes"`
		TotalUS   int64 `json:"total_us"`
		LongestUS int64 `json:"longest_us"`
		OpenUS    int64 `json:"open_us"`
		Newest    []struct {
			Start    time.Time `json:"start"`
			LastedUS int64     `json:"lasted_us"`
		} `json:"newest"`
	} `json:"zero_window"`
	RTT  *roundTrip `json:"rtt"`
	Back *roundTrip `json:"rtt_back"`
}

type roundTrip struct {
	Samples       int64 `json:"samples"`
	MinUS         int64 `json:"min_us"`
	MeanUS        int64 `json:"mean_us"`
	SmoothedMaxUS int64 `json:"smoothed_max_us"`
}
