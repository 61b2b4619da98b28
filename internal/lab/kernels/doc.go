// SPDX-License-Identifier: Apache-2.0

// Package kernels keeps what the lab's tests saw on each kernel: which programs load there and how they
// attach, which hooks hold, and which bins of the ledger were filled. In a virtual machine the tests leave
// notes, scripts/vm/matrix has them made into one record a kernel, the records are committed below data/, and
// docs/kernels.md is made from them.
package kernels
