/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What is counted in the kernel. No loss goes without one of these. */
#pragma once

#include "kernel.h"

enum counter {
	COUNTER_SPANS_STARTED, /* sampled ones */
	COUNTER_SPANS_ENDED,
	COUNTER_SPANS_ABANDONED, /* started again on the same goroutine before the end was seen */
	COUNTER_SPANS_EVICTED, /* at its end a span's details were gone: more in flight than the maps hold */
	COUNTER_SPANS_TOO_DEEP, /* more open spans on one goroutine than its stack holds */
	COUNTER_RECORDS_SUBMITTED,
	COUNTER_RECORDS_LOST, /* the ring or perf buffer was full */
	COUNTER_READS_FAILED, /* the target's memory could not be read (not resident, or not what we took it for) */
	COUNTER_HEADERS_UNREAD, /* requests with more headers than are looked at, or more of them at a time */
	COUNTER_HEADER_LINES_LEFT_OUT, /* lines of headers wanted in spans: too many, or no room in the record */
	COUNTER_TEXTS_CUT, /* strings longer than a record has room for */
	COUNTER_PROCESSES_UNKNOWN, /* hits by processes that the agent has not met yet, or does not want */
	COUNTER_CONTEXTS_WRITTEN, /* trace contexts that went out in a request */
	COUNTER_CONTEXTS_NOTED, /* trace contexts that wait for the other end of a connection on this machine */
	COUNTER_CONTEXTS_JOINED, /* requests whose other end was found so */
	/* Trace contexts that were not written: */
	COUNTER_CONTEXTS_OWN_HEADER, /* the program sends one itself */
	COUNTER_CONTEXTS_NO_ROOM, /* there is none left in the connection's buffer */
	COUNTER_CONTEXTS_SHARED_HEADER, /* requests at a time with one and the same header map can't be told apart */
	COUNTER_CONTEXTS_UNKNOWN_REQUEST, /* no open client span is known to belong to the request */
	COUNTER_CONTEXTS_COMPRESSED, /* messages in a batch that is compressed as it is written */
	COUNTER_CONTEXTS_WRITE_FAILED, /* the buffer's memory is not there, or not writable */
	COUNTER_MAX,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTER_MAX);
	__type(key, __u32); /* enum counter */
	__type(value, __u64);
} counters SEC(".maps");

/* A global function, which the verifier goes through once: what goes wrong, nearly anywhere, is counted, and would double
 * the ways through all that follows. */
__noinline int count(__u32 what)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &what);

	/* Atomic, although it is this processor's own: on preemptible kernels from 6.0 another goroutine's thread may run
	 * a program in the middle of this one. */
	if (value)
		__sync_fetch_and_add(value, 1);
	return 0;
}

/* Makes the enumeration part of the object's BTF, where the agent reads its names. */
const volatile enum counter counter_names = COUNTER_MAX;
