/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Entries of maps that are too large for the stack. */
#pragma once

#include "kernel.h"

/* What new entries are made from: zeros, which nobody writes to. */
#define EMPTY_ENTRY(name, entry)                                                                                     \
	struct {                                                                                                     \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                                    \
		__uint(max_entries, 1);                                                                              \
		__type(key, __u32);                                                                                  \
		__type(value, entry);                                                                                \
	} name SEC(".maps")

/* The entry of `map` at `key`, made from that of `empty` where there was none; NULL where there is no room. */
static __always_inline void *find_or_add(void *map, void *empty, const void *key)
{
	void *found = bpf_map_lookup_elem(map, key);
	__u32 zero = 0;
	void *zeros;

	if (likely(found))
		return found;
	zeros = bpf_map_lookup_elem(empty, &zero);
	if (!zeros)
		return NULL;
	bpf_map_update_elem(map, key, zeros, BPF_ANY);
	return bpf_map_lookup_elem(map, key);
}
