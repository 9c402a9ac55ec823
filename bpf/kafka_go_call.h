/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What github.com/segmentio/kafka-go sends, by a call or in a batch, and what is told of it: messages, Writer and broker. */
#pragma once

#include "kafka_go.h"

struct kafka_go_writer_layout {
	go_offset writer_address GO(KAFKA_GO "Writer.Addr");
	go_offset writer_topic GO(KAFKA_GO "Writer.Topic");
	go_offset writer_transport GO(KAFKA_GO "Writer.Transport");
	go_offset transport_client_id GO(KAFKA_GO "Transport.ClientID");
	go_offset address_text GO(KAFKA_GO "networkAddress.address");
	go_offset partition_number GO(KAFKA_GO
				      "partitionWriter.meta.partition"); /* older releases have no such type */
	go_offset partition_writer GO(KAFKA_GO "partitionWriter.w");
	go_offset writer_async GO(KAFKA_GO "Writer.Async");
	go_offset writer_max_attempts GO(KAFKA_GO "Writer.MaxAttempts");
	go_offset batch_time GO(KAFKA_GO "writeBatch.time.wall");
	go_offset batch_messages GO(KAFKA_GO "writeBatch.msgs");
	go_offset batch_done GO(KAFKA_GO "writeBatch.done");
	go_offset batch_error GO(KAFKA_GO "writeBatch.err");
	/* Since 0.4.18: */
	go_offset sending_partition GO_KEPT(KAFKA_GO "(*partitionWriter).writeBatch", 1);
	go_offset sending_batch GO_KEPT(KAFKA_GO "(*partitionWriter).writeBatch", 2);
	/* Before, where the topic came first since 0.4.2: */
	go_offset older_writer GO_KEPT(KAFKA_GO "(*Writer).writeBatch", 1);
	go_offset older_batch GO_KEPT(KAFKA_GO "(*Writer).writeBatch", 5) GO_KEPT(KAFKA_GO "(*Writer).writeBatch", 3);
};

LAYOUTS(kafka_go_writer_layouts, struct kafka_go_writer_layout);

RECORD(kafka_producer_record);

#define TEXTS_MAX  (TOPIC_MAX + KEY_MAX + SERVER_MAX + CLIENT_ID_MAX + ERROR_MAX)
#define RECORD_MAX (sizeof(struct kafka_producer_record) + TEXTS_MAX)

/* A call in flight. */
struct kafka_go_call {
	struct kafka_producer_record record;
	char texts[TEXTS_MAX];
	struct go_window writer;
	/* Of the values in the Writer's interfaces: types that turned out to be those that are known. */
	__u64 network_address, transport;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct goroutine_key);
	__type(value, struct kafka_go_call);
} kafka_go_calls SEC(".maps");

EMPTY_ENTRY(kafka_go_empty_call, struct kafka_go_call);

static __always_inline struct kafka_go_call *call_find_or_add(const struct goroutine_key *key)
{
	return find_or_add(&kafka_go_calls, &kafka_go_empty_call, key);
}

static __always_inline void record_begin(struct kafka_producer_record *record, __u32 messages)
{
	record->header.length = sizeof(*record);
	record->offset = OFFSET_UNKNOWN;
	record->begun = 0;
	record->messages = messages;
	record->partition = PARTITION_UNKNOWN;
	record->failed = 0;
	record->tombstone = 0;
	record->links = 0;
	record->topic.length = 0;
	record->key.length = 0;
	record->server.length = 0;
	record->client_id.length = 0;
	go_error_clear(&record->error);
}

#define MESSAGES_MAX 128 /* looked at of those that are sent together */

/* Have the scan's two topics the same bytes? */
static __always_inline bool is_same_topic(struct kafka_go_scan *scan, const struct go_string *other)
{
	__u64 length = other->length, differ = 0;

	if (other->length != scan->topic.length)
		return false;
	if (other->data == scan->topic.data)
		return true;
	if (!length)
		return true;
	if (length > TOPIC_MAX)
		return false;
	CLAMP(length, TOPIC_MAX);
	__builtin_memset(scan->topics, 0, sizeof(scan->topics));
	if (!go_read(scan->topics[0], length, scan->topic.data))
		return false;
	CLAMP(length, TOPIC_MAX);
	if (!go_read(scan->topics[1], length, other->data))
		return false;
#pragma unroll
	for (int i = 0; i < TOPIC_MAX / 8; i++)
		differ |= scan->topics[0][i] ^ scan->topics[1][i];
	return !differ;
}

