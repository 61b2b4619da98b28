//go:build ignore
/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Bytes of chosen packets, for captures. Loaded only when somebody captures.
 *
 *   packet_ingress, _egress          TC: packets of IPsec on the wire
 *   packet_ingress_l3, _egress_l3    the same on devices without an Ethernet header
 *   begin        fentry on xfrm_input: which number a packet has, before its header is taken away
 *   decrypted    ... gro_cells_receive: what was inside, of tunnel mode
 *   decrypted4   ... xfrm4_transport_finish, decrypted6 xfrm6_transport_finish: of transport mode
 *   plain        ... xfrm_output: a packet about to be encrypted
 *   sent         ... __ip_local_out, sent6 __ip6_local_out: which number it was given
 *   *_kprobe     the same seven as kprobes
 *   packet_drop  raw_tp/kfree_skb: packets of IPsec, inner and outer, that are freed as dropped
 *   decrypted_skb  the code of decrypted, or of decrypted4, for tests: attached to nothing
 *
 * How the outer and the inner packet are joined: an SA's numbers are in the packet's header and, for a
 * moment, in skb->cb, but the one is gone and the other overwritten (XFRM_MODE_SKB_CB) when decryption is
 * done, and neither is there yet when encryption begins. What stays is the packet's address: it is
 * noted with SPI and number where both are known, and trusted only for the SPI of the SA at hand.
 *
 * For the loader: attach packet_drop after the stack object's kfree_skb, with whose claimed_skb this
 * object's is replaced (lib/claim.h). Set cfg_has_reason, what lib/packet_ring.h lists, cfg_natt_ports, and
 * run pick_netns as everywhere.
 */
#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_core_read.h>

#include "packet_abi.h"
#include "xfrm.h"
#include "verifier.h"

#include "entry.h"
#include "netns.h"
#include "claim.h"
#include "drop_packet.h"
#include "packet_order.h"
#include "packet_snap.h"
#include "packet_wire.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* 1: raw_tp/kfree_skb passes the drop reason as its third argument. */
const volatile __u32 cfg_has_reason = 0;

struct sock;

/* What xfrm_input() keeps of the header it replaces (include/net/xfrm.h). */
struct xfrm_mode_skb_cb {
	__u8 protocol;
} __attribute__((preserve_access_index));

/* A note so old belongs to a packet that is gone, and whose address is another's now. */
#define STALE_NS 2000000000ULL
/* xfrm_input() is entered again with it when an asynchronous cipher is done (xfrm_input_resume). */
#define RESUMED -1

/* A packet on its way into or out of xfrm, by its address. */
struct passing {
	__u64 time_ns;
	__u64 cookie; /* on its way out */
	__u32 spi;
	__u32 seq; /* on its way in */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct passing);
} passing_in SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct passing);
} passing_out SEC(".maps");

/* The super-packet that this CPU is cutting into segments: xfrm_output_gso() makes new packets of it. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct passing);
} cutting SEC(".maps");

static __always_inline bool is_ours(enum way how, struct xfrm_state *x)
{
	return x && FIELD_AT(how, x, xs_net.net) == target_net;
}

static __always_inline void name_sa(enum way how, struct packet_head *h, struct xfrm_state *x, __u8 dir)
{
	h->dir = dir;
	h->family = FIELD_AT(how, x, props.family) == AF_INET6 ? 6 : 4;
	h->proto = FIELD_AT(how, x, id.proto);
	h->spi = bpf_ntohl(FIELD_AT(how, x, id.spi));
	h->reqid = FIELD_AT(how, x, props.reqid);
	h->if_id = FIELD_AT(how, x, if_id);
	read_address(how, h->dst, (void *)x + bpf_core_field_offset(struct xfrm_state, id.daddr), h->family);
	read_address(how, h->src, (void *)x + bpf_core_field_offset(struct xfrm_state, props.saddr),
		     h->family);
}

/* The number that the packet came in with, if it is of the SA at hand. */
static __always_inline void recall_number(struct packet_head *h, struct sk_buff *skb)
{
	__u64 at = (__u64)skb;
	struct passing *p = bpf_map_lookup_elem(&passing_in, &at);

	if (!p || p->spi != h->spi || h->time_ns - p->time_ns > STALE_NS)
		return;
	h->seq = p->seq;
	h->flags |= PACKET_FLAG_SEQ;
}

/* At xfrm_input()'s entry the transport header is that of the SPI, however the packet came here. */
static __always_inline int on_begin(enum way how, struct sk_buff *skb, int nexthdr, int encap_type)
{
	struct passing p = {};
	__u64 at = (__u64)skb;
	__be32 word[2] = {};
	void *esp;

	if (encap_type == RESUMED || skb_netns(how, skb) != target_net)
		return 0;
	esp = FIELD(how, skb, head) + FIELD(how, skb, transport_header);
	if (nexthdr == IPPROTO_AH)
		esp += 4;
	read_words(how, word, esp, sizeof(word), 4);
	p.spi = bpf_ntohl(word[0]);
	p.seq = bpf_ntohl(word[1]);
	p.time_ns = bpf_ktime_get_ns();
	bpf_map_update_elem(&passing_in, &at, &p, BPF_ANY);
	return 0;
}

