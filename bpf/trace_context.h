/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* W3C Trace Context: reading a `traceparent` (https://www.w3.org/TR/trace-context/), and ids of our own. */
#pragma once

#include "kernel.h"

#define TRACEPARENT_LENGTH 55 /* version-traceid-parentid-flags: 2 + 1 + 32 + 1 + 16 + 1 + 2 */
#define TRACE_FLAG_SAMPLED 0x01

struct trace_context {
	__u8 trace_id[16];
	__u8 span_id[8];
	__u8 flags;
} __attribute__((aligned(8)));

/* A header's value, where it is read to be parsed. The pad brings the trace id to a place where eight digits can be
 * loaded at once. */
struct traceparent {
	char pad[5];
	char version[2], dash_1, trace_id[32], dash_2, parent_id[16], dash_3, flags[2];
	char next; /* there only in versions later than 00 */
} __attribute__((aligned(8)));

/* Eight lower-case hexadecimal digits, first digit in the lowest byte, to four bytes, first byte in the lowest. All
 * eight at once: `bad` collects a bit wherever a character is not such a digit. */
static __always_inline __u32 hex_to_bytes(__u64 digits, __u64 *bad)
{
	const __u64 ones = 0x0101010101010101ULL;
	__u64 letter = (digits >> 6) & ones;
	__u64 nibbles = (digits & (ones * 0x0f)) + letter * 9;
	__u64 above_nine = ((nibbles + ones * 6) >> 4) & ones;

	/* What encodes back to the same characters was right. */
	*bad |= (nibbles & (ones * 0xf0)) | ((nibbles + ones * '0' + above_nine * ('a' - '9' - 1)) ^ digits);
	nibbles = ((nibbles << 4) | (nibbles >> 8)) & 0x00ff00ff00ff00ffULL;
	nibbles = (nibbles | (nibbles >> 8)) & 0x0000ffff0000ffffULL;
	return nibbles | (nibbles >> 16);
}

static __always_inline __u64 load_u64(const char *from)
{
	return *(const any_u64 *)from;
}

/* `length` is that of the header's value. A version later than 00 may be longer, if a dash follows. */
static __always_inline bool traceparent_parse(const struct traceparent *text, __u64 length, struct trace_context *to)
{
	__u32 trace_id[4], parent_id[2], version_and_flags;
	__u64 bad = 0;

	if (length < TRACEPARENT_LENGTH || text->dash_1 != '-' || text->dash_2 != '-' || text->dash_3 != '-')
		return false;
#pragma unroll
	for (int i = 0; i < 4; i++)
		trace_id[i] = hex_to_bytes(load_u64(text->trace_id + i * 8), &bad);
#pragma unroll
	for (int i = 0; i < 2; i++)
		parent_id[i] = hex_to_bytes(load_u64(text->parent_id + i * 8), &bad);
	/* Version and flags, two digits each, and four zeros to make it eight. */
	version_and_flags = hex_to_bytes((__u64)(__u8)text->version[0] | (__u64)(__u8)text->version[1] << 8 |
					     (__u64)(__u8)text->flags[0] << 16 | (__u64)(__u8)text->flags[1] << 24 |
					     0x3030303000000000ULL,
					 &bad);
	if (bad || (version_and_flags & 0xff) == 0xff || !(trace_id[0] | trace_id[1] | trace_id[2] | trace_id[3]) ||
	    !(parent_id[0] | parent_id[1]))
		return false;
	if (length > TRACEPARENT_LENGTH && (!(version_and_flags & 0xff) || text->next != '-'))
		return false;
	__builtin_memcpy(to->trace_id, trace_id, sizeof(trace_id));
	__builtin_memcpy(to->span_id, parent_id, sizeof(parent_id));
	to->flags = version_and_flags >> 8;
	return true;
}

/* Four bytes to eight lower-case hexadecimal digits; the inverse of hex_to_bytes. */
static __always_inline __u64 bytes_to_hex(__u32 bytes)
{
	const __u64 ones = 0x0101010101010101ULL;
	__u64 nibbles = bytes;
	__u64 above_nine;

	nibbles = (nibbles | (nibbles << 16)) & 0x0000ffff0000ffffULL;
	nibbles = (nibbles | (nibbles << 8)) & 0x00ff00ff00ff00ffULL;
	nibbles = ((nibbles >> 4) & (ones * 0x0f)) | ((nibbles << 8) & 0x0f000f000f000f00ULL);
	nibbles &= ones * 0x0f;
	above_nine = ((nibbles + ones * 6) >> 4) & ones;
	return nibbles + ones * '0' + above_nine * ('a' - '9' - 1);
}

static __always_inline void hex_append(char *to, const __u8 *from, int size)
{
#pragma unroll
	for (int i = 0; i < size; i += 4) {
		__u32 bytes;
		__u64 digits;

		__builtin_memcpy(&bytes, from + i, sizeof(bytes));
		digits = bytes_to_hex(bytes);
		__builtin_memcpy(to + i * 2, &digits, sizeof(digits));
	}
}

/* Write the TRACEPARENT_LENGTH characters of a `traceparent`. */
static __always_inline void traceparent_format(char *to, const struct trace_context *context)
{
	to[0] = to[1] = '0';
	to[2] = '-';
	hex_append(to + 3, context->trace_id, sizeof(context->trace_id));
	to[35] = '-';
	hex_append(to + 36, context->span_id, sizeof(context->span_id));
	to[52] = '-';
	to[53] = '0';
	to[54] = '0' + (context->flags & TRACE_FLAG_SAMPLED);
}

/* Fill `size` bytes, a multiple of 4, with random bits: not all zero, which would be no id. */
static __always_inline void random_id(__u8 *to, int size)
{
#pragma unroll
	for (int i = 0; i < size; i += 4)
		*(any_u32 *)(to + i) = bpf_get_prandom_u32();
	to[size - 1] |= !to[0];
}

/* Give the first half of a trace's id, whose other half is there: random, or made from that where the trace is not sampled, as
 * nothing will ever be told of it here. */
static __always_inline void trace_id_complete(struct trace_context *context)
{
	any_u64 *trace_id = (any_u64 *)context->trace_id;

	if (context->flags & TRACE_FLAG_SAMPLED) {
		random_id(context->trace_id, sizeof(*trace_id));
		return;
	}
	trace_id[0] = trace_id[1] * 0x9e3779b97f4a7c15ULL;
	trace_id[0] ^= trace_id[0] >> 32;
}

/* A context of a trace that is not sampled, and of which nobody has told the ids. */
static __always_inline void context_make_up(struct trace_context *context)
{
	any_u64 *trace_id = (any_u64 *)context->trace_id, *span_id = (any_u64 *)context->span_id;

	context->flags = 0;
	random_id(context->trace_id + 8, sizeof(*trace_id));
	trace_id_complete(context);
	*span_id = trace_id[0] * 0xbf58476d1ce4e5b9ULL;
}
