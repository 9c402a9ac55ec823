// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* github.com/segmentio/kafka-go, sending: one span a call, however many messages it is given. (*Writer).WriteMessages from
 * its beginning to its return, which of a Writer that is Async is when the messages wait to be sent; and what a Conn writes.
 *
 * What such a Writer can't deliver is told by one span a batch, an error, which begins with the batch and ends when it is given
 * up. So that the batches that are delivered cost nothing, it is told from the attempts that fail: of each (*partitionWriter).
 * writeBatch asks isTemporary, and then isTransientNetworkError, whether to try again. Up to 0.4.17 these are inlined or not
 * there; there (*Writer).writeBatch is looked at where a batch is over, well or not. */
#include "kafka_go_call.h"
#include "kafka_go_outgoing.h"

/* func (w *Writer) WriteMessages(ctx context.Context, msgs ...Message) error */
SEC("uprobe/github.com/segmentio/kafka-go.(*Writer).WriteMessages")
int kafka_go_write_start(struct pt_regs *ctx)
{
	__u64 writer = GO_ARG_1(ctx), context = GO_ARG_3(ctx), messages = GO_ARG_4(ctx), count = GO_ARG_5(ctx);
	const struct kafka_go_writer_layout *writer_go;
	const struct kafka_go_layout *go;
	struct goroutine *goroutine;
	struct kafka_go_call *call;
	struct go_string topic;
	struct span *span;
	struct hit hit;

	if (!count || !hit_begin(&hit, ctx) || !(go = kafka_go_layout_of(&hit)))
		return 0;
	writer_go = bpf_map_lookup_elem(&kafka_go_writer_layouts, &hit.process->slot);
	goroutine = goroutine_find_or_add(&hit);
	call = call_find_or_add(&hit.key);
	if (!writer_go || !goroutine || !call)
		return 0;
	span = span_push_outermost(&hit, goroutine, kafka_producer_record_kind, context, messages);
	kafka_go_write_begin(&hit, span ? span : span_find(goroutine, kafka_producer_record_kind));
	if (!span || !(span->context.flags & TRACE_FLAG_SAMPLED))
		return 0;
	record_begin(&call->record, count);
	if (!go_window_read(&call->writer, writer))
		return 0;
	append_writer(&hit, call, writer_go, writer);
	topic = go_window_string(&call->writer, writer, writer_go->writer_topic);
	append_messages(&hit, call, go, messages, count, topic);
	return 0;
}

/* func (ptw *partitionWriter) writeMessages(msgs []Message, indexes []int32) map[*writeBatch][]int32: on the goroutine of
 * WriteMessages, once for each partition that it has messages for. */
SEC("uprobe/github.com/segmentio/kafka-go.(*partitionWriter).writeMessages")
int kafka_go_write_partition(struct pt_regs *ctx)
{
	const struct kafka_go_writer_layout *go;
	struct kafka_go_call *call;
	__s32 partition = 0;
	struct hit hit;

	if (!hit_begin(&hit, ctx) || !hit.goroutine || !span_find(hit.goroutine, kafka_producer_record_kind))
		return 0;
	go = bpf_map_lookup_elem(&kafka_go_writer_layouts, &hit.process->slot);
	call = bpf_map_lookup_elem(&kafka_go_calls, &hit.key);
	if (!go || !call || !go_read_field(&partition, sizeof(partition), GO_ARG_1(ctx), go->partition_number))
		return 0;
	if (call->record.partition == PARTITION_UNKNOWN || call->record.partition == partition)
		call->record.partition = partition;
	else
		call->record.partition = PARTITION_SEVERAL;
	return 0;
}

#define ERRORS_MAX 16 /* looked at of those of each message */

/* The error itself, or where it is WriteErrors, one for each message, the first that there is. */
static __always_inline struct go_interface first_error(const struct hit *hit, struct go_interface error)
{
	struct go_string name = dynamic_type_name(hit, error.type);
	struct go_interface one = {};
	struct go_slice errors;

	if (!begins_with(&name, 17, EIGHT('k', 'a', 'f', 'k', 'a', '.', 'W', 'r')) ||
	    !go_read(&errors, sizeof(errors), error.data))
		return error;
	for (__u32 i = 0; i < ERRORS_MAX; i++) {
		if (i >= errors.length || !go_read(&one, sizeof(one), errors.data + i * sizeof(one)))
			break;
		if (one.type)
			return one;
	}
	return error;
}

