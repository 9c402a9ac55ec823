/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The headers that spans and contexts are made of, and how a name is told to be one of theirs. */
#pragma once

#include "kernel.h"

/* The headers that are looked for. */
enum http_header {
	HEADER_TRACEPARENT,
	HEADER_TRACESTATE,
	HEADER_USER_AGENT,
	HEADER_FORWARDED,
	HEADER_FORWARDED_FOR,
	HEADER_FORWARDED_HOST,
	HEADER_FORWARDED_PROTO,
	HEADER_HTTP2_SETTINGS,
	HEADERS, /* a power of two: it is a mask as well */
};

#define HEADER_NAME_MAX 24

union header_text {
	char bytes[HEADER_NAME_MAX];
	__u64 words[HEADER_NAME_MAX / 8];
};

struct header_name {
	__u64 length;
	union header_text text;
	__u64 header; /* enum http_header */
};

/* Where a name stands in the table, from its length and first letter: no two of ours meet, so one comparison tells.
 * (Two that met would be a compiler's error: -Winitializer-overrides.) The two cases of a
 * letter have the same place, as they are a multiple of the table's size apart. */
#define HEADER_SLOTS		   32
#define HEADER_SLOT(length, first) (((length) * 5 + (first)) % HEADER_SLOTS)
#define HEADER(first, name, what)  [HEADER_SLOT(sizeof(name) - 1, first)] = {sizeof(name) - 1, {{name}}, what}

static const struct header_name header_table[HEADER_SLOTS] = {
    HEADER('T', "Traceparent", HEADER_TRACEPARENT),
    HEADER('T', "Tracestate", HEADER_TRACESTATE),
    HEADER('U', "User-Agent", HEADER_USER_AGENT),
    HEADER('F', "Forwarded", HEADER_FORWARDED),
    HEADER('X', "X-Forwarded-For", HEADER_FORWARDED_FOR),
    HEADER('X', "X-Forwarded-Host", HEADER_FORWARDED_HOST),
    HEADER('X', "X-Forwarded-Proto", HEADER_FORWARDED_PROTO),
    HEADER('H', "Http2-Settings", HEADER_HTTP2_SETTINGS),
};

/* The lengths that occur in the table, one bit each: most headers need no closer look. */
#define HEADER_LENGTHS	  (1U << 9 | 1 << 10 | 1 << 11 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 17)
#define TRACEPARENT_NAMES (1U << 11) /* those as long as its */
#define TRACESTATE_NAMES  (1U << 10)

/* Which of the headers has this name; HEADERS where none has. */
static __always_inline __u32 header_of(const union header_text *name, __u64 length)
{
	__u32 slot = HEADER_SLOT((__u32)length, (__u8)name->bytes[0]);
	const struct header_name *known = &header_table[slot];
	/* In any letter case, which is one bit of a letter: names are canonical in an http.Header, and lower-case in the
	 * metadata of grpc. */
	__u64 differs = ((known->text.words[0] ^ name->words[0]) | (known->text.words[1] ^ name->words[1]) |
			 (known->text.words[2] ^ name->words[2])) &
			~0x2020202020202020ULL;

	return differs || known->length != length ? HEADERS : known->header;
}
