// SPDX-License-Identifier: Apache-2.0

package verdict

import (
	"fmt"
	"strings"

	"xfrmscope/internal/ledger"
)

// configKinds review the configuration. They need no traffic, and most of them ask for nothing: what
// is set is certain, that it hurts is not observed. Real faults rank before them.
func configKinds() []Kind {
	return []Kind{
		{ConfigWeakAlgorithm, "An algorithm that is broken or on its way out", configWeakAlgorithm},
		{ConfigShadowedPolicy, "A policy that is never asked", configShadowedPolicy},
		{ConfigMissingForwardPolicy, "A network is let in and nothing is let through to it", configMissingForwardPolicy},
		{ConfigRedundantPolicy, "A policy that says what another one says before it", configRedundantPolicy},
		{ConfigReplayWindow, "A replay window that is small for the rate", configReplayWindow},
		{ConfigEqualLifetimes, "Many SAs that run out together", configEqualLifetimes},
		{ConfigMTU, "An interface promises more than its SAs let through", configMTU},
		{ConfigPMTUDiscoveryOff, "Path MTU discovery is off", configPMTUDiscoveryOff},
		{ConfigSocketBuffers, "Buffers that are too small, or dangerously large", configSocketBuffers},
	}
}

// configured is the confidence of what is set and may hurt; weighed is that of what RFCs forbid or the
// kernel cannot do otherwise.
const (
	configured = inferred
	weighed    = counted
)

// alive lists the SAs that the kernel has at the end of the run.
func alive(r *ledger.Report) (out []*ledger.SA) {
	for i := range r.SAs {
		if r.SAs[i].State == ledger.Alive {
			out = append(out, &r.SAs[i])
		}
	}
	return out
}

// listSAs names some SAs.
func listSAs(sas []*ledger.SA) string {
	const most = 4
	var names []string
	for _, sa := range sas[:min(len(sas), most)] {
		names = append(names, sa.SPI.String())
	}
	text := strings.Join(names, ", ")
	if len(sas) > most {
		text += fmt.Sprintf(" and %d more", len(sas)-most)
	}
	return text
}

// aboutAll names the SA if there is but one.
func aboutAll(sas []*ledger.SA) Subject {
	if len(sas) == 1 {
		return about(sas[0])
	}
	return Subject{}
}
