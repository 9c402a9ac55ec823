/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The processes that hit probes again and again, each at a place that its number tells: a look there costs a third of one
 * in the hash map, which every hit would need.
 *
 * A place is claimed by the first process that comes, and stays its own until that ends or becomes another program: then
 * there is no other thread of it left to run a program here. So nobody else writes while a hit makes use of it. What the
 * agent changes meanwhile makes all of them stale: their own processes then fill them again. */
#pragma once

#include "go.h"

struct cached_process {
	__u64 seal; /* over all that follows: it may be filled by one thread while another one reads it */
	__u64 changes; /* how often the agent had changed something by then */
	__u32 tgid; /* 0: nobody's */
	__u32 claims; /* 1: it is somebody's */
	struct process process;
	struct runtime_layout go; /* of its executable: beside it, as every hit needs both */
};

#define CACHED_PROCESSES 16384 /* a power of two */
#define PROCESS_PLACES	 8 /* from the first one on that a process may have, as others may have those before */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CACHED_PROCESSES);
	__type(key, __u32);
	__type(value, struct cached_process);
} process_cache SEC(".maps");

/* How often the agent has changed, or taken away, an entry of `processes`. It counts when it has done so. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} process_changes SEC(".maps");

static __always_inline struct cached_process *process_at(__u32 place)
{
	place &= CACHED_PROCESSES - 1;
	return bpf_map_lookup_elem(&process_cache, &place);
}

static __always_inline const volatile __u64 *agent_changes(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&process_changes, &zero);
}

static __always_inline __u64 process_seal(const struct cached_process *cached)
{
	const any_u64 *words = (const any_u64 *)&cached->process, *go = (const any_u64 *)&cached->go;

	_Static_assert(sizeof(cached->process) == 5 * sizeof(*words), "all of its words are sealed");
	_Static_assert(sizeof(cached->go) == 4 * sizeof(*words), "all of its words are sealed");
	return cached->changes * 0x9e3779b97f4a7c15ULL + cached->tgid * 0xbf58476d1ce4e5b9ULL +
	       words[0] * 0x94d049bb133111ebULL + words[1] * 0xd6e8feb86659fd93ULL +
	       words[2] * 0xff51afd7ed558ccdULL + words[3] * 0xc4ceb9fe1a85ec53ULL +
	       words[4] * 0x8ebc6af09c88c6e3ULL + go[0] * 0xd1342543de82ef95ULL + go[1] * 0xda942042e4dd58b5ULL +
	       go[2] * 0xaef17502108ef2d9ULL + go[3] * 0xf1357aea2e62a9c5ULL;
}

/* Make a place a process's own, if it is nobody's. */
static __always_inline bool process_claim(struct cached_process *cached, __u32 tgid)
{
	if (cached->tgid)
		return cached->tgid == tgid;
	/* Of several that come at a time none may see that it is the only one. */
	__sync_fetch_and_add(&cached->claims, 1);
	if (*(volatile __u32 *)&cached->claims != 1) {
		__sync_fetch_and_add(&cached->claims, -1);
		return false;
	}
	cached->tgid = tgid;
	return true;
}

/* Bring a process that is traced to its place; CACHED_PROCESSES where it is not traced, or there is none. A global
 * function, which the verifier goes through once. */
__noinline __u32 process_bring(__u32 tgid)
{
	const volatile __u64 *changes = agent_changes();
	const struct runtime_layout *go;
	const struct process *process;
	__u64 before;

	if (!changes)
		return CACHED_PROCESSES;
	before = *changes; /* before the look: what is changed after it makes this stale */
	process = bpf_map_lookup_elem(&processes, &tgid);
	if (!process || !process->wanted || !(go = bpf_map_lookup_elem(&runtime_layouts, &process->slot)))
		return CACHED_PROCESSES;
	for (__u32 i = 0; i < PROCESS_PLACES; i++) {
		struct cached_process *cached = process_at(tgid + i);

		if (!cached)
			break;
		if (!process_claim(cached, tgid))
			continue;
		cached->changes = before;
		cached->process = *process;
		cached->go = *go;
		cached->seal = process_seal(cached);
		return (tgid + i) & (CACHED_PROCESSES - 1);
	}
	return CACHED_PROCESSES;
}

/* A process ends, or becomes another program: its places are free. */
static __always_inline void process_forget(__u32 tgid)
{
	for (__u32 i = 0; i < PROCESS_PLACES; i++) {
		struct cached_process *cached = process_at(tgid + i);

		if (!cached || cached->tgid != tgid)
			continue;
		cached->seal = 0;
		cached->tgid = 0;
		__sync_fetch_and_add(&cached->claims, -1);
	}
}

/* NULL, and counted, where the process is not traced. */
static __always_inline const struct cached_process *process_of(__u32 tgid)
{
	__u32 place = tgid & (CACHED_PROCESSES - 1);
	const struct cached_process *cached = process_at(place);
	const volatile __u64 *changes = agent_changes();

	if (!cached || !changes)
		return NULL;
	/* One jump, not three: each would have the verifier go through all that follows. For the same reason there is one way
	 * on from here, which looks for the place once more. */
	if (unlikely((cached->tgid ^ tgid) | (cached->changes ^ *changes) | (cached->seal ^ process_seal(cached))))
		place = process_bring(tgid);
	cached = bpf_map_lookup_elem(&process_cache, &place);
	if (unlikely(!cached))
		count(COUNTER_PROCESSES_UNKNOWN);
	return cached;
}
