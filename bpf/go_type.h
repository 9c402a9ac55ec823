/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Names of types, such as *net.OpError, of values in interfaces. For what is rare, such as errors: it takes some reads. */
#pragma once

#include "span.h"
#include "text.h"

#define TYPE_NAME_MAX 64

/* Eight characters as the word that they make in memory. */
#define EIGHT(a, b, c, d, e, f, g, h)                                                                                \
	((__u64)(a) | (__u64)(b) << 8 | (__u64)(c) << 16 | (__u64)(d) << 24 | (__u64)(e) << 32 | (__u64)(f) << 40 |  \
	 (__u64)(g) << 48 | (__u64)(h) << 56)

/* Is this a name of that length which begins so? Not counted where it cannot be read. */
static __always_inline bool begins_with(const struct go_string *string, __u64 length, __u64 first)
{
	__u64 word = 0;

	return string->length == length && !bpf_probe_read_user(&word, sizeof(word), (const void *)string->data) &&
	       word == first;
}

/* The part of a type's descriptor from byte 16 on (internal/abi/type.go, and runtime/type.go before Go 1.21). */
struct go_type {
	__u32 hash;
	__u8 flags, align, field_align, kind;
	__u64 equal, gc_data;
	__s32 name; /* from the first of all descriptors: a byte of flags, the length in one byte or two, the name */
};

#define TYPE_EXTRA_STAR 2 /* in flags: the name begins with a star that is not a part of it */

/* Where the program's code begins in memory. */
static __always_inline __u64 code_start(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	return BPF_CORE_READ(task, mm, start_code);
}

/* The type's name, where it lies; empty where it is none. Not counted where it cannot be read: what is not known to be a
 * type is looked at as well. */
static __always_inline struct go_string type_name(const struct hit *hit, __u64 type)
{
	__u64 types = code_start() + hit->go->types;
	struct go_string name = {};
	struct go_type head = {};
	__u8 prefix[3] = {};

	if (hit->go->types == ~0ULL || (__s64)type <= 4096 ||
	    bpf_probe_read_user(&head, sizeof(head), (const void *)(type + 16)) || head.name <= 0 ||
	    bpf_probe_read_user(prefix, sizeof(prefix), (const void *)(types + head.name)))
		return name;
	name.data = types + head.name + 2;
	name.length = prefix[1];
	if (prefix[1] & 0x80) {
		name.data++;
		name.length = (prefix[1] & 0x7f) | prefix[2] << 7;
	}
	if (head.flags & TYPE_EXTRA_STAR && name.length) {
		name.data++;
		name.length--;
	}
	return name;
}

/* The same of a value in an interface with methods, such as error; `itab` is the interface's first word. */
static __always_inline struct go_string dynamic_type_name(const struct hit *hit, __u64 itab)
{
	struct go_string none = {};
	__u64 type = 0;

	if ((__s64)itab <= 4096 || bpf_probe_read_user(&type, sizeof(type), (const void *)(itab + 8)))
		return none;
	return type_name(hit, type);
}
