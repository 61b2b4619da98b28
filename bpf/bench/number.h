/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * BPF_PROG_TEST_RUN repeats one packet, and a packet that is repeated is a duplicate. So each program that
 * measures writes the next SPI and sequence number into it first, and beside it is one that does nothing
 * but that. Their difference is the cost.
 */
#ifndef XFRMSCOPE_BENCH_NUMBER_H
#define XFRMSCOPE_BENCH_NUMBER_H

enum order {
	ORDER_STRAIGHT, /* 1 2 3 4 */
	ORDER_SWAPPED,	/* 2 1 4 3: no packet on the straight path */
	ORDER_SHARED,	/* 1 2 3 4 over all CPUs */
	ORDER_TWICE,	/* 1 1 2 2 over all CPUs */
};

/* Where SPI and sequence number are in the frame; 0: leave it alone. */
volatile const __u32 cfg_esp_at = 0;
volatile const __u32 cfg_order = ORDER_STRAIGHT;
/* How many SAs take turns, and how far it is from one to the next: a number without common divisor. */
volatile const __u32 cfg_sas = 1;
volatile const __u32 cfg_stride = 1;

#define ESP_AT_MAX 128

__u64 next_seq = 2;
__u64 next_sa = 0;

static __always_inline void number(void *data, void *end)
{
	struct ip_esp_hdr *esp = data + cfg_esp_at;
	__u32 seq;

	if (!cfg_esp_at || cfg_esp_at > ESP_AT_MAX || (void *)(esp + 1) > end)
		return;
	if (cfg_order == ORDER_SHARED) {
		seq = __sync_fetch_and_add(&next_seq, 1);
	} else if (cfg_order == ORDER_TWICE) {
		seq = __sync_fetch_and_add(&next_seq, 1) / 2;
	} else {
		seq = next_seq;
		if (cfg_order == ORDER_SWAPPED)
			seq ^= 1;
		if (cfg_sas == 1) {
			next_seq++;
		} else {
			__u32 sa = next_sa;

			esp->spi = bpf_htonl(0x1000 + sa);
			sa += cfg_stride;
			if (sa >= cfg_sas)
				sa -= cfg_sas;
			next_sa = sa;
			if (!sa)
				next_seq++;
		}
	}
	esp->seq_no = bpf_htonl(seq);
}

#endif
