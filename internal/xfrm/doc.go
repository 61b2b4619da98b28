// SPDX-License-Identifier: Apache-2.0

// Package xfrm reads the kernel's IPsec databases over NETLINK_XFRM: the SAs with their replay
// state, counters and lifetimes, the policies, and the messages that announce their changes. It also
// reads /proc/net/xfrm_stat of a network namespace.
//
// # Read only
//
// The package sends dump requests and joins multicast groups; it never adds, changes or deletes
// anything. It does not join XFRMNLGRP_AEVENTS, because a listener there switches on per-packet work
// in the kernel (xfrm_aevent_is_on).
//
// # Key material
//
// The kernel puts the keys of each SA into its messages. Decoding is therefore an allow-list: of an
// algorithm only name and lengths are read, attributes that are not on the list are passed over, the
// cursor over the attributes yields slices of the receive buffer instead of copies, and the buffer is
// overwritten once a message has been decoded. No type of this package has a place for a key. Open
// refuses to work when NLDEBUG is set, because the netlink library would then print whole messages.
package xfrm
