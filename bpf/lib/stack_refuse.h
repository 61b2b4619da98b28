/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which flow a policy refused: what it takes to find the policy afterwards. */
#ifndef XFRMSCOPE_STACK_REFUSE_H
#define XFRMSCOPE_STACK_REFUSE_H

#include "compat.h"
#include "stack_maps.h"

#define IPPROTO_ICMP	1
#define IPPROTO_DCCP	33
#define IPPROTO_ICMPV6	58
#define IPPROTO_SCTP	132
#define IPPROTO_UDPLITE 136

#define PORTS_RESERVED 1024

static const struct refusal no_refusals;

/* Whether a drop is a refusal: by a policy, by the SA's selector, or for want of an SA to send by. */
static __always_inline bool is_refusal(__u32 cause, __u32 class)
{
	return class == MIB_POLICY || class == MIB_LOOKUP || cause == CAUSE_STATE_MISMATCH;
}

static __always_inline void read_ports(struct refusal_key *f, const void *l4)
{
	__u8 byte[2] = {};
	__be16 port[2] = {};

	if (f->proto == IPPROTO_ICMP || f->proto == IPPROTO_ICMPV6) {
		bpf_probe_read_kernel(byte, sizeof(byte), l4);
		f->sport = byte[0];
		f->dport = byte[1];
		return;
	}
	if (f->proto != IPPROTO_TCP && f->proto != IPPROTO_UDP && f->proto != IPPROTO_SCTP &&
	    f->proto != IPPROTO_DCCP && f->proto != IPPROTO_UDPLITE)
		return;
	bpf_probe_read_kernel(port, sizeof(port), l4);
	f->sport = bpf_ntohs(port[0]);
	f->dport = bpf_ntohs(port[1]);
	if (f->sport > f->dport && f->sport >= PORTS_RESERVED)
		f->sport = 0;
	else if (f->dport > f->sport && f->dport >= PORTS_RESERVED)
		f->dport = 0;
}

/* The IP header that the packet has now: the inner one, decrypted or not yet encrypted. */
static __always_inline void know_flow(struct drop *d, struct sk_buff *skb, __u32 site)
{
	unsigned char *head = BPF_CORE_READ(skb, head);
	void *ip = head + BPF_CORE_READ(skb, network_header);
	struct refusal_key *f = &d->flow;
	__be16 fragment = 0;
	__u8 first = 0;

	bpf_probe_read_kernel(&first, 1, ip);
	f->place = site;
	f->cause = d->cause;
	f->ifindex = d->ifindex;
	f->spi = d->key.spi;
	f->sa_proto = d->key.proto;
	d->bytes = BPF_CORE_READ(skb, len);
	d->mark = BPF_CORE_READ(skb, mark);
	if (first >> 4 == 6) {
		f->family = 6;
		bpf_probe_read_kernel(&f->proto, 1, ip + 6);
		read_address(PROBED, f->src, ip + 8, 6);
		read_address(PROBED, f->dst, ip + 24, 6);
		/* Behind extension headers there are no ports to be had cheaply. */
		read_ports(f, ip + 40);
	} else {
		f->family = 4;
		bpf_probe_read_kernel(&fragment, sizeof(fragment), ip + 6);
		bpf_probe_read_kernel(&f->proto, 1, ip + 9);
		read_address(PROBED, f->src, ip + 12, 4);
		read_address(PROBED, f->dst, ip + 16, 4);
		if (!(bpf_ntohs(fragment) & IP_OFFSET))
			read_ports(f, ip + (first & 15) * 4);
	}
	if (!d->key.spi)
		return;
	__builtin_memcpy(f->sa_dst, d->key.dst, sizeof(f->sa_dst));
}

static __always_inline void count_refusal(struct drop *d)
{
	struct refusal_key key = d->flow;
	struct refusal *r;

	r = bpf_map_lookup_elem(&refusals, &key);
	if (!r) {
		bpf_map_update_elem(&refusals, &key, &no_refusals, BPF_NOEXIST);
		r = bpf_map_lookup_elem(&refusals, &key);
		if (!r) {
			lose(LOST_REFUSAL_TABLE_FULL);
			return;
		}
	}
	r->packets++;
	r->reqid = d->reqid;
	r->if_id = d->if_id;
	r->mark = d->mark;
	if (d->bytes > r->largest)
		r->largest = d->bytes;
}

#endif
