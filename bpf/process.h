/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Which processes are traced, and as which executable. */
#pragma once

#include "config.h"
#include "counters.h"

/* OpenTelemetry's samplers. SAMPLER_PARENT_BASED is added where a parent's decision counts first. */
enum sampler {
	SAMPLER_ALWAYS_OFF,
	SAMPLER_ALWAYS_ON,
	SAMPLER_RATIO,
	SAMPLER_PARENT_BASED = 1 << 7,
};

struct process {
	__u64
	    id; /* unique over the life of the agent, where a tgid may come again: the time at which it was met, ns */
	__u64 ratio; /* SAMPLER_RATIO: sampled where the low half of the trace id is below this, of 2^64 */
	__u32 slot; /* the executable: index into every array of layouts */
	enum sampler sampler;
	__u32 wanted; /* 0: its file is attached for others' sake */
	__u32 headers; /* those that its spans shall have: a set (header_sets.h); 0: none */
	__u64 libraries_off; /* the library_bit of each library that is not traced in this process */
};

/* Where fields lie in each executable: an entry for each, by struct process.slot. */
#define LAYOUTS(name, layout)                                                                                        \
	struct {                                                                                                     \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                                    \
		__uint(max_entries, 256);                                                                            \
		__type(key, __u32);                                                                                  \
		__type(value, layout);                                                                               \
	} name SEC(".maps")

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, __u32); /* tgid, as the agent sees it */
	__type(value, struct process);
} processes SEC(".maps");

/* The thread group that runs now, by the number that it has in the agent's pid namespace; 0 where it has none. */
static __always_inline __u32 current_tgid(void)
{
	if (pid_namespace_ino) {
		struct bpf_pidns_info here = {};

		if (bpf_get_ns_current_pid_tgid(pid_namespace_dev, pid_namespace_ino, &here, sizeof(here)))
			return 0;
		return here.tgid;
	}
	return bpf_get_current_pid_tgid() >> 32;
}
