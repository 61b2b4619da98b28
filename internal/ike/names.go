// SPDX-License-Identifier: Apache-2.0

package ike

import "fmt"

// Exchange is an exchange type, whose numbers IKEv1 and IKEv2 share without overlap.
type Exchange uint8

// unassigned stands for all types that no registry has.
const unassigned Exchange = 0

// The exchange types of the IANA registries for ISAKMP (RFC 2408, RFC 2409) and IKEv2.
const (
	Base          Exchange = 1
	MainMode      Exchange = 2 // Identity Protection
	AuthOnly      Exchange = 3
	Aggressive    Exchange = 4
	InfoV1        Exchange = 5
	Transaction   Exchange = 6
	QuickMode     Exchange = 32
	NewGroup      Exchange = 33
	SAInit        Exchange = 34
	Auth          Exchange = 35
	CreateChild   Exchange = 36
	Informational Exchange = 37
	Resume        Exchange = 38
	GSAAuth       Exchange = 39
	GSARegister   Exchange = 40
	GSARekey      Exchange = 41
	Intermediate  Exchange = 43
	FollowupKE    Exchange = 44
)

var exchangeNames = map[Exchange]string{
	Base: "Base", MainMode: "Main Mode", AuthOnly: "Authentication Only", Aggressive: "Aggressive Mode",
	InfoV1: "Informational", Transaction: "Transaction", QuickMode: "Quick Mode", NewGroup: "New Group Mode",
	SAInit: "IKE_SA_INIT", Auth: "IKE_AUTH", CreateChild: "CREATE_CHILD_SA", Informational: "INFORMATIONAL",
	Resume: "IKE_SESSION_RESUME", GSAAuth: "GSA_AUTH", GSARegister: "GSA_REGISTRATION", GSARekey: "GSA_REKEY",
	Intermediate: "IKE_INTERMEDIATE", FollowupKE: "IKE_FOLLOWUP_KE", unassigned: "unassigned",
}

// String names the exchange as its RFC does.
func (e Exchange) String() string {
	if s, ok := exchangeNames[e]; ok {
		return s
	}
	return fmt.Sprintf("exchange-%d", uint8(e))
}

// begins says whether the exchange is the first one of an IKE SA.
func (e Exchange) begins() bool {
	switch e {
	case SAInit, Resume, GSAAuth, Base, MainMode, AuthOnly, Aggressive:
		return true
	}
	return false
}

// builds says whether the exchange sets up or renews an SA of either kind; the others maintain.
func (e Exchange) builds() bool {
	return e.begins() || e == Auth || e == CreateChild || e == QuickMode || e == FollowupKE || e == Intermediate
}

// turns is how many messages an exchange of IKEv1 has (RFC 2408 section 4, RFC 2409 section 5). An
// exchange of unknown type is taken for a request and its reply.
func (e Exchange) turns() int {
	switch e {
	case MainMode:
		return 6
	case Base:
		return 4
	case AuthOnly, Aggressive, QuickMode:
		return 3
	case InfoV1:
		return 1
	}
	return 2
}
