/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Which headers the spans of a process shall have: sets, to which processes refer by number (struct process.headers; 0:
 * none). The agent writes a set before it names it, and never changes one that is named. */
#pragma once

#include "kernel.h"

enum http_message {
	MESSAGE_REQUEST,
	MESSAGE_RESPONSE,
	MESSAGES,
};

struct header_set {
	__u64 lengths[MESSAGES]; /* of its names, a bit each: most headers need no closer look */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct header_set);
} header_sets SEC(".maps");

#define WANTED_NAME_MAX 48 /* bytes; fewer than there are bits in struct header_set.lengths */

/* A header of a set. */
struct wanted_header_key {
	__u32 set;
	enum http_message message;
	char name[WANTED_NAME_MAX]; /* in lower case: each byte, and those behind the name, have LOWER_CASE */
} __attribute__((aligned(8)));

#define LOWER_CASE     0x20
#define CAPTURED_LINES 4 /* of a header */

struct wanted_header {
	__u16 number; /* what records call the name */
	__u16 is_secret; /* its values are not read: only that they are there */
};

/* One that is in an http.Header. */
struct found_header {
	struct wanted_header wanted;
	__u64 lines, address; /* the []string */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2048);
	__type(key, struct wanted_header_key);
	__type(value, struct wanted_header);
} wanted_headers SEC(".maps");
