// SPDX-License-Identifier: Apache-2.0

// Package check holds a report against what was expected of it: expressions over the ledger and the
// findings, what they looked at, and the outcome in the forms that CI systems read. What was not
// observed fails an expectation; it never passes as zero.
package check
