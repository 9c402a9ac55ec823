/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Records: what the programs send to the agent. A header, the library's struct, and its texts packed behind. */
#pragma once

#include "config.h"
#include "counters.h"

enum record_flags {
	RECORD_REMOTE_PARENT = 1 << 0, /* the parent came with the request, from outside */
	RECORD_UNFINISHED = 1 << 1, /* the operation did not return: it panicked, or its goroutine exited */
	SPAN_REPLACED = 1 << 2, /* never in a record: another library's span stands for this one */
	SPAN_DATABASE = 1 << 3, /* of database/sql: what the driver does for it is no span of its own */
};

struct record_header {
	__u16 kind; /* which struct follows: the number that the agent gave it */
	__u16 length; /* of the whole record, bytes */
	__u32 tgid;
	__u32 slot; /* the executable */
	enum record_flags flags;
	__u64 process; /* struct process.id */
	__u64 start; /* CLOCK_MONOTONIC, ns */
	__u64 end;
	__u8 trace_id[16];
	__u8 span_id[8];
	__u8 parent_id[8]; /* zero: no parent */
};

/* Declares a record: the number that the agent gives it, and its type, which is in the object's BTF only if a variable
 * refers to it. */
#define RECORD(name)                                                                                                 \
	const volatile __u16 name##_kind = 0;                                                                        \
	const struct name *const volatile name##_type = NULL

/* A string in a record: where it lies, from the record's first byte. */
struct text {
	__u16 offset;
	__u16 length; /* bytes that are there; TEXT_CUT is added where the string was longer */
};

#define TEXT_CUT 0x8000

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} records SEC(".maps");

#define WAKEUP_BAND 4096 /* bytes beyond wakeup_bytes; longer than any record, so that none leaps over it */

/* Send `length` bytes of `record`. Without a wake-up, which would cost more than all the rest (docs/performance.md):
 * the agent drains on a timer, and is woken only for `urgent` records and when the ring fills. */
static __always_inline void submit(void *ctx, void *record, __u64 length, bool urgent)
{
	long error;

	if (use_ring_buffer) {
		__u64 waiting = urgent ? 0 : bpf_ringbuf_query(&records, BPF_RB_AVAIL_DATA);
		__u64 flags = BPF_RB_NO_WAKEUP;

		/* Once and again as so much more waits, and not by each record from there on: of an agent that has no
		 * processor to run on, nothing comes sooner by more wake-ups. */
		if (urgent || (waiting >= wakeup_bytes && (waiting & (wakeup_bytes - 1)) < WAKEUP_BAND))
			flags = BPF_RB_FORCE_WAKEUP;
		error = bpf_ringbuf_output(&records, record, length, flags);
	} else {
		error = bpf_perf_event_output(ctx, &records, BPF_F_CURRENT_CPU, record, length);
	}
	count(error ? COUNTER_RECORDS_LOST : COUNTER_RECORDS_SUBMITTED);
}

/* Send a record that was filled up to its header's length, if that is within its `room` (a constant): where the compiler
 * has proved so by itself, the verifier has not. */
static __always_inline void record_submit(void *ctx, struct record_header *record, __u64 room)
{
	__u64 length = record->length;

	asm volatile("" : "+r"(length));
	if (length <= room)
		submit(ctx, record, length, false);
}
