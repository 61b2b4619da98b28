// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"net/netip"
	"strconv"
	"time"
)

// IKE is what the headers of IKE messages tell (RFC 7296 section 3.1, RFC 2408 section 3.1). Their
// content is encrypted and never looked at. It counts from the moment the events were first read.
type IKE struct {
	Messages  int64               `json:"messages"`     // taken into account
	Counted   map[Direction]int64 `json:"by_direction"` // the same, by where they were seen
	Lost      int64               `json:"lost"`         // withheld by the rate limit or lost for want of room in the ring
	Copies    int64               `json:"copies"`       // seen again at once: at a second interface, or fragments of one message
	Forgotten int64               `json:"forgotten"`    // peers and IKE SAs given up for want of room
	Peers     []IKEPeer           `json:"peers"`
	Gone      *IKEGone            `json:"gone,omitempty"` // nil: no peer was given up
	SAs       []IKESA             `json:"ike_sas"`
	Notable   []IKEExchange       `json:"notable"` // exchanges that set up or renew SAs, or needed repeats; oldest first
	Unlisted  int64               `json:"unlisted"`
}

// End is one of the two ends of an IKE SA.
type End string

// Local is this host. In a capture it is the end that was the first to send.
const (
	Local  End = "local"
	Remote End = "remote"
)

// IKEPeer is all that was seen between two addresses.
type IKEPeer struct {
	Local     netip.AddrPort `json:"local"` // port as last seen
	Remote    netip.AddrPort `json:"remote"`
	Transit   bool           `json:"transit,omitempty"` // passes through this host, which is neither end
	Sent      int64          `json:"sent"`              // messages of the local end
	Received  int64          `json:"received"`          // messages of the remote end
	First     time.Time      `json:"first"`
	Last      time.Time      `json:"last"`
	IKESAs    int64          `json:"ike_sas"`              // ever, the forgotten included
	InitBurst int64          `json:"init_burst,omitempty"` // most new IKE_SA_INIT, Main or Aggressive Mode within ten seconds
	Exchanges []IKEExchanges `json:"exchanges"`
}

// IKEGone is what the peers counted, all together, that were given up for want of room.
type IKEGone struct {
	Sent      int64          `json:"sent"`
	Received  int64          `json:"received"`
	Exchanges []IKEExchanges `json:"exchanges"`
}

// IKEExchanges sums up the exchanges of one type that one end asked for.
type IKEExchanges struct {
	Exchange       string `json:"exchange"` // IKE_SA_INIT, CREATE_CHILD_SA, …
	Version        int    `json:"version"`  // 1 or 2
	Requester      End    `json:"requester"`
	Count          int64  `json:"count"`
	Answered       int64  `json:"answered"`
	AnsweredUnseen int64  `json:"answered_unseen"` // the requester went on as if answered, but no answer was seen
	Unanswered     int64  `json:"unanswered"`
	Open           int64  `json:"open"`          // not answered yet, too young to judge
	Retransmitted  int64  `json:"retransmitted"` // exchanges whose request was repeated
	Repeats        int64  `json:"repeats"`       // requests sent again
	Reanswers      int64  `json:"reanswers"`     // responses sent again
	RTT            IKERTT `json:"rtt"`
}

// IKERTT is the time from a request to its response, at the place of observation: for requests of the
// local end the path and the peer's work, for those of the remote end this host's work alone. Exchanges
// with a repeated request are left out, since nothing tells which of the requests was answered.
type IKERTT struct {
	Samples int64   `json:"samples"`
	MinMS   float64 `json:"min_ms"`
	AvgMS   float64 `json:"avg_ms"`
	MaxMS   float64 `json:"max_ms"`
}

// IKESPI is the SPI of one end of an IKE SA, or its cookie in IKEv1.
type IKESPI uint64

// String writes it as IKE daemons do, 16 hexadecimal digits.
func (s IKESPI) String() string {
	const width = 16
	h := strconv.FormatUint(uint64(s), 16)
	for len(h) < width {
		h = "0" + h
	}
	return h
}

// MarshalText makes JSON show it as a string.
func (s IKESPI) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// IKESA is one IKE SA, known by the initiator's SPI.
type IKESA struct {
	InitiatorSPI IKESPI         `json:"initiator_spi"`
	ResponderSPI IKESPI         `json:"responder_spi"` // 0: not known yet
	Version      int            `json:"version"`
	Initiator    End            `json:"initiator"`
	Local        netip.AddrPort `json:"local"`
	Remote       netip.AddrPort `json:"remote"`
	Transit      bool           `json:"transit,omitempty"`
	First        time.Time      `json:"first"`
	Last         time.Time      `json:"last"`
	Exchanges    int64          `json:"exchanges"`
	Repeats      int64          `json:"repeats"`
	Unanswered   int64          `json:"unanswered"`
	Replaces     *IKESPI        `json:"replaces,omitempty"` // initiator's SPI of the IKE SA that it probably renews
	Connection   string         `json:"connection,omitempty"`
}

// IKEOutcome is what became of an exchange.
type IKEOutcome string

// The outcomes.
const (
	IKEAnswered       IKEOutcome = "answered"
	IKEAnsweredUnseen IKEOutcome = "answered-unseen"
	IKEUnanswered     IKEOutcome = "unanswered"
	IKEOpen           IKEOutcome = "open"
)

// IKEExchange is one exchange.
type IKEExchange struct {
	At           time.Time      `json:"at"` // first request
	Exchange     string         `json:"exchange"`
	Version      int            `json:"version"`
	MessageID    uint32         `json:"message_id"`
	InitiatorSPI IKESPI         `json:"initiator_spi"`
	Requester    End            `json:"requester"`
	Waiting      End            `json:"waiting,omitempty"` // the end whose last message has no answer
	Local        netip.AddrPort `json:"local"`
	Remote       netip.AddrPort `json:"remote"`
	Transit      bool           `json:"transit,omitempty"`
	Requests     int64          `json:"requests"` // sendings of the request, the first one included
	Responses    int64          `json:"responses"`
	LastRequest  time.Time      `json:"last_request"`
	DurationMS   float64        `json:"duration_ms"` // first request to first response; to the end of the observation without one
	Outcome      IKEOutcome     `json:"outcome"`
}