/* A call returns. */
static __always_inline int call_end(struct pt_regs *ctx, struct go_interface error, bool over_connection)
{
	struct kafka_producer_record *record;
	struct goroutine *goroutine;
	struct kafka_go_call *call;
	struct span *span;
	struct hit hit;

	if (!hit_begin(&hit, ctx) || !hit.goroutine)
		return 0;
	goroutine = hit.goroutine;
	span = span_returned(&hit, goroutine, kafka_producer_record_kind);
	if (!span)
		return 0;
	kafka_go_write_over(&hit);
	call = bpf_map_lookup_elem(&kafka_go_calls, &hit.key);
	if (!call) {
		count(COUNTER_SPANS_EVICTED);
	} else if (span->context.flags & TRACE_FLAG_SAMPLED) {
		record = &call->record;
		span_record(&hit, span, &record->header);
		record->failed = error.type != 0;
		if (record->failed)
			go_error_append(&hit, record, RECORD_MAX, &record->error, first_error(&hit, error));
		else if (over_connection)
			record->offset = GO_ARG_3(ctx);
		record_submit(ctx, &record->header, RECORD_MAX);
	}
	span_pop(goroutine, span);
	return 0;
}

/* WriteMessages returns. */
SEC("uprobe/github.com/segmentio/kafka-go.(*Writer).WriteMessages")
int kafka_go_write_end(struct pt_regs *ctx)
{
	struct go_interface error = {GO_ARG_1(ctx), GO_ARG_2(ctx)};

	return call_end(ctx, error, false);
}

/* func (c *Conn) writeCompressedMessages(codec CompressionCodec, msgs ...Message) (nbytes int, partition int32, offset
 *	int64, appendTime time.Time, err error): what all methods of a Conn that write messages call. */
SEC("uprobe/github.com/segmentio/kafka-go.(*Conn).writeCompressedMessages")
int kafka_go_connection_start(struct pt_regs *ctx)
{
	__u64 connection = GO_ARG_1(ctx), messages = GO_ARG_4(ctx), count = GO_ARG_5(ctx);
	const struct kafka_go_layout *go;
	struct go_string text = {};
	struct goroutine *goroutine;
	struct kafka_go_call *call;
	struct span *span;
	struct hit hit;

	if (!count || !hit_begin(&hit, ctx) || !(go = kafka_go_layout_of(&hit)))
		return 0;
	goroutine = goroutine_find_or_add(&hit);
	call = call_find_or_add(&hit.key);
	if (!goroutine || !call)
		return 0;
	span = span_push_outermost(&hit, goroutine, kafka_producer_record_kind, 0, messages);
	if (!span || !(span->context.flags & TRACE_FLAG_SAMPLED))
		return 0;
	record_begin(&call->record, count);
	go_read_field(&call->record.partition, sizeof(call->record.partition), connection, go->connection_partition);
	if (go_read_field(&text, sizeof(text), connection, go->connection_client_id))
		text_append(&call->record, RECORD_MAX, &call->record.client_id, &text, CLIENT_ID_MAX);
	text.length = 0;
	go_read_field(&text, sizeof(text), connection, go->connection_topic);
	append_messages(&hit, call, go, messages, count, text);
	return 0;
}

/* writeCompressedMessages returns. */
SEC("uprobe/github.com/segmentio/kafka-go.(*Conn).writeCompressedMessages")
int kafka_go_connection_end(struct pt_regs *ctx)
{
	struct go_interface error = {GO_ARG_7(ctx), GO_ARG_8(ctx)};

	return call_end(ctx, error, true);
}

/* The batch of a Writer that is Async. */
struct kafka_go_batch {
	__u64 address; /* *writeBatch */
	__u64 time; /* when it was begun, Time.wall */
	__u64 writer; /* *Writer */
	__u64 partition; /* *partitionWriter; 0: there is none */
};

