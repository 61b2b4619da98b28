//go:build ignore
/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * TCP inside the tunnels: for each connection and each end what it sends, which receive window it
 * advertises and for how long that was zero, what it repeats, and how long its segments take to be
 * acknowledged. Forwarded connections as well as those of this host's own sockets.
 *
 *   inner_in           fentry on gro_cells_receive: every packet that tunnel mode has decapsulated
 *   inner_in4, _in6    ... xfrm4_transport_finish, xfrm6_transport_finish: the same of transport mode
 *   inner_out          ... xfrm_output: every packet about to be encapsulated
 *   *_kprobe           the same four as kprobes
 *   inner_frame        feeds one frame to the same functions, for tests: attached to nothing
 *
 * Why here and not in TC, where packets can be read in place: a TC program would have to sit on every
 * device that a decrypted packet may come out of, the ones made later included, and would run for
 * every packet there. These functions are met once by each packet of an SA and by hardly another,
 * before GRO merges segments on the way in, and with the SA at hand.
 *
 * Set by the loader: pick_netns as everywhere. Each packet of that namespace is counted under one fate.
 */
#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_core_read.h>

#include "abi.h"
#include "xfrm.h"

#include "entry.h"
#include "netns.h"
#include "compat.h"
#include "inner_parse.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct sock;

/* Fields that no other object reads. A flavour of a kernel struct is found under the name before ___. */
struct sk_buff___inner {
	unsigned int data_len;
	__u32 tail; /* sk_buff_data_t: offsets from head on 64 bits */
	__u32 end;
} __attribute__((preserve_access_index));

struct skb_shared_info {
	__u16 gso_size;
} __attribute__((preserve_access_index));

/* What xfrm_input() keeps of the header it replaces (include/net/xfrm.h). */
struct xfrm_mode_skb_cb {
	__u8 protocol;
} __attribute__((preserve_access_index));

/* Larger payloads than an Ethernet frame holds may be several segments. */
#define FRAME_PAYLOAD 1460

/* Who carries the packet. The rest is only read when the SA is another one than before. */
static __always_inline void note_sa(enum way how, struct inner_end *e, struct xfrm_state *x)
{
	__u32 spi = bpf_ntohl(FIELD_AT(how, x, id.spi));

	if (e->sa == (__u64)x && e->spi == spi)
		return;
	e->sa_family = BPF_CORE_READ(x, props.family) == AF_INET6 ? 6 : 4;
	e->sa_proto = BPF_CORE_READ(x, id.proto);
	e->reqid = BPF_CORE_READ(x, props.reqid);
	read_address(how, e->sa_dst, (void *)x + bpf_core_field_offset(struct xfrm_state, id.daddr),
		     e->sa_family);
	e->spi = spi;
	e->sa = (__u64)x;
}

/* One packet of the SA x, whose transport protocol is `proto` if the header does not say it. */
static __always_inline int look(enum way how, struct sk_buff *skb, struct xfrm_state *x, enum direction dir,
				__u8 proto, bool local)
{
	struct sk_buff___inner *more = (void *)skb;
	struct inner_bytes b = { .proto = proto, .how = how };
	struct segment s = { .dir = dir, .local = local };
	struct inner_key key = {};
	struct inner_flow *f;
	enum inner_fate what;

	b.base = FIELD(how, skb, head);
	b.at = FIELD(how, skb, network_header);
	b.end = FIELD(how, more, tail);
	b.whole = b.end - b.at + FIELD(how, more, data_len);
	what = inner_parse(&b, &key, &s);
	if (what != INNER_TCP) {
		fate(what);
		return 0;
	}
	if (s.payload > FRAME_PAYLOAD) {
		struct skb_shared_info *shared = b.base + FIELD(how, more, end);

		shared = AT(how, struct skb_shared_info, shared);
		s.size = FIELD_AT(how, shared, gso_size);
	}
	s.now_ns = bpf_ktime_get_ns();
	/* A reset of a connection that nobody knew begins nothing. */
	f = flow_of(&key, s.now_ns, !(s.flags & TCP_RST));
	if (!f) {
		fate(INNER_TCP);
		return 0;
	}
	if (!flow_segment(f, &s)) {
		fate(INNER_ELSEWHERE);
		return 0;
	}
	note_sa(how, &f->end[s.from & 1], x);
	fate(INNER_TCP);
	return 0;
}

static __always_inline bool is_ours(enum way how, struct xfrm_state *x)
{
	return x && FIELD_AT(how, x, xs_net.net) == target_net;
}

/* gro_cells_receive() serves tunnels without IPsec too; those packets have no SA. */
static __always_inline int on_in(enum way how, struct sk_buff *skb)
{
	struct xfrm_state *x = sa_received(how, skb);

	return is_ours(how, x) ? look(how, skb, x, DIR_IN, PROTO_AS_WRITTEN, false) : 0;
}

/* The transport protocol is written back into the IP header only by the function that begins here. */
static __always_inline int on_in_transport(enum way how, struct sk_buff *skb)
{
	struct xfrm_state *x = sa_received(how, skb);
	__u8 proto;

	if (!is_ours(how, x))
		return 0;
	proto = BYTE(how, (void *)skb + bpf_core_field_offset(struct sk_buff, cb) +
				  bpf_core_field_offset(struct xfrm_mode_skb_cb, protocol));
	return look(how, skb, x, DIR_IN, proto, false);
}

/* A packet that is forwarded has no socket. */
static __always_inline int on_out(enum way how, struct sock *sk, struct sk_buff *skb)
{
	struct xfrm_state *x = sa_sending(how, skb);

	return is_ours(how, x) ? look(how, skb, x, DIR_OUT, PROTO_AS_WRITTEN, sk != NULL) : 0;
}

ON_ENTRY(gro_cells_receive, inner_in, on_in(how, skb), void *cells, struct sk_buff *skb)
ON_ENTRY(xfrm4_transport_finish, inner_in4, on_in_transport(how, skb), struct sk_buff *skb)
ON_ENTRY(xfrm6_transport_finish, inner_in6, on_in_transport(how, skb), struct sk_buff *skb)
ON_ENTRY(xfrm_output, inner_out, on_out(how, sk, skb), struct sock *sk, struct sk_buff *skb)

/*
 * For BPF_PROG_TEST_RUN only: an Ethernet frame, with the SPI in `mark`, the direction in cb[0], the
 * size of one segment in cb[1] and the time in cb[2] (upper half) and cb[3].
 */
SEC("tc")
int inner_frame(struct __sk_buff *skb)
{
	struct inner_bytes b = { .base = skb, .at = sizeof(struct ethhdr), .end = skb->len, .from_tc = true };
	struct segment s = { .dir = skb->cb[0] & 1 };
	struct inner_key key = {};
	struct inner_flow *f;
	enum inner_fate what;

	b.whole = skb->len - sizeof(struct ethhdr);
	b.size = skb->cb[1];
	what = inner_parse(&b, &key, &s);
	if (what == INNER_TCP) {
		s.now_ns = (__u64)skb->cb[2] << 32 | skb->cb[3];
		f = flow_of(&key, s.now_ns, !(s.flags & TCP_RST));
		if (f && !flow_segment(f, &s))
			what = INNER_ELSEWHERE;
		else if (f)
			f->end[s.from & 1].spi = skb->mark;
	}
	fate(what);
	return TCX_NEXT;
}
