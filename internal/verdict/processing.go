// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"

	"xfrmscope/internal/ledger"
)

// Kinds of findings about packets that xfrm could not process, for no fault of policy, path or number.
const (
	PacketMalformed    ID = "packet-malformed"
	ProcessingFailed   ID = "processing-failed"
	SAModeDisagreement ID = "sa-mode-disagreement"
)

// processingKinds are about single packets that xfrm could not make sense of, or had no means for.
func processingKinds() []Kind {
	return []Kind{
		{SAModeDisagreement, "What an SA carries does not fit its mode", saModeDisagreement},
		{ProcessingFailed, "This host could not process packets", processingFailed},
		{PacketMalformed, "Packets that are not built as they should be", packetMalformed},
	}
}

// packetMalformed is packets whose ESP header or trailer cannot be: a padding longer than the packet,
// no SPI to read (esp_remove_trailer, xfrm_parse_spi). Their integrity was not what was wrong.
func packetMalformed(r *ledger.Report) []Finding {
	why := map[ledger.Cause]string{
		ledger.ProtoError:  "after decryption their padding or trailer made no sense, they were dummies (RFC 4303 section 2.6), or the cipher refused them",
		ledger.InHdrError:  "no SPI and number could be read from them",
		ledger.PolHdrError: "after decryption the headers inside could not be read for the policy check",
	}
	var out []Finding
	for _, o := range occurrences(r, ledger.ProtoError, ledger.InHdrError, ledger.PolHdrError) {
		f := o.finding(PacketMalformed, Warning)
		f.Summary = fmt.Sprintf("%s were dropped, because %s%s.", packets(o.n), why[o.cause], o.named)
		f.Remedy = []Remedy{
			{For: forPath, Text: "Where integrity is checked, such packets come from the sender as they are: look at its implementation. Where it is not, anybody can make them.",
				Commands: []string{"xfrmscope trace"}},
			{For: forHost, Text: "Rule out the network card: receive without its ESP offload.", Commands: []string{"ethtool -K <interface> esp-hw-offload off"}},
			{For: forPeer, Text: "Compare algorithm, key length and truncation with the far side's."},
		}
		out = append(out, f)
	}
	return out
}

// saModeDisagreement is packets whose inside does not fit the SA's mode (xfrm_inner_mode_input and the
// tunnel check of xfrm_input).
func saModeDisagreement(r *ledger.Report) []Finding {
	var out []Finding
	for _, o := range occurrences(r, ledger.InnerModeError, ledger.StateModeError) {
		severity := Warning
		if o.sa != nil && o.sa.Own != nil {
			through := o.sa.Own.Packets
			if o.cause.AfterDecap() {
				through -= o.n // the SA's own count has them
			}
			if through <= 0 {
				severity = Critical
			}
		}
		f := o.finding(SAModeDisagreement, severity)
		mode := ""
		if o.sa != nil && o.sa.Mode != "" {
			mode = fmt.Sprintf(" The SA is in %s mode here.", o.sa.Mode)
		}
		f.Summary = fmt.Sprintf("%s carried something that does not fit the mode of their SA%s.%s", packets(o.n), o.named, mode)
		f.Remedy = []Remedy{
			{For: forIproute2, Text: "Both ends need the same mode; a tunnel for the other address family needs a selector without family (flag af-unspec).",
				Commands: []string{"ip xfrm state list nokeys"}},
			{For: forStrongSwan, Text: "The mode is negotiated; transport mode is refused silently by some peers behind NAT.", Commands: []string{"connections.<conn>.children.<child>.mode = tunnel"}},
			{For: forLibreswan, Text: "The same.", Commands: []string{"type=tunnel"}},
			{For: forPeer, Text: "Compare the mode.", Commands: []string{"crypto ipsec transform-set … mode tunnel   (Cisco)"}},
		}
		out = append(out, f)
	}
	return out
}

// processingFailed is what this host had no means for: memory, a place in a queue, a cipher that works.
func processingFailed(r *ledger.Report) []Finding {
	why := map[ledger.Cause]string{
		ledger.InError:        "there was no memory for them, or they lost their route on the way",
		ledger.InBufferError:  "they were wrapped more often than xfrm unwraps (6 times), or an offload reported failure",
		ledger.PolBufferError: "their policies demand more SAs than xfrm checks (6)",
		ledger.OutError:       "there was no memory for their headers, or their checksum could not be computed",
		ledger.OutProtoError:  "encrypting them failed",
	}
	var out []Finding
	for _, o := range occurrences(r, ledger.InError, ledger.InBufferError, ledger.PolBufferError, ledger.OutError, ledger.OutProtoError) {
		f := o.finding(ProcessingFailed, Warning)
		reason := why[o.cause]
		if o.cause == ledger.OutProtoError && (o.sa == nil || o.sa.Encap == ledger.EncapUDP) {
			reason += ", or in UDP they were longer than an IP packet can be (65535 octets)"
		}
		f.Summary = fmt.Sprintf("%s were dropped, because %s%s.", packets(o.n), reason, o.named)
		f.Remedy = []Remedy{{For: forHost, Text: "Look for failed allocations, and for trouble with the cipher or the card that does it.",
			Commands: []string{"dmesg | grep -iE 'allocation failure|crypto|esp'", "grep -A12 'gcm(aes)' /proc/crypto   # selftest, driver", "ethtool -K <interface> esp-hw-offload off"}}}
		out = append(out, f)
	}
	return out
}