/* A batch that could not be sent so far. */
struct kafka_go_attempts {
	struct kafka_go_batch batch;
	struct go_interface error; /* of the last attempt */
	__u64 limit; /* attempts that are made */
	__u64 failed; /* attempts */
	__u64
	    asked; /* questions whether there is to be another one: 1 is isTemporary, 2 isTransientNetworkError; 0: none */
};

/* By the goroutine that sends a partition's batches one after the other. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct goroutine_key);
	__type(value, struct kafka_go_attempts);
} kafka_go_attempts SEC(".maps");

EMPTY_ENTRY(empty_kafka_go_attempts, struct kafka_go_attempts);

#define ATTEMPTS_DEFAULT 10 /* (*Writer).maxAttempts */

/* Tell which batch it is by its time as well; false where its Writer is not Async: then its calls tell of errors. */
static __always_inline bool batch_read(struct kafka_go_batch *batch, const struct kafka_go_writer_layout *go)
{
	__u8 async = 0;

	return go_read_field(&async, sizeof(async), batch->writer, go->writer_async) && async &&
	       go_read_field(&batch->time, sizeof(batch->time), batch->address, go->batch_time);
}

/* writeBatch calls func isTemporary(err error) bool: an attempt has failed. */
SEC("uprobe/github.com/segmentio/kafka-go.(*partitionWriter).writeBatch")
int kafka_go_attempt_failed(struct pt_regs *ctx)
{
	struct go_interface error = {GO_ARG_1(ctx), GO_ARG_2(ctx)};
	const struct kafka_go_writer_layout *go;
	struct kafka_go_attempts *attempts;
	struct kafka_go_batch batch = {};
	__s64 limit = 0;
	struct hit hit;

	if (!hit_identify_sampled(&hit, ctx))
		return 0;
	go = bpf_map_lookup_elem(&kafka_go_writer_layouts, &hit.process->slot);
	if (!go || !go_read_field(&batch.address, 8, hit.sp, go->sending_batch) ||
	    !go_read_field(&batch.partition, 8, hit.sp, go->sending_partition) ||
	    !go_read_field(&batch.writer, 8, batch.partition, go->partition_writer) || !batch_read(&batch, go) ||
	    !go_read_field(&limit, sizeof(limit), batch.writer, go->writer_max_attempts))
		return 0;
	attempts = find_or_add(&kafka_go_attempts, &empty_kafka_go_attempts, &hit.key);
	if (!attempts)
		return 0;
	if (attempts->batch.address != batch.address || attempts->batch.time != batch.time)
		attempts->failed = 0;
	attempts->batch = batch;
	attempts->error = error;
	attempts->limit = limit > 0 ? limit : ATTEMPTS_DEFAULT;
	attempts->failed++;
	attempts->asked = 1;
	return 0;
}

/* Is the batch that is asked about given up? `again` is the answer. */
static __always_inline bool is_given_up(struct kafka_go_attempts *attempts, bool again)
{
	__u64 asked = attempts->asked;

	attempts->asked = 0;
	if (attempts->failed >= attempts->limit)
		return true;
	if (asked == 1 && !again) {
		attempts->asked = 2;
		return false;
	}
	return !again;
}

/* Unix time of a time.Time that time.Now has made, ns: from its first word, which has seconds since 1885 above 30 bits of
 * nanoseconds, and a mark (time/time.go); 0 where it is another one. */
static __always_inline __u64 unix_time(__u64 wall)
{
	const __u64 from_1885 = 2682288000;
	__u64 seconds = wall << 1 >> 31;

	if (!(wall >> 63) || seconds < from_1885)
		return 0;
	return (seconds - from_1885) * 1000000000 + (wall & ((1 << 30) - 1));
}

/* Is a batch given up where a goroutine's stack pointer is `sp`, and `first` in the first argument's register? Then it is in the
 * goroutine's entry. */
