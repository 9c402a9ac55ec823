/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Go, as a probe sees it: argument registers, the current goroutine, strings, and where fields lie. */
#pragma once

#include "process.h"

/* The offset of a field of a Go struct, bytes. Each member of a layout is tagged with the field it stands for; the
 * agent reads the tags from this object's BTF, finds the offsets in the executable, and fills the layout. Several tags
 * on one member are alternatives: the first that the executable has, counts. */
typedef __u16 go_offset;

#define GO_UNKNOWN ((go_offset)0xffff) /* the executable has no such field: what depends on it is left out */
#define GO(field)  __attribute__((btf_decl_tag("go:" field)))
/* One property of a Swiss map's groups, as in GO_MAP("net/http.Header", "group_size"). */
#define GO_MAP(type, property) __attribute__((btf_decl_tag("go-map:" type ":" property)))

/* The distance of something from the start of the program's code, which is wherever it was loaded; bytes. */
#define GO_ADDRESS(what) __attribute__((btf_decl_tag("go-address:" what)))

/* A type of the program: the address of its description, bytes from the first one. What two of these differ by, the
 * addresses in memory differ by as well. */
typedef __u32 go_distance;

#define GO_DISTANCE_UNKNOWN ((go_distance) - 1)
#define GO_TYPE(type)	    __attribute__((btf_decl_tag("go-type:" type)))

/* An offset that must be this very version's, by the executable's own type information or by the table, and never a
 * neighbour's: programs write where it points, or are sure of something because of what they find there. */
#define GO_EXACT(field) __attribute__((btf_decl_tag("go-exact:" field)))

/* How many elements the array has that a field points to. */
#define GO_ARRAY_LENGTH(field) __attribute__((btf_decl_tag("go-array:length of " field)))

/* An address, as the linker gave it: a position-independent executable is loaded elsewhere (go_bias). */
typedef __u64 go_address;

#define GO_NOWHERE ((go_address)~0ULL) /* the executable has no such thing */
/* The itab that is the first word of an interface value: what tells the value's type. */
#define GO_ITAB(type, interface) __attribute__((btf_decl_tag("go-itab:" type " as " interface)))
/* Where the probe of a function is. */
#define GO_PLACE(symbol) __attribute__((btf_decl_tag("go-place:" symbol)))

/* Where a function gives up as its only call of another one has failed: bytes from the start of the program's code. */
#define GO_FAILURE(symbol, callee) __attribute__((btf_decl_tag("go-failure:" symbol " without " callee)))

/* Where a function keeps one of its arguments for as long as it runs: bytes from its stack pointer. The first word of what
 * it is given in registers is argument 1. */
#define GO_KEPT(symbol, argument) __attribute__((btf_decl_tag("go-kept:" symbol " argument " #argument)))

/* What every library needs. One entry for each executable. */
struct runtime_layout {
	go_offset g_goid GO("runtime.g.goid");
	go_offset g_parent_goid GO("runtime.g.parentGoid"); /* since Go 1.21 */
	go_offset g_waitreason GO("runtime.g.waitreason");
	go_offset g_m GO("runtime.g.m");
	go_offset m_p GO("runtime.m.p");
	go_offset p_goidcache GO("runtime.p.goidcache");
	go_offset p_goidcacheend GO("runtime.p.goidcacheend");
	go_offset g_panic GO("runtime.g._panic");
	go_offset g_stack_hi GO("runtime.g.stack.hi");
	__u64 types GO_ADDRESS("types");
};

LAYOUTS(runtime_layouts, struct runtime_layout);

/* ABIInternal's integer registers, in the order in which arguments are assigned to them; the goroutine; and the
 * closure context. cmd/compile/abi-internal.md; unchanged from Go 1.17 to 1.27. */
#if defined(__TARGET_ARCH_x86)
#define GO_ARG_1(ctx) ((ctx)->ax)
#define GO_ARG_2(ctx) ((ctx)->bx)
#define GO_ARG_3(ctx) ((ctx)->cx)
#define GO_ARG_4(ctx) ((ctx)->di)
#define GO_ARG_5(ctx) ((ctx)->si)
#define GO_ARG_6(ctx) ((ctx)->r8)
#define GO_ARG_7(ctx) ((ctx)->r9)
#define GO_ARG_8(ctx) ((ctx)->r10)
#define GO_ARG_9(ctx) ((ctx)->r11)
#define GO_G(ctx)     ((ctx)->r14)
#define GO_SP(ctx)    ((ctx)->sp)
#define GO_PC(ctx)    ((ctx)->ip)
#elif defined(__TARGET_ARCH_arm64)
#define GO_ARG_1(ctx) ((ctx)->regs[0])
#define GO_ARG_2(ctx) ((ctx)->regs[1])
#define GO_ARG_3(ctx) ((ctx)->regs[2])
#define GO_ARG_4(ctx) ((ctx)->regs[3])
#define GO_ARG_5(ctx) ((ctx)->regs[4])
#define GO_ARG_6(ctx) ((ctx)->regs[5])
#define GO_ARG_7(ctx) ((ctx)->regs[6])
#define GO_ARG_8(ctx) ((ctx)->regs[7])
#define GO_ARG_9(ctx) ((ctx)->regs[8])
#define GO_G(ctx)     ((ctx)->regs[28])
#define GO_SP(ctx)    ((ctx)->sp)
#define GO_PC(ctx)    ((ctx)->pc)
#endif

