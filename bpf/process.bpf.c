// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Processes that start and end. Also the object that brings the maps which all others share. */
#include "header_sets.h"
#include "span.h"

/* An executable file, as the kernel knows it. An inode with probes in it is held by them, so its number does not come
 * again for another file; of one that is ignored it may, hence the size, and the agent's own look from time to time. */
struct file_key {
	__u64 inode;
	__u64 size; /* bytes */
	__u64 device; /* the kernel's own encoding: major << 20 | minor */
};

enum file_verdict {
	FILE_IGNORED, /* not Go, or not wanted: its processes cost nothing more */
	FILE_TRACED, /* its processes are traced from their first instruction */
	FILE_ASK, /* attached; the agent decides for each process */
};

struct file_entry {
	enum file_verdict verdict;
	struct process process; /* what a new process of this file is given; id is set here */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct file_key);
	__type(value, struct file_entry);
} files SEC(".maps");

struct process_exec_record {
	struct record_header header; /* header.process: its id where it is traced already, else 0 */
	struct file_key file;
	char path[256]; /* as it was given to execve(2): the process may be gone when the agent looks */
};

struct process_exit_record {
	struct record_header header;
};

RECORD(process_exec_record);
RECORD(process_exit_record);

/* sched_process_exec(task, old_pid, binprm): the new program is in place, its first instruction has not run. */
SEC("raw_tp/sched_process_exec")
int process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct linux_binprm *binprm = (void *)ctx->args[2];
	struct inode *inode = BPF_CORE_READ(binprm, file, f_inode);
	struct process_exec_record record = {};
	const struct file_entry *file;
	__u32 tgid = current_tgid();

	if (!tgid)
		return 0;
	record.file.inode = BPF_CORE_READ(inode, i_ino);
	record.file.size = BPF_CORE_READ(inode, i_size);
	record.file.device = BPF_CORE_READ(inode, i_sb, s_dev);
	/* A process that was traced may have become another program. */
	bpf_map_delete_elem(&processes, &tgid);
	process_forget(tgid);
	file = bpf_map_lookup_elem(&files, &record.file);
	if (file && file->verdict == FILE_IGNORED)
		return 0;
	record.header.start = bpf_ktime_get_ns();
	if (file && file->verdict == FILE_TRACED) {
		struct process process = file->process;

		process.id = record.header.start;
		bpf_map_update_elem(&processes, &tgid, &process, BPF_ANY);
		record.header.process = process.id;
		record.header.slot = process.slot;
	}
	bpf_probe_read_kernel_str(record.path, sizeof(record.path), BPF_CORE_READ(binprm, filename));
	record.header.kind = process_exec_record_kind;
	record.header.length = sizeof(record);
	record.header.tgid = tgid;
	submit(ctx, &record, sizeof(record), true);
	return 0;
}

/* sched_process_exit(task): the last thread of a group finds no other one alive. */
SEC("raw_tp/sched_process_exit")
int process_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)ctx->args[0];
	struct process_exit_record record = {};
	const struct process *process;
	__u32 tgid = current_tgid();

	if (!tgid || BPF_CORE_READ(task, signal, live.counter) > 0)
		return 0;
	process_forget(tgid);
	process = bpf_map_lookup_elem(&processes, &tgid);
	if (!process)
		return 0;
	record.header.kind = process_exit_record_kind;
	record.header.length = sizeof(record);
	record.header.tgid = tgid;
	record.header.slot = process->slot;
	record.header.process = process->id;
	record.header.end = bpf_ktime_get_ns();
	bpf_map_delete_elem(&processes, &tgid);
	submit(ctx, &record, sizeof(record), true);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
