// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Trace context across services, github.com/segmentio/kafka-go: a header is appended to the records of a Writer's batch.
 *
 * The header goes into the encoded record and not into the message, whose []Header is pointers to the garbage collector.
 * A batch is encoded by the goroutine of its connection, record by record, into the pages of a pageBuffer, 64 KiB of bytes
 * each: (*RecordSet).writeToVersion2 takes one record after the other from (*writerRecords).ReadRecord. So when that is
 * called, the record before is complete at the end of the last page; and the numbers that depend on it, the batch's
 * length, its checksum, the request's length, are made later, of what lies in the pages then. The header's bytes
 * go behind the record; then the record's count of headers, its length, the page's length and the buffer's are raised.
 * No pointer is written, and nothing that another goroutine looks at.
 *
 * The record is kept whole by this: all that is to be changed is first written as it is, which shows that it can be
 * written. Should one of the changes fail all the same, those before it are taken back; if even that fails, the broker finds the
 * batch corrupt, and kafka-go sends it anew.
 *
 * Whose message a record is: (*writeBatch).add gives each its place in a batch on the goroutine of WriteMessages. */
#include "kafka_go_outgoing.h"
#include "kafka_go_record.h"

struct message_key {
	__u64 process; /* struct process.id */
	__u64 batch; /* *writeBatch */
	__u64 index; /* in the batch */
};

/* A message that waits to be sent. */
struct message_sent {
	struct trace_context context;
	__u64 value; /* Message.Value: its address */
	__u64 limit; /* bytes that the Writer puts into a batch, as it counts them */
};

/* By place, which the next batch at the same address fills again before it is sent. Entries outlive the sending, as that
 * may be tried again. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct message_key);
	__type(value, struct message_sent);
} kafka_go_places SEC(".maps");

struct batch_key {
	__u64 process; /* struct process.id */
	__u64 messages; /* []Message of the batch: its first one */
};

struct batch_sent {
	__u64 batch; /* *writeBatch */
	__u64 bytes; /* of it, as its Writer counts them */
};

/* Batches that are sent. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct batch_key);
	__type(value, struct batch_sent);
} kafka_go_batches SEC(".maps");

static __always_inline const struct kafka_go_propagation_layout *layout_of(const struct hit *hit)
{
	return bpf_map_lookup_elem(&kafka_go_propagation_layouts, &hit->process->slot);
}

/* func (b *writeBatch) add(msg Message, maxSize int, maxBytes int64) bool: on the goroutine of WriteMessages. Where it
 * returns false, the batch is full, and no record of it has this index. */
SEC("uprobe/github.com/segmentio/kafka-go.(*writeBatch).add")
int kafka_go_message_added(struct pt_regs *ctx)
{
	const __u64 message = GO_SP(ctx) + 8; /* too large for registers; the return address lies before it */
	const struct kafka_go_propagation_layout *go;
	const struct trace_context *context;
	struct message_sent sent = {};
	struct message_key key = {};
	struct go_slice messages;
	struct hit hit;

	if (!write_kafka || !hit_identify(&hit, ctx) || !(go = layout_of(&hit)) ||
	    !go_read_field(&messages, sizeof(messages), GO_ARG_1(ctx), go->batch_messages))
		return 0;
	key.process = hit.key.process;
	key.batch = GO_ARG_1(ctx);
	key.index = messages.length;
	context = bpf_map_lookup_elem(&kafka_go_writes, &hit.key);
	if (!context || !go_read_field(&sent.value, sizeof(sent.value), message, go->message_value)) {
		bpf_map_delete_elem(&kafka_go_places, &key);
		return 0;
	}
	sent.context = *context;
	sent.limit = GO_ARG_3(ctx);
	bpf_map_update_elem(&kafka_go_places, &key, &sent, BPF_ANY);
	return 0;
}

/* func (w *Writer) produce(key topicPartition, batch *writeBatch) (*ProduceResponse, error) */
SEC("uprobe/github.com/segmentio/kafka-go.(*Writer).produce")
int kafka_go_batch_sent(struct pt_regs *ctx)
{
	const struct kafka_go_propagation_layout *go;
	struct batch_sent sent = {};
	struct batch_key key = {};
	struct go_slice messages;
	struct hit hit;

	if (!write_kafka || !hit_identify(&hit, ctx) || !(go = layout_of(&hit)))
		return 0;
	sent.batch = GO_ARG_5(ctx);
	if (!go_read_field(&messages, sizeof(messages), sent.batch, go->batch_messages) || !messages.data ||
	    !go_read_field(&sent.bytes, sizeof(sent.bytes), sent.batch, go->batch_bytes))
		return 0;
	key.process = hit.key.process;
	key.messages = messages.data;
	bpf_map_update_elem(&kafka_go_batches, &key, &sent, BPF_ANY);
	return 0;
}

