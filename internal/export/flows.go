// SPDX-License-Identifier: Apache-2.0

package export

import "xfrmscope/internal/ledger"

func (p *Points) flows(*ledger.Report) {}
