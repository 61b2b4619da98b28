/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Where an SA's packets come from: source address, ports and encapsulation. Behind a NAT that changes
 * while the SA lives on (RFC 3948 section 4, RFC 7296 section 2.23).
 */
#ifndef XFRMSCOPE_REBIND_H
#define XFRMSCOPE_REBIND_H

#include "packet.h"
#include "window.h"

/* sport, dport, family, dir, encap and used of struct sa_state as the one word that they fill. */
static __always_inline __u64 *sa_ports(struct sa_state *sa)
{
	_Static_assert(offsetof(struct sa_state, sport) % 8 == 0 &&
			       offsetof(struct sa_state, used) == offsetof(struct sa_state, sport) + 7,
		       "one word");
	return (__u64 *)&sa->sport;
}

static __always_inline __u64 ports_word(__u16 sport, __u16 dport, __u8 family, __u8 dir, __u8 encap)
{
	return (__u64)1 << 56 | (__u64)encap << 48 | (__u64)dir << 40 | (__u64)family << 32 |
	       (__u32)dport << 16 | sport;
}

/*
 * Follows the packet at hand, which has just raised `highest`: late packets of the old binding change
 * nothing back. Of CPUs that see the change at once, the one that writes it counts it.
 */
__noinline int rebind(__u32 slot)
{
	struct sa_state *sa = bpf_map_lookup_elem(&sa_states, &slot);
	struct packet *p = packet_current();
	__u64 *ports, *high, *low, old_ports, old_high, old_low, new_ports, new_high, new_low;
	bool won;

	if (!sa || !p)
		return 0;
	ports = sa_ports(sa);
	high = (__u64 *)&sa->src[0];
	low = (__u64 *)&sa->src[8];
	old_ports = READ_ONCE(*ports);
	old_high = READ_ONCE(*high);
	old_low = READ_ONCE(*low);
	new_ports = ports_word(p->sport, p->dport, p->family, p->dir, p->encap);
	new_high = *(__u64 *)&p->src[0];
	new_low = *(__u64 *)&p->src[2];
	/* User space takes the slot away: its mark must not come back. */
	if (!(old_ports >> 56))
		return 0;
	won = old_ports != new_ports && window_cas(slot, ports, old_ports, new_ports);
	if (old_low != new_low)
		won |= window_cas(slot, low, old_low, new_low);
	if (old_high != new_high)
		won |= window_cas(slot, high, old_high, new_high);
	if (!won)
		return 0;
	atomic_add(&sa->rebinds, 1);
	WRITE_ONCE(sa->rebind_ns, packet_time(p));
	WRITE_ONCE(*(__u64 *)&sa->old_src[0], old_high);
	WRITE_ONCE(*(__u64 *)&sa->old_src[8], old_low);
	WRITE_ONCE(sa->old_ports, (old_ports >> 48 & 0xff) << 32 | (__u32)old_ports);
	packet_event(p, EVENT_REBIND, p->seq64, (old_ports >> 48 & 0xff) << 32 | (__u32)old_ports, 0);
	return 0;
}

#endif
