/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the loader sets before it loads: constants in .rodata, so that the verifier removes the
 * branches of what is switched off.
 */
#ifndef XFRMSCOPE_CONFIG_H
#define XFRMSCOPE_CONFIG_H

#define NATT_PORTS 8

/*
 * 1: packets come from a capture file through BPF_PROG_TEST_RUN with a struct offline_meta in front
 * of them; time and wire length are taken from there and the direction is unknown.
 */
volatile const __u8 cfg_offline = 0;

/* UDP ports that carry ESP in UDP (RFC 3948), host byte order; 0 is unused. */
volatile const __u16 cfg_natt_ports[NATT_PORTS] = { 4500 };

/*
 * 1: find SAs by sa_hints first. Only for a loader whose user space writes 0 into the `used` of an SA
 * that it takes out of the table; otherwise packets of that SA go on into its old slot.
 */
volatile const __u8 cfg_hints = 0;

/* IKE headers that one CPU may report within a second, whatever the limit of other events is. */
volatile const __u32 cfg_ike_per_sec = 1000;

/*
 * Every packet whose number is a multiple of this power of two is marked: an event with its time (mark.h).
 * 0: none.
 */
volatile const __u32 cfg_marks = 0;

/* Events of one kind that one CPU may send within a second; the rest is counted as suppressed. */
volatile const __u32 cfg_events_per_sec = 1000;

#endif
