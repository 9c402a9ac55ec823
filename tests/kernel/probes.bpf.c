/* Programs for the tests of agent/kernel: a record a hit, by ring buffer or perf event array. */
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>

enum outcome { OUTCOME_NONE, OUTCOME_SENT, OUTCOME_LOST = 7 };

struct place {
	__u16 column;
	__u32 line;
};

/* What the layouts of gospan look like: a member for each Go offset, tagged with the field. */
struct layout {
	__u16 method __attribute__((btf_decl_tag("go:net/http.Request.Method")));
	__u64 url __attribute__((btf_decl_tag("go:net/http.Request.URL")));
	struct place places[2];
	char name[5];
	enum outcome outcome;
	__s16 delta;
	struct {
		__u32 inner;
	};
	union {
		__u32 number;
		__u8 bytes[4];
	} either;
	bool flag;
};

struct record {
	__u64 number; /* of the hit, from 0 */
	__u64 cookie;
	__u32 tgid;
	__u32 length; /* of the whole record */
	__u8 filling[];
};

/* Only types that something refers to are in the object's BTF. */
const struct record *unused __attribute__((unused));

#define FILLING_MAX 4096
#define RECORD_MAX  (sizeof(struct record) + FILLING_MAX)

const volatile bool by_ring = true;
const volatile bool with_cookie = true;
const volatile __u32 filling = 0;
const volatile __u32 discard_every = 0; /* give up each n-th record */
const volatile __u32 wake_above = ~0U;	/* wake the reader when more bytes than that wait */
const volatile struct layout preset = {};
const volatile char greeting[8] = "";

__u64 hits;
__u64 lost;
__s64 negative = -5;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u8[RECORD_MAX]);
} scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct layout);
} layouts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} hits_by_process SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u8[12]);
} each SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, __u64);
} recent SEC(".maps");

SEC("uprobe/hit")
int hit(void *ctx)
{
	__u32 zero = 0, size = sizeof(struct record) + filling;
	struct record *record = bpf_map_lookup_elem(&scratch, &zero);
	__u64 wake = BPF_RB_NO_WAKEUP;

	if (!record || size > RECORD_MAX)
		return 0;
	record->number = hits;
	__sync_fetch_and_add(&hits, 1); /* to use what it gives takes Linux 5.12 */
	record->cookie = with_cookie ? bpf_get_attach_cookie(ctx) : 0;
	record->tgid = bpf_get_current_pid_tgid() >> 32;
	record->length = size;
	if (!by_ring) {
		if (bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, record, size))
			__sync_fetch_and_add(&lost, 1);
		return 0;
	}
	if (discard_every && record->number % discard_every == 0) {
		void *given_up = bpf_ringbuf_reserve(&events, 24, 0);

		if (given_up)
			bpf_ringbuf_discard(given_up, BPF_RB_NO_WAKEUP);
	}
	if (bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) > wake_above)
		wake = BPF_RB_FORCE_WAKEUP;
	if (bpf_ringbuf_output(&events, record, size, wake))
		__sync_fetch_and_add(&lost, 1);
	return 0;
}

SEC("uprobe/count")
int count(void *ctx)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	__u64 one = 1, *sum = bpf_map_lookup_elem(&hits_by_process, &tgid);

	if (sum)
		__sync_fetch_and_add(sum, 1);
	else
		bpf_map_update_elem(&hits_by_process, &tgid, &one, BPF_NOEXIST);
	return 0;
}

/* Reads what a lookup gave without asking whether it gave anything: no verifier takes that. */
SEC("uprobe/refused")
int refused(void *ctx)
{
	__u32 key = bpf_get_current_pid_tgid();
	__u64 *sum = bpf_map_lookup_elem(&hits_by_process, &key);

	return *sum;
}

SEC("raw_tp/sched_process_exec")
int noticed(void *ctx)
{
	return count(ctx);
}

SEC("raw_tp/sched_process_exit")
int ended(void *ctx)
{
	return count(ctx);
}

struct layout *keep_layout(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&layouts, &zero);
}

char LICENSE[] SEC("license") = "GPL";