/* Look at one of the messages that are sent together: its topic, and the context that the program itself has put into its
 * headers. A global function, which the verifier goes through once. */
__noinline int message_step(__u64 process, __u64 goid, __u64 message, __u32 slot)
{
	const struct goroutine_key key = {process, goid};
	const struct kafka_go_layout *go = bpf_map_lookup_elem(&kafka_go_layouts, &slot);
	struct kafka_go_scan *scan = bpf_map_lookup_elem(&kafka_go_scans, &key);
	struct kafka_go_call *call = bpf_map_lookup_elem(&kafka_go_calls, &key);
	const struct trace_context *context;
	struct go_string topic;
	__u64 link;

	if (!go || !scan || !call || !go_window_read(&scan->message, message))
		return 0;
	topic = go_window_string(&scan->message, message, go->message_topic);
	if (!scan->topic.data)
		scan->topic = topic;
	else if (!scan->topics_differ && !is_same_topic(scan, &topic))
		scan->topics_differ = true;
	link = call->record.links;
	if (link >= LINKS_MAX)
		return 1;
	context = kafka_go_context(scan, go, process, goid, message);
	if (!context)
		return 1;
	MASK(link, LINKS_MAX - 1);
	__builtin_memcpy(call->record.link[link].trace_id, context->trace_id, 16);
	__builtin_memcpy(call->record.link[link].span_id, context->span_id, 8);
	call->record.links = link + 1;
	return 1;
}

/* Tell of the messages: `topic` is that of all of them, where it is not empty. */
static __always_inline void append_messages(const struct hit *hit, struct kafka_go_call *call,
					    const struct kafka_go_layout *go, __u64 messages, __u64 count,
					    struct go_string topic)
{
	struct kafka_go_scan *scan = kafka_go_scan_of(&hit->key);
	struct kafka_producer_record *record = &call->record;
	__u64 size = go->message_time + 24;
	struct go_string key, value;

	if (!scan || go->message_time == GO_UNKNOWN)
		return;
	scan->topic.data = 0;
	scan->topic.length = 0;
	scan->topics_differ = false;
	for (__u32 i = 0; i < MESSAGES_MAX; i++) {
		if (i >= count ||
		    !message_step(hit->key.process, hit->key.goid, messages + i * size, hit->process->slot))
			break;
	}
	if (!topic.length && !scan->topics_differ && count <= MESSAGES_MAX)
		topic = scan->topic;
	text_append(record, RECORD_MAX, &record->topic, &topic, TOPIC_MAX);
	if (count != 1)
		return;
	key = go_window_string(&scan->message, messages, go->message_key);
	text_append(record, RECORD_MAX, &record->key, &key, KEY_MAX);
	value = go_window_string(&scan->message, messages, go->message_value);
	record->tombstone = !value.data;
}

/* Does this interface hold a *kafka.networkAddress? That is what TCP() gives for one address. */
static __always_inline bool is_network_address(const struct hit *hit, struct kafka_go_call *call, __u64 itab)
{
	struct go_string name;

	if (itab == call->network_address)
		return true;
	name = dynamic_type_name(hit, itab);
	if (!begins_with(&name, 21, EIGHT('*', 'k', 'a', 'f', 'k', 'a', '.', 'n')))
		return false;
	call->network_address = itab;
	return true;
}

/* Does this one hold a *kafka.Transport? */
static __always_inline bool is_transport(const struct hit *hit, struct kafka_go_call *call, __u64 itab)
{
	struct go_string name;

	if (itab == call->transport)
		return true;
	name = dynamic_type_name(hit, itab);
	if (!begins_with(&name, 16, EIGHT('*', 'k', 'a', 'f', 'k', 'a', '.', 'T')))
		return false;
	call->transport = itab;
	return true;
}

static __always_inline void append_writer(const struct hit *hit, struct kafka_go_call *call,
					  const struct kafka_go_writer_layout *go, __u64 writer)
{
	struct kafka_producer_record *record = &call->record;
	struct go_string at, text = {};

	/* An interface is two words, as a string is. */
	at = go_window_string(&call->writer, writer, go->writer_address);
	if (at.data && is_network_address(hit, call, at.data) &&
	    go_read_field(&text, sizeof(text), at.length, go->address_text))
		text_append(record, RECORD_MAX, &record->server, &text, SERVER_MAX);
	at = go_window_string(&call->writer, writer, go->writer_transport);
	if (at.data && is_transport(hit, call, at.data) &&
	    go_read_field(&text, sizeof(text), at.length, go->transport_client_id))
		text_append(record, RECORD_MAX, &record->client_id, &text, CLIENT_ID_MAX);
}