static __always_inline bool batch_is_given_up(struct kafka_go_attempts *attempts,
					      const struct kafka_go_writer_layout *go, __u64 sp, __u64 first)
{
	struct kafka_go_batch *batch = &attempts->batch;
	__u64 done = 0;

	if (attempts->asked)
		return is_given_up(attempts, first & 1);
	/* Of a release in which (*Writer).writeBatch is probed, it is this one that closes the channel. */
	return go_read_field(&batch->address, 8, sp, go->older_batch) &&
	       go_read_field(&done, 8, batch->address, go->batch_done) && done == first &&
	       go_read_field(&attempts->error, sizeof(attempts->error), batch->address, go->batch_error) &&
	       attempts->error.type && go_read_field(&batch->writer, 8, sp, go->older_writer) &&
	       batch_read(batch, go);
}

/* Begin the record of a batch that is given up by the goroutine of this hit: all but its messages. 0: it is not. A global
 * function, which has a stack of its own. */
__noinline int batch_begin(__u32 tgid, __u64 goid, __u64 sp, __u64 first)
{
	const struct kafka_go_writer_layout *go;
	struct kafka_go_attempts *attempts;
	struct kafka_producer_record *record;
	const struct cached_process *known = process_of(tgid);
	struct kafka_go_call *call;
	struct hit hit = {};

	if (!known)
		return 0;
	hit.process = &known->process;
	hit.go = &known->go;
	hit.key.process = hit.process->id;
	hit.key.goid = goid;
	go = bpf_map_lookup_elem(&kafka_go_writer_layouts, &hit.process->slot);
	if (!go)
		return 0;
	if (go->older_batch == GO_UNKNOWN)
		attempts = bpf_map_lookup_elem(&kafka_go_attempts, &hit.key);
	else
		attempts = find_or_add(&kafka_go_attempts, &empty_kafka_go_attempts, &hit.key);
	if (!attempts || !batch_is_given_up(attempts, go, sp, first))
		return 0;
	call = call_find_or_add(&hit.key);
	if (!call || !go_window_read(&call->writer, attempts->batch.writer))
		return 0;
	record = &call->record;
	record_begin(record, 0);
	record->begun = unix_time(attempts->batch.time);
	record->failed = 1;
	go_read_field(&record->partition, sizeof(record->partition), attempts->batch.partition, go->partition_number);
	append_writer(&hit, call, go, attempts->batch.writer);
	go_error_append(&hit, record, RECORD_MAX, &record->error, attempts->error);
	return 1;
}

/* isTemporary or isTransientNetworkError returns; or (*Writer).writeBatch closes the batch's channel `done`. */
SEC("uprobe/github.com/segmentio/kafka-go.isTransientNetworkError")
int kafka_go_batch_over(struct pt_regs *ctx)
{
	const struct kafka_go_writer_layout *writer_go;
	const struct kafka_go_attempts *attempts;
	const struct kafka_go_layout *go;
	struct go_pair messages = {}; /* []Message: the first one, and how many */
	struct goroutine *goroutine;
	struct kafka_go_call *call;
	struct span *span;
	struct hit hit;

	if (!hit_begin(&hit, ctx) || !(go = kafka_go_layout_of(&hit)) ||
	    !batch_begin(hit.tgid, hit.key.goid, hit.sp, GO_ARG_1(ctx)))
		return 0;
	writer_go = bpf_map_lookup_elem(&kafka_go_writer_layouts, &hit.process->slot);
	attempts = bpf_map_lookup_elem(&kafka_go_attempts, &hit.key);
	call = bpf_map_lookup_elem(&kafka_go_calls, &hit.key);
	goroutine = goroutine_find_or_add(&hit);
	if (!writer_go || !attempts || !call || !goroutine ||
	    !go_read_field(&messages, sizeof(messages), attempts->batch.address, writer_go->batch_messages))
		return 0;
	/* Its messages may be those of many calls: a root. */
	span = span_open(&hit, goroutine, kafka_producer_record_kind, NULL, false);
	if (!span)
		return 0;
	if (span->context.flags & TRACE_FLAG_SAMPLED) {
		call->record.messages = messages.second;
		append_messages(&hit, call, go, messages.first, messages.second,
				go_window_string(&call->writer, attempts->batch.writer, writer_go->writer_topic));
		span_record(&hit, span, &call->record.header);
		record_submit(ctx, &call->record.header, RECORD_MAX);
	}
	span_pop(goroutine, span);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
