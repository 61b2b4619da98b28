// SPDX-License-Identifier: Apache-2.0

// Package ike follows IKE exchanges by the headers of their messages: who asked what and when, whether
// and how fast the other end answered, and what had to be sent again. What the messages say is
// encrypted and stays so.
package ike