/* func (rs *RecordSet) writeToVersion2(buffer *pageBuffer, bufferOffset int64) error: on the goroutine of a connection. */
SEC("uprobe/github.com/segmentio/kafka-go/protocol.(*RecordSet).writeToVersion2")
int kafka_go_batch_encoded(struct pt_regs *ctx)
{
	const struct kafka_go_propagation_layout *go;
	struct kafka_go_encoding *encoding;
	__u16 attributes = COMPRESSION;
	struct hit hit;

	if (!write_kafka || !hit_identify(&hit, ctx) || !(go = layout_of(&hit)))
		return 0;
	encoding = find_or_add(&kafka_go_encodings, &empty_kafka_go_encoding, &hit.key);
	if (!encoding)
		return 0;
	go_read_field(&attributes, sizeof(attributes), GO_ARG_1(ctx), go->set_attributes);
	encoding->buffer = GO_ARG_2(ctx);
	encoding->records = 0;
	encoding->end = GO_ARG_3(ctx) + BATCH_HEAD;
	encoding->compressed = attributes & COMPRESSION;
	return 0;
}

/* The context that a message shall go out with; NULL, and counted, where it is not known, or where the batch would grow
 * beyond what its Writer allows, and the broker perhaps. */
static __always_inline const struct trace_context *context_of(const struct hit *hit,
							      const struct kafka_go_propagation_layout *go,
							      const struct go_slice *messages, __u64 index,
							      __u64 message)
{
	const struct batch_key batch_key = {hit->key.process, messages->data};
	const struct batch_sent *batch = bpf_map_lookup_elem(&kafka_go_batches, &batch_key);
	const struct message_sent *sent = NULL;
	__u64 value;

	if (batch) {
		const struct message_key key = {hit->key.process, batch->batch, index};

		sent = bpf_map_lookup_elem(&kafka_go_places, &key);
	}
	if (!sent || !go_read_field(&value, sizeof(value), message, go->message_value) || value != sent->value) {
		count(COUNTER_CONTEXTS_UNKNOWN_REQUEST);
		return NULL;
	}
	if (batch->bytes + messages->length * GROWTH_MAX > sent->limit) {
		count(COUNTER_CONTEXTS_NO_ROOM);
		return NULL;
	}
	return &sent->context;
}

/* func (r *writerRecords) ReadRecord() (*Record, error): the record before is complete; so it is called once more than
 * there are records. */
SEC("uprobe/github.com/segmentio/kafka-go.(*writerRecords).ReadRecord")
int kafka_go_record_encoded(struct pt_regs *ctx)
{
	const struct kafka_go_propagation_layout *go;
	const struct trace_context *context;
	struct kafka_go_encoding *encoding;
	__u64 index, start, end, message;
	struct go_slice messages;
	struct hit hit;

	if (!write_kafka || !hit_identify(&hit, ctx) || !(go = layout_of(&hit)))
		return 0;
	encoding = bpf_map_lookup_elem(&kafka_go_encodings, &hit.key);
	if (!encoding || !encoding->buffer)
		return 0;
	if (!go_read_field(&messages, sizeof(messages), GO_ARG_1(ctx), go->records_messages) ||
	    !go_read_field(&index, sizeof(index), GO_ARG_1(ctx), go->records_index) ||
	    !go_read_field(&end, sizeof(end), encoding->buffer, go->buffer_length) || go->message_time == GO_UNKNOWN)
		goto over;
	if (!encoding->records) {
		if (index || (!encoding->compressed && end != encoding->end))
			goto over;
		encoding->records = GO_ARG_1(ctx);
		encoding->read = 0;
		return 0;
	}
	if (encoding->records != GO_ARG_1(ctx) || index != encoding->read + 1 || index > messages.length)
		goto over;
	encoding->read = index;
	start = encoding->end;
	message = messages.data + (index - 1) * (go->message_time + 24);
	if (encoding->compressed) {
		count(COUNTER_CONTEXTS_COMPRESSED);
	} else {
		context = context_of(&hit, go, &messages, index - 1, message);
		if (context && headers_read(&hit, encoding, go, message)) {
			traceparent_prepare(&encoding->added, context);
			end += record_append(encoding, go, start, end);
		}
	}
	encoding->end = end;
	if (index == messages.length)
		encoding->buffer = 0;
	return 0;
over:
	encoding->buffer = 0;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
