/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What a Go error is, for error.type: its type, what it was caused by, the number that it came to. */
#pragma once

#include "go_type.h"

struct go_error_layout {
	go_offset op_error_err GO("net.OpError.Err");
	go_offset syscall_error_err GO("os.SyscallError.Err");
};

LAYOUTS(go_error_layouts, struct go_error_layout);

#define ERROR_TEXT_MAX 64
#define ERROR_MAX      (2 * TYPE_NAME_MAX + ERROR_TEXT_MAX) /* all texts of an error at once */
#define WRAPPERS_MAX   3 /* looked into: errors made by fmt.Errorf with %w */

/* A part of a record. */
struct go_error {
	__u32 number; /* an errno, where it came to one; of a type that is a number, that; else 0 */
	struct text type; /* as %T prints it; of what is in errors that only say more about it */
	struct text cause; /* the same, of what is in a *net.OpError */
	struct text text; /* what it says, if that is all there is to it: *errors.errorString */
};

static __always_inline void go_error_clear(struct go_error *error)
{
	error->number = 0;
	error->type.length = 0;
	error->cause.length = 0;
	error->text.length = 0;
}

/* Tell of an error, in a record of `size` bytes (a constant) at most. */
static __always_inline void go_error_append(const struct hit *hit, void *record, __u32 size, struct go_error *to,
					    struct go_interface error)
{
	const struct go_error_layout *go = bpf_map_lookup_elem(&go_error_layouts, &hit->process->slot);
	struct go_string text, name;

	if (!go)
		return;
	name = dynamic_type_name(hit, error.type);
	/* *fmt.wrapError: {msg string; err error} (fmt/errors.go). */
#pragma unroll
	for (int i = 0; i < WRAPPERS_MAX; i++) {
		if (!begins_with(&name, 14, EIGHT('*', 'f', 'm', 't', '.', 'w', 'r', 'a')))
			break;
		if (!go_read(&error, sizeof(error), error.data + 16))
			return;
		name = dynamic_type_name(hit, error.type);
	}
	text_append(record, size, &to->type, &name, TYPE_NAME_MAX);
	if (begins_with(&name, 12, EIGHT('*', 'n', 'e', 't', '.', 'O', 'p', 'E'))) {
		if (!go_read_field(&error, sizeof(error), error.data, go->op_error_err))
			return;
		name = dynamic_type_name(hit, error.type);
		text_append(record, size, &to->cause, &name, TYPE_NAME_MAX);
	}
	if (begins_with(&name, 16, EIGHT('*', 'o', 's', '.', 'S', 'y', 's', 'c'))) {
		if (!go_read_field(&error, sizeof(error), error.data, go->syscall_error_err))
			return;
		name = dynamic_type_name(hit, error.type);
	}
	/* syscall.Errno, and kafka.Error of kafka-go. */
	if (begins_with(&name, 13, EIGHT('s', 'y', 's', 'c', 'a', 'l', 'l', '.')) ||
	    begins_with(&name, 11, EIGHT('k', 'a', 'f', 'k', 'a', '.', 'E', 'r')))
		go_read(&to->number, sizeof(to->number), error.data);
	else if (begins_with(&name, 19, EIGHT('*', 'e', 'r', 'r', 'o', 'r', 's', '.')) &&
		 go_read(&text, sizeof(text), error.data))
		text_append(record, size, &to->text, &text, ERROR_TEXT_MAX);
}
