/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who a dropped packet belongs to and what its sequence number says about the drop. */
#ifndef XFRMSCOPE_STACK_JUDGE_H
#define XFRMSCOPE_STACK_JUDGE_H

#include "abi.h"
#include "compat.h"
#include "stack_maps.h"

/* The SA is an argument, or `how` is PROBED; the same of those below. */
static __always_inline void know_sa(enum way how, struct drop *d, struct xfrm_state *x, __u8 dir)
{
	__u16 family = FIELD(how, x, props.family);
	struct xfrm_encap_tmpl *encap;

	d->key.family = family == AF_INET6 ? 6 : 4;
	d->key.dir = dir;
	d->key.proto = FIELD(how, x, id.proto);
	d->key.spi = bpf_ntohl(FIELD(how, x, id.spi));
	read_address(how, d->key.dst, &x->id.daddr, d->key.family);
	read_address(how, d->src, &x->props.saddr, d->key.family);
	d->reqid = FIELD(how, x, props.reqid);
	d->if_id = FIELD(how, x, if_id);
	encap = FIELD(how, x, encap);
	if (encap) {
		d->sport = bpf_ntohs(FIELD(how, encap, encap_sport));
		d->dport = bpf_ntohs(FIELD(how, encap, encap_dport));
	}
}

static __always_inline void know_device(struct drop *d, struct sk_buff *skb)
{
	struct net_device *dev = BPF_CORE_READ(skb, dev);

	d->ifindex = BPF_CORE_READ(skb, skb_iif);
	if ((!d->ifindex || d->key.dir == DIR_OUT) && dev)
		d->ifindex = BPF_CORE_READ(dev, ifindex);
}

/*
 * Addresses and protocol of the IP header that the packet has just been received with, for packets
 * that no SA is known of. Behind IPv6 extension headers, and in UDP, ESP is presumed: nothing else
 * reaches xfrm_input() that way.
 */
static __always_inline void know_headers(struct drop *d, struct sk_buff *skb)
{
	unsigned char *head = BPF_CORE_READ(skb, head);
	void *ip = head + BPF_CORE_READ(skb, network_header);
	__u8 version = 0, proto = 0;

	bpf_probe_read_kernel(&version, 1, ip);
	d->key.dir = DIR_IN;
	if (version >> 4 == 6) {
		d->key.family = 6;
		bpf_probe_read_kernel(&proto, 1, ip + 6);
		read_address(PROBED, d->src, ip + 8, 6);
		read_address(PROBED, d->key.dst, ip + 24, 6);
	} else {
		d->key.family = 4;
		bpf_probe_read_kernel(&proto, 1, ip + 9);
		read_address(PROBED, d->src, ip + 12, 4);
		read_address(PROBED, d->key.dst, ip + 16, 4);
	}
	if (proto != IPPROTO_AH && proto != IPPROTO_COMP)
		proto = IPPROTO_ESP;
	d->key.proto = proto;
}

/* SPI and number as they stand in the packet: ESP RFC 4303 section 2, AH RFC 4302 section 2. */
static __always_inline void packet_numbers(struct sk_buff *skb, __u8 proto, __u32 *spi, __u32 *seq)
{
	unsigned char *head = BPF_CORE_READ(skb, head);
	void *at = head + BPF_CORE_READ(skb, transport_header);
	__u32 word[2] = {};

	*spi = 0;
	*seq = 0;
	if (proto == IPPROTO_COMP) {
		/* RFC 3173 section 3.3: next header, flags, 16 bits of CPI and no number. */
		bpf_probe_read_kernel(word, 4, at);
		*spi = bpf_ntohl(word[0]) & 0xffff;
		return;
	}
	if (proto == IPPROTO_AH)
		at += 4;
	bpf_probe_read_kernel(word, sizeof(word), at);
	*spi = bpf_ntohl(word[0]);
	*seq = bpf_ntohl(word[1]);
}

/*
 * A packet that xfrm_replay_check() refused: seen before, or below the window. The same arithmetic
 * as there (net/xfrm/xfrm_replay.c), on the same state, which the kernel holds locked meanwhile.
 */
static __always_inline void judge_replay(enum way how, struct drop *d, struct xfrm_state *x, __u32 seq)
{
	__u32 bottom, diff, hi;
	struct replay r;

	read_replay(how, x, &r);
	diff = r.seq - seq;
	bottom = r.seq - r.window + 1;
	hi = r.seq_hi;
	if (r.esn && r.seq < r.window - 1 && seq >= bottom) {
		/* The window begins in the epoch before, and so does the packet's number. */
		diff = ~seq + r.seq + 1;
		hi--;
	}
	d->class = MIB_SEQ;
	d->seq = join(hi, seq);
	d->top = join(r.seq_hi, r.seq);
	d->replay_window = r.window;
	/* Number 0 is refused for its own sake: no sender uses it (RFC 4303 section 3.3.3). */
	if (!seq && !hi) {
		d->cause = CAUSE_REPLAY_UNSPECIFIED;
		return;
	}
	if (diff < r.window) {
		d->cause = CAUSE_REPLAY_DUPLICATE;
		return;
	}
	d->cause = CAUSE_REPLAY_LATE;
	d->distance = diff;
}

/*
 * A packet whose integrity check failed, or that type->input refused otherwise. Under ESN the
 * receiver must guess the upper half (RFC 4303 appendix A2.2): a number below the window is taken
 * for one of the next epoch, so that a packet which is merely late fails its check. The check was
 * done with a number far ahead of the top; 2^32 lower it would be late by more than the window. The
 * smaller of the two distances is the better explanation.
 */
static __always_inline void judge_integrity(enum way how, struct drop *d, struct xfrm_state *x,
					    struct sk_buff *skb, __u32 otherwise)
{
	__u64 ahead, behind;
	struct replay r;

	read_replay(how, x, &r);
	d->class = MIB_PROTO;
	d->cause = otherwise;
	d->seq = cb_input_esn(skb);
	d->top = join(r.seq_hi, r.seq);
	d->replay_window = r.window;
	if (!r.esn) {
		d->seq &= 0xffffffff;
		return;
	}
	if (!r.window || d->seq <= d->top)
		return;
	ahead = d->seq - d->top;
	if (ahead >= 1ULL << 32 || !(d->seq >> 32))
		return;
	behind = (1ULL << 32) - ahead;
	if (behind < r.window || behind >= ahead)
		return;
	d->cause = CAUSE_ESN_MIS_EPOCH;
	d->seq -= 1ULL << 32;
	d->distance = behind;
}

#endif
