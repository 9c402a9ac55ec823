/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What the programs need of the kernel: its types, only as far as they are used, and libbpf's helpers. */
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

/* The registers that a uprobe's program is given. Fixed by the kernel's user-space ABI, so no relocation is wanted:
 * arch/x86/include/asm/ptrace.h and arch/arm64/include/uapi/asm/ptrace.h. */
#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	__u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
	__u64 orig_ax, ip, cs, flags, sp, ss;
};
#elif defined(__TARGET_ARCH_arm64)
struct pt_regs {
	__u64 regs[31];
	__u64 sp, pc, pstate;
};
#else
#error "compile with -D__TARGET_ARCH_x86 or -D__TARGET_ARCH_arm64"
#endif

/* What is hardly ever so, or nearly always: the compiler puts what is not on the way out of it. */
#define likely(condition)   __builtin_expect(!!(condition), 1)
#define unlikely(condition) __builtin_expect(!!(condition), 0)

/* Bound a register, a variable of 64 bits, where the verifier sees it. Written in C, the compiler leaves out what it has
 * proved by itself, or makes an address before it compares; Linux 5.10 follows neither. */
#define MASK(value, mask) asm volatile("%0 &= %1" : "+r"(value) : "i"(mask))
#define CLAMP(value, max) asm volatile("if %0 <= %1 goto +1\n\t%0 = %1" : "+r"(value) : "i"(max))

/* Words that may lie anywhere and be of any type: the compiler takes what it does not know to be aligned apart into bytes,
 * which neither of the architectures needs. */
typedef __u64 __attribute__((may_alias)) any_u64;
typedef __u32 __attribute__((may_alias)) any_u32;

/* Kernel structures, found by name in the running kernel's BTF when an object is loaded. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
};

struct mm_struct {
	unsigned long start_code;
};

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

struct nsproxy {
	struct net *net_ns;
};

struct task_struct {
	int tgid;
	struct mm_struct *mm;
	struct nsproxy *nsproxy;
	struct signal_struct *signal;
};

struct super_block {
	__u32 s_dev;
};

struct inode {
	struct super_block *i_sb;
	unsigned long i_ino;
	long long i_size;
};

struct file {
	struct inode *f_inode;
};

struct linux_binprm {
	struct file *file;
	const char *filename;
};

#pragma clang attribute pop

/* A clock whose ticks are between an eighth and one and a third of a second long. bpf_jiffies64 is there since Linux 5.5. */
static __always_inline __u64 coarse_time(void)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_jiffies64))
		return bpf_jiffies64() >> 7;
	return bpf_ktime_get_ns() >> 28;
}

/* Since Linux 6.13 a function that needs 64 bytes of stack or more gets a stack that all runs of its program on a
 * processor share, as if none could begin there before the last one ended. Programs of uprobes can be preempted since
 * 6.0, so that one overwrites the pointers that another one has spilled: the kernel crashes (seen on 7.3;
 * bpf_enable_priv_stack() in kernel/bpf/verifier.c). A program with a tail call in it gets no such stack. This one is
 * dead code to the verifier, which counts it and takes it out. */
static __always_inline void use_stack_of_thread(void *ctx)
{
	__u64 ever = 0;

	asm volatile("" : "+r"(ever)); /* for all that the compiler knows */
	if (ever)
		bpf_tail_call(ctx, NULL, 0);
}