/* gro_cells_receive() serves tunnels without IPsec too; those packets have no SA. */
static __always_inline int on_decrypted(enum way how, struct sk_buff *skb, bool transport)
{
	struct packet_head h = { .point = PACKET_DECRYPTED };
	struct xfrm_state *x = sa_received(how, skb);
	struct packet_count *c;

	if (!is_ours(how, x))
		return 0;
	h.time_ns = bpf_ktime_get_ns();
	name_sa(how, &h, x, DIR_IN);
	recall_number(&h, skb);
	c = packet_count_of(0, PACKET_DECRYPTED);
	if (c)
		c->seen++;
	if (!packet_chosen(&h) || (!(cfg_only & PACKET_ONLY_ALL) && !packet_picked(&h)))
		return 0;
	if (c)
		c->matched++;
	/* The protocol is written back into the IP header only by the function that begins here. */
	if (transport)
		h.inner = BYTE(how, (void *)skb + bpf_core_field_offset(struct sk_buff, cb) +
					    bpf_core_field_offset(struct xfrm_mode_skb_cb, protocol));
	packet_from_stack(how, &h, c, skb, false);
	return 0;
}

static __always_inline int on_plain(enum way how, struct sk_buff *skb)
{
	struct packet_head h = { .point = PACKET_PLAIN };
	struct xfrm_state *x = sa_sending(how, skb);
	__u64 at = (__u64)skb;
	struct packet_count *c;
	struct passing p = {}, *super;
	__u32 zero = 0;

	if (!is_ours(how, x))
		return 0;
	h.time_ns = bpf_ktime_get_ns();
	name_sa(how, &h, x, DIR_OUT);
	c = packet_count_of(0, PACKET_PLAIN);
	if (!c)
		return 0;
	c->seen++;
	/* What is sent is neither late nor repeated. */
	if (!(cfg_only & PACKET_ONLY_ALL) || !packet_chosen(&h))
		return 0;
	c->matched++;
	h.cookie = (__u64)(bpf_get_smp_processor_id() + 1) << 48 | c->matched;
	p.time_ns = h.time_ns;
	p.cookie = h.cookie;
	p.spi = h.spi;
	packet_from_stack(how, &h, c, skb, false);
	super = bpf_map_lookup_elem(&cutting, &zero);
	if (h.segments > 1) {
		if (super)
			*super = p;
		return 0;
	}
	if (super)
		super->spi = 0;
	bpf_map_update_elem(&passing_out, &at, &p, BPF_ANY);
	return 0;
}

/* SPI and number of a packet with an outer header; false: it is not ESP. */
static __always_inline bool sent_numbers(enum way how, struct sk_buff *skb, __u8 family, __u32 *spi,
					 __u32 *seq)
{
	void *ip = FIELD(how, skb, head) + FIELD(how, skb, network_header);
	__be32 word[2] = {};
	__u32 at = sizeof(struct ipv6hdr);
	__u8 proto;

	if (family == 4)
		at = (BYTE_OF(how, ip) & 0xf) * 4;
	proto = BYTE_OF(how, ip + (family == 4 ? 9 : 6));
	if (proto == IPPROTO_UDP)
		at += sizeof(struct udphdr);
	else if (proto != IPPROTO_ESP)
		return false;
	read_words(how, word, ip + at, sizeof(word), 4);
	*spi = bpf_ntohl(word[0]);
	*seq = bpf_ntohl(word[1]);
	return true;
}

/* Every packet that this machine sends passes here; hardly any other than xfrm's is in the table. */
static __always_inline int on_sent(enum way how, struct sk_buff *skb, __u8 family)
{
	struct packet_head h = { .point = PACKET_LINK, .dir = DIR_OUT, .flags = PACKET_FLAG_SEQ };
	struct passing *p;
	__u64 at = (__u64)skb;
	__u32 zero = 0, spi, seq;
	bool own = true;

	p = bpf_map_lookup_elem(&passing_out, &at);
	if (!p) {
		own = false;
		p = bpf_map_lookup_elem(&cutting, &zero);
		if (!p || !p->spi)
			return 0;
	}
	if (!sent_numbers(how, skb, family, &spi, &seq) || p->spi != spi)
		goto out;
	h.time_ns = bpf_ktime_get_ns();
	if (h.time_ns - p->time_ns > STALE_NS)
		goto out;
	h.spi = spi;
	h.seq = seq;
	h.cookie = p->cookie;
	packet_put(&h, packet_count_of(0, PACKET_LINK), NULL, FROM_MEMORY, 0);
out:
	if (own)
		bpf_map_delete_elem(&passing_out, &at);
	return 0;
}

/* Which packet before encryption this was. */
static __always_inline void recall_cookie(struct packet_head *h, struct sk_buff *skb)
{
	__u64 key = (__u64)skb;
	struct passing *p = bpf_map_lookup_elem(&passing_out, &key);

	if (p && p->spi == h->spi && h->time_ns - p->time_ns <= STALE_NS)
		h->cookie = p->cookie;
}

