// SPDX-License-Identifier: Apache-2.0

// Package mtu measures the largest packet that a path carries, by sending some: outside, to the address
// of a gateway, and inside, through its SA. A search decides which sizes to try and what their answers
// mean, sockets send them, and a plan finds the tunnel that a peer belongs to. It changes nothing on the
// host: no route, no setting, and where it can be helped not even what the kernel has learned of paths.
package mtu