struct go_string {
	__u64 data;
	__u64 length;
};

/* An interface's second word points to the value, or is it where the value is a pointer. */
struct go_interface {
	__u64 type; /* of `any` the type's descriptor, of other interfaces an itab, whose second word is that */
	__u64 data;
};

/* Where an interface's second word lies, if the interface does at `offset`. */
#define GO_DATA_WORD(offset) ((go_offset)((offset) == GO_UNKNOWN ? GO_UNKNOWN : (offset) + 8))

struct go_slice {
	__u64 data;
	__u64 length;
	__u64 capacity;
};

/* Read `size` bytes of the target's memory; false, and counted, where that cannot be done. The address comes from the
 * target, so it is held to user space here too: on kernels before 5.5 libbpf puts bpf_probe_read() in this helper's
 * place, which would read the kernel's own memory. */
static __always_inline bool go_read(void *to, __u32 size, __u64 address)
{
	if (likely((__s64)address > 0 && !bpf_probe_read_user(to, size, (const void *)address)))
		return true;
	count(COUNTER_READS_FAILED);
	return false;
}

/* Write into the target's memory, in a process of which it has been proved that it expects nothing there. */
static __always_inline bool go_write(__u64 address, const void *from, __u32 size)
{
	return (__s64)address > 0 && !bpf_probe_write_user((void *)address, from, size);
}

/* Read the field at `offset` of the struct at `base`; false also where the offset or the struct is not there. */
static __always_inline bool go_read_field(void *to, __u32 size, __u64 base, go_offset offset)
{
	return likely(base && offset != GO_UNKNOWN) && go_read(to, size, base + offset);
}

struct go_pair {
	__u64 first, second;
};

/* Read two words of the struct at `base`: by one read where they are neighbours. */
static __always_inline bool go_read_pair(struct go_pair *to, __u64 base, go_offset first, go_offset second)
{
	if (likely(first != GO_UNKNOWN && second == first + 8))
		return go_read_field(to, sizeof(*to), base, first);
	to->first = to->second = 0;
	return go_read_field(&to->first, 8, base, first) && go_read_field(&to->second, 8, base, second);
}

/* Read `size` bytes (a constant is not needed, but `room` is one: of what is at `to`) of an object that reaches, maybe,
 * into a page which the target has not touched yet: it cannot be read, for a page fault cannot be taken here, but what
 * lies in it is still zero. Pages may be larger than 4 KiB: then this is more careful than it need be. */
static __always_inline bool go_read_object(void *to, __u32 room, __u32 size, __u64 address)
{
	__u64 whole = size, head = 4096 - (address & 4095);

	if (size > room || (__s64)address <= 0)
		return false;
	CLAMP(whole, room);
	if (likely(!bpf_probe_read_user(to, whole, (const void *)address)))
		return true;
	if (head >= whole) {
		count(COUNTER_READS_FAILED);
		return false;
	}
	CLAMP(head, room);
	/* The helper zeroes what it was to fill where it fails. */
	return go_read(to, head, address);
}

/* The first bytes of a struct, read at once: a read costs much more than its bytes do. */
#define WINDOW_BYTES 288 /* what is read of an http.Request lies in these */

struct go_window {
	__u64 words[WINDOW_BYTES / 8];
};

static __always_inline bool go_window_read(struct go_window *window, __u64 base)
{
	return go_read_object(window, sizeof(*window), WINDOW_BYTES, base);
}

/* A word of the struct at `base`, 0 where it is not known. A global function, which the verifier goes through once and not
 * once for each caller. */
__noinline __u64 go_word(__u64 base, __u32 offset)
{
	__u64 word = 0;

	go_read_field(&word, sizeof(word), base, offset);
	return word;
}

/* The same, from the window where that has it. */
static __always_inline __u64 go_window_word(const struct go_window *window, __u64 base, go_offset offset)
{
	__u64 at = offset;

	if (likely(offset < WINDOW_BYTES && !(offset & 7))) {
		CLAMP(at, WINDOW_BYTES - 8);
		return *(const __u64 *)((const char *)window->words + at);
	}
	return go_word(base, offset);
}

static __always_inline struct go_string go_window_string(const struct go_window *window, __u64 base, go_offset offset)
{
	struct go_string string = {};

	if (offset != GO_UNKNOWN) {
		string.data = go_window_word(window, base, offset);
		string.length = go_window_word(window, base, offset + 8);
	}
	return string;
}