/* What the stack programs have just said about this packet, and the end of the note. */
static __always_inline bool recall_cause(struct packet_head *h, struct sk_buff *skb)
{
	__u32 zero = 0;
	struct claim_mark *e = bpf_map_lookup_elem(&claimed_skb, &zero);

	if (!e || e->explained != (__u64)skb)
		return false;
	e->explained = 0;
	h->cause = e->cause;
	h->dir = e->dir;
	h->top = e->top;
	h->distance = e->distance;
	if (e->seq) {
		h->seq = e->seq;
		h->flags |= PACKET_FLAG_SEQ;
	}
	if (!h->spi)
		h->spi = e->spi;
	h->flags |= PACKET_FLAG_CAUSE;
	return true;
}

static __always_inline void name_outer(struct packet_head *h, const struct drop_key *key)
{
	h->family = key->family;
	h->proto = key->proto;
	h->spi = key->spi;
	__builtin_memcpy(h->dst, key->dst, sizeof(h->dst));
	__builtin_memcpy(h->src, key->src, sizeof(h->src));
}

SEC("raw_tp/kfree_skb")
int packet_drop(struct bpf_raw_tracepoint_args *ctx)
{
	struct sk_buff *skb = AT(CAST, struct sk_buff, ctx->args[0]);
	struct packet_head h = { .point = PACKET_DROP };
	struct xfrm_state *x = sa_received(CAST, skb), *sending = NULL;
	struct drop_key key = {};
	struct standing at = {};
	struct packet_count *c;
	struct net *net;
	bool outer;

	outer = read_outer(CAST, &key, skb);
	/* With crypto offload a packet to be sent has its SA there too, behind an ESP header. */
	if (x && !(outer && key.spi == bpf_ntohl(FIELD_AT(CAST, x, id.spi)))) {
		name_sa(CAST, &h, x, DIR_IN);
		h.flags |= PACKET_FLAG_DECRYPTED;
		outer = false;
	} else if (outer) {
		name_outer(&h, &key);
	} else {
		sending = sa_sending(CAST, skb);
		if (sending)
			name_sa(CAST, &h, sending, DIR_OUT);
	}
	if (!recall_cause(&h, skb) && !x && !outer && !sending)
		return 0;
	net = skb_netns(CAST, skb);
	if (!net && x)
		net = FIELD_AT(CAST, x, xs_net.net);
	else if (!net && sending)
		net = FIELD_AT(CAST, sending, xs_net.net);
	if ((net && net != target_net) || packet_type(CAST, skb) == PACKET_OTHER)
		return 0;
	h.time_ns = bpf_ktime_get_ns();
	read_standing(CAST, skb, h.family ? h.family : 4, &at);
	h.ifindex = at.at ? at.at : at.out ? at.out : at.iif;
	if (outer && !(h.flags & PACKET_FLAG_CAUSE))
		h.dir = is_outbound(&at) ? DIR_OUT : DIR_IN;
	if (!(h.flags & PACKET_FLAG_SEQ))
		recall_number(&h, skb);
	if (h.dir == DIR_OUT)
		recall_cookie(&h, skb);
	h.location = ctx->args[1];
	h.reason = cfg_has_reason ? (__u32)ctx->args[2] : 0;
	c = packet_count_of(0, PACKET_DROP);
	if (c)
		c->seen++;
	if (!packet_chosen(&h))
		return 0;
	if (!(cfg_only & (PACKET_ONLY_ALL | PACKET_ONLY_DROPS)) && !packet_picked(&h))
		return 0;
	if (c)
		c->matched++;
	packet_from_stack(CAST, &h, c, skb, outer);
	return 0;
}

ON_ENTRY(xfrm_input, begin, on_begin(how, skb, nexthdr, encap_type), struct sk_buff *skb, int nexthdr,
	 __u32 spi, int encap_type)
ON_ENTRY(gro_cells_receive, decrypted, on_decrypted(how, skb, false), void *cells, struct sk_buff *skb)
ON_ENTRY(xfrm4_transport_finish, decrypted4, on_decrypted(how, skb, true), struct sk_buff *skb)
ON_ENTRY(xfrm6_transport_finish, decrypted6, on_decrypted(how, skb, true), struct sk_buff *skb)
ON_ENTRY(xfrm_output, plain, on_plain(how, skb), struct sock *sk, struct sk_buff *skb)
ON_ENTRY(__ip_local_out, sent, on_sent(how, skb, 4), struct net *net, struct sock *sk, struct sk_buff *skb)
ON_ENTRY(__ip6_local_out, sent6, on_sent(how, skb, 6), struct net *net, struct sock *sk, struct sk_buff *skb)

/* For BPF_PROG_TEST_RUN only: a packet's address, and whether its SA is one of transport mode. */
SEC("raw_tp")
int decrypted_skb(struct bpf_raw_tracepoint_args *ctx)
{
	return on_decrypted(CAST, AT(CAST, struct sk_buff, ctx->args[0]), ctx->args[1]);
}
