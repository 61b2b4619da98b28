/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets on the wire, at TC. The parser is the wire program's; what it found is put down in a map, so
 * that the function which copies is verified once and not once for each way through the parser.
 */
#ifndef XFRMSCOPE_PACKET_WIRE_H
#define XFRMSCOPE_PACKET_WIRE_H

#include "packet_order.h"
#include "packet_ring.h"
#include "parse.h"

/* See PULL_BYTES of tc.h. */
#define PACKET_PULL 256

struct packet_note {
	struct packet_head head;
	__u32 ip_at;
	__u32 headers; /* where they end */
};

/* TC programs run with bottom halves disabled, so none interrupts another on its CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct packet_note);
} packet_notes SEC(".maps");

#define WHY_BIT(why) (1U << (why))
/* Broken packets of IPsec are wanted as well; which SA they are of is not known. */
#define WHY_WANTED                                                                         \
	(WHY_BIT(WHY_ESP) | WHY_BIT(WHY_ESP_UDP) | WHY_BIT(WHY_AH) | WHY_BIT(WHY_BAD_AH) | \
	 WHY_BIT(WHY_BAD_UDP) | WHY_BIT(WHY_ESP_SHORT) | WHY_BIT(WHY_NATT_SHORT))
#define ESP_IV_SHOWN 16

/* The packet that was put down, by its addresses, its order and the filter, into the ring. */
__noinline int packet_note_put(struct __sk_buff *skb)
{
	__u32 zero = 0, at, only;
	struct packet_note *n = bpf_map_lookup_elem(&packet_notes, &zero);
	struct packet_count *c;
	struct packet_head *h;
	__u64 want;

	if (!n)
		return 0;
	h = &n->head;
	at = n->ip_at;
	if (h->family == 4) {
		h->dst[10] = h->src[10] = 0xff;
		h->dst[11] = h->src[11] = 0xff;
		bpf_skb_load_bytes(skb, at + 12, h->src + 12, 4);
		bpf_skb_load_bytes(skb, at + 16, h->dst + 12, 4);
	} else if (h->family == 6) {
		bpf_skb_load_bytes(skb, at + 8, h->src, 16);
		bpf_skb_load_bytes(skb, at + 24, h->dst, 16);
	}
	c = packet_count_of(h->ifindex, h->point);
	if (c)
		c->seen++;
	/* Judged whether it is wanted or not: who comes late is told by those before. */
	if (h->flags & PACKET_FLAG_SEQ)
		order_judge(h);
	if (!packet_chosen(h))
		return 0;
	only = PACKET_ONLY_ALL;
	if (h->order == ORDER_LATE || h->order == ORDER_OUTSIDE)
		only |= PACKET_ONLY_LATE;
	if (h->order == ORDER_DUPLICATE)
		only |= PACKET_ONLY_DUPLICATE;
	if (!(cfg_only & only))
		return 0;
	if (!(cfg_only & PACKET_ONLY_ALL)) {
		struct picked_key key = { .spi = h->spi, .seq = h->seq };
		__u8 one = 1;

		bpf_map_update_elem(&picked_packets, &key, &one, BPF_ANY);
	}
	if (c)
		c->matched++;
	h->time_ns = bpf_ktime_get_ns();
	h->wire_len = skb->len;
	want = cfg_snaplen ? cfg_snaplen : n->headers;
	if (want > skb->len)
		want = skb->len;
	packet_put(h, c, skb, FROM_FRAME, want);
	return 0;
}

static __always_inline bool packet_look(struct __sk_buff *skb, enum packet_point point, bool l3, bool last)
{
	struct cursor c = {
		.data = (void *)(long)skb->data,
		.end = (void *)(long)skb->data_end,
		.limit = skb->len,
		.ctx = skb,
	};
	struct packet_note *n;
	struct view v = {};
	__u32 zero = 0;
	enum why why;

	why = l3 ? parse_l3(&c, &v) : parse_eth(&c, &v, skb->vlan_present ? 1 : 0);
	if (!last && c.cut)
		return false;
	if (why > WHY_MAX || !(WHY_BIT(why) & WHY_WANTED))
		return true;
	n = bpf_map_lookup_elem(&packet_notes, &zero);
	if (!n)
		return true;
	__builtin_memset(n, 0, sizeof(*n));
	n->ip_at = v.ip_at;
	n->headers = c.at + ESP_IV_SHOWN;
	n->head.point = point;
	n->head.dir = point == PACKET_WIRE_OUT ? DIR_OUT : DIR_IN;
	n->head.class = why;
	n->head.family = v.family;
	n->head.ifindex = skb->ifindex;
	n->head.proto = why == WHY_AH || why == WHY_BAD_AH ? IPPROTO_AH : IPPROTO_ESP;
	if (why == WHY_ESP || why == WHY_ESP_UDP) {
		n->head.spi = v.spi;
		n->head.seq = v.seq;
		n->head.flags = PACKET_FLAG_SEQ | (why == WHY_ESP_UDP ? PACKET_FLAG_UDP : 0);
	}
	packet_note_put(skb);
	return true;
}

/* Headers in pages are pulled into the linear part, which moves bytes and changes none (tc.h). */
static __always_inline int packet_at_tc(struct __sk_buff *skb, enum packet_point point, bool l3)
{
	if (packet_look(skb, point, l3, false))
		return TCX_NEXT;
	bpf_skb_pull_data(skb, skb->len < PACKET_PULL ? skb->len : PACKET_PULL);
	packet_look(skb, point, l3, true);
	return TCX_NEXT;
}

SEC("tcx/ingress")
int packet_ingress(struct __sk_buff *skb)
{
	return packet_at_tc(skb, PACKET_WIRE_IN, false);
}

SEC("tcx/egress")
int packet_egress(struct __sk_buff *skb)
{
	return packet_at_tc(skb, PACKET_WIRE_OUT, false);
}

SEC("tcx/ingress")
int packet_ingress_l3(struct __sk_buff *skb)
{
	return packet_at_tc(skb, PACKET_WIRE_IN, true);
}

SEC("tcx/egress")
int packet_egress_l3(struct __sk_buff *skb)
{
	return packet_at_tc(skb, PACKET_WIRE_OUT, true);
}

#endif
