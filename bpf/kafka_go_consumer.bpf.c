// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* github.com/segmentio/kafka-go, receiving: one span a message that (*Reader).FetchMessage or (*Conn).ReadMessage gives.
 * (*Batch).ReadMessage is not looked at: a Reader calls it as well, on a goroutine of its own.
 *
 * What is done with a message of a Reader begins when it is given, and ends when its goroutine asks for the next one, or
 * closes the Reader. Of a Conn the end can't be told, so the span is that of the call. The parent is what came with the
 * message. Where a span is open already, as within a request, what is done with the message is a part of that; then the
 * span is that of the call, with a link to what came with the message. */
#include "kafka_go.h"

struct kafka_go_reader_layout {
	go_offset reader_brokers GO(KAFKA_GO "Reader.config.Brokers");
	go_offset reader_group GO(KAFKA_GO "Reader.config.GroupID");
	go_offset reader_topic GO(KAFKA_GO "Reader.config.Topic");
	go_offset reader_dialer GO(KAFKA_GO "Reader.config.Dialer");
	go_offset dialer_client_id GO(KAFKA_GO "Dialer.ClientID");
};

LAYOUTS(kafka_go_reader_layouts, struct kafka_go_reader_layout);

RECORD(kafka_consumer_record);

#define TEXTS_MAX  (TOPIC_MAX + KEY_MAX + GROUP_MAX + SERVER_MAX + CLIENT_ID_MAX + TRACESTATE_MAX + ERROR_MAX)
#define RECORD_MAX (sizeof(struct kafka_consumer_record) + TEXTS_MAX)

/* The last message that a goroutine was given, or waits for. */
struct kafka_go_message {
	struct kafka_consumer_record record;
	char texts[TEXTS_MAX];
	__u64 source; /* *Reader or *Conn */
	__u64 start; /* of the call, CLOCK_MONOTONIC, ns */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct goroutine_key);
	__type(value, struct kafka_go_message);
} kafka_go_messages SEC(".maps");

EMPTY_ENTRY(kafka_go_empty_message, struct kafka_go_message);

static __always_inline struct kafka_go_message *message_find_or_add(const struct goroutine_key *key)
{
	return find_or_add(&kafka_go_messages, &kafka_go_empty_message, key);
}

/* Close a span, and send its record. In this order: Linux 5.10 forgets the bound of a length that has to leave its
 * register for the stack, as it would with more to remember. */
static __always_inline void message_submit(struct pt_regs *ctx, const struct hit *hit, struct goroutine *goroutine,
					   struct span *span, struct kafka_go_message *message)
{
	bool sampled = span->context.flags & TRACE_FLAG_SAMPLED;

	if (sampled)
		span_record(hit, span, &message->record.header);
	span_pop(goroutine, span);
	if (!sampled)
		return;
	record_submit(ctx, &message->record.header, RECORD_MAX);
}

/* The goroutine is done with the message that it was given last. Spans of calls have the depth of their stack, this one
 * has none, as it goes on when they have returned. */
static __always_inline void process_end(struct pt_regs *ctx, const struct hit *hit, struct goroutine *goroutine)
{
	struct span *span = span_find(goroutine, kafka_consumer_record_kind);
	struct kafka_go_message *message;

	if (!span || span->stack)
		return;
	message = bpf_map_lookup_elem(&kafka_go_messages, &hit->key);
	if (message) {
		message_submit(ctx, hit, goroutine, span, message);
		return;
	}
	count(COUNTER_SPANS_EVICTED);
	span_pop(goroutine, span);
}

static __always_inline int fetch_start(struct pt_regs *ctx, __u64 context)
{
	__u64 stack, source = GO_ARG_1(ctx);
	const struct trace_context *parent;
	struct kafka_go_message *message;
	struct goroutine *goroutine;
	struct span *span;
	struct hit hit;

	if (!hit_begin(&hit, ctx))
		return 0;
	goroutine = goroutine_find_or_add(&hit);
	message = message_find_or_add(&hit.key);
	if (!goroutine || !message)
		return 0;
	process_end(ctx, &hit, goroutine);
	stack = stack_in_use(&hit);
	span = span_find(goroutine, kafka_consumer_record_kind);
	/* The same call again, after its stack has grown (Go before 1.21, arm64). */
	if (span && span->stack == stack && span->call == source)
		return 0;
	message->source = source;
	message->start = bpf_ktime_get_ns();
	spans_drop_stale(goroutine, stack);
	parent = local_parent(&hit, goroutine, context);
	if (!parent)
		return 0;
	span = span_open(&hit, goroutine, kafka_consumer_record_kind, parent, false);
	if (span) {
		span->stack = stack;
		span->call = source;
	}
	return 0;
}

/* func (r *Reader) FetchMessage(ctx context.Context) (Message, error) */
SEC("uprobe/github.com/segmentio/kafka-go.(*Reader).FetchMessage")
int kafka_go_fetch_start(struct pt_regs *ctx)
{
	return fetch_start(ctx, GO_ARG_3(ctx));
}

/* func (c *Conn) ReadMessage(maxBytes int) (Message, error) */
SEC("uprobe/github.com/segmentio/kafka-go.(*Conn).ReadMessage")
int kafka_go_read_start(struct pt_regs *ctx)
{
	return fetch_start(ctx, 0);
}

/* Did a call end for no other reason than that no message came: its context has ended, its deadline has passed, or the reader was closed? */
static __always_inline bool is_idle(const struct hit *hit, const struct go_interface *error, bool of_reader)
{
	struct go_string text, name = dynamic_type_name(hit, error->type);
	__u64 number = 0;
	char end[3] = {};

	if (begins_with(&name, 29, EIGHT('c', 'o', 'n', 't', 'e', 'x', 't', '.')))
		return true; /* context.deadlineExceededError */
	if (begins_with(&name, 11, EIGHT('k', 'a', 'f', 'k', 'a', '.', 'E', 'r')))
		/* kafka.RequestTimedOut: what a Conn calls its deadline. */
		return !of_reader && go_read(&number, sizeof(number), error->data) && number == 7;
	if (!begins_with(&name, 19, EIGHT('*', 'e', 'r', 'r', 'o', 'r', 's', '.')) ||
	    !go_read(&text, sizeof(text), error->data))
		return false;
	if (begins_with(&text, 16, EIGHT('c', 'o', 'n', 't', 'e', 'x', 't', ' ')))
		return true; /* context.Canceled */
	return text.length == 3 && go_read(end, sizeof(end), text.data) && end[0] == 'E' && end[1] == 'O' &&
	       end[2] == 'F';
}

/* Where messages come from. */
static __always_inline void append_reader(struct kafka_consumer_record *record,
					  const struct kafka_go_reader_layout *go, __u64 reader, bool with_topic)
{
	struct go_slice brokers = {};
	struct go_string text = {};
	__u64 dialer = 0;

	if (with_topic && go_read_field(&text, sizeof(text), reader, go->reader_topic))
		text_append(record, RECORD_MAX, &record->topic, &text, TOPIC_MAX);
	text.length = 0;
	if (go_read_field(&text, sizeof(text), reader, go->reader_group))
		text_append(record, RECORD_MAX, &record->group, &text, GROUP_MAX);
	text.length = 0;
	if (go_read_field(&brokers, sizeof(brokers), reader, go->reader_brokers) && brokers.length == 1 &&
	    go_read(&text, sizeof(text), brokers.data))
		text_append(record, RECORD_MAX, &record->server, &text, SERVER_MAX);
	text.length = 0;
	if (go_read_field(&dialer, sizeof(dialer), reader, go->reader_dialer) && dialer &&
	    go_read_field(&text, sizeof(text), dialer, go->dialer_client_id))
		text_append(record, RECORD_MAX, &record->client_id, &text, CLIENT_ID_MAX);
}

static __always_inline void append_connection(struct kafka_consumer_record *record, const struct kafka_go_layout *go,
					      __u64 connection, bool with_topic)
{
	struct go_string text = {};

	if (with_topic && go_read_field(&text, sizeof(text), connection, go->connection_topic))
		text_append(record, RECORD_MAX, &record->topic, &text, TOPIC_MAX);
	text.length = 0;
	if (go_read_field(&text, sizeof(text), connection, go->connection_client_id))
		text_append(record, RECORD_MAX, &record->client_id, &text, CLIENT_ID_MAX);
}

static __always_inline void record_begin(struct kafka_consumer_record *record, bool receiving, bool failed)
{
	record->header.length = sizeof(*record);
	record->offset = OFFSET_UNKNOWN;
	record->partition = PARTITION_UNKNOWN;
	record->receiving = receiving;
	record->failed = failed;
	record->links = 0;
	record->topic.length = 0;
	record->key.length = 0;
	record->group.length = 0;
	record->server.length = 0;
	record->client_id.length = 0;
	record->tracestate.length = 0;
	go_error_clear(&record->error);
}

/* Tell of the message that the scan shows. */
static __always_inline void append_message(struct kafka_consumer_record *record, const struct kafka_go_scan *scan,
					   const struct kafka_go_layout *go, __u64 at)
{
	struct go_string text;

	record->offset = go_window_word(&scan->message, at, go->message_offset);
	record->partition = go_window_word(&scan->message, at, go->message_partition);
	text = go_window_string(&scan->message, at, go->message_topic);
	text_append(record, RECORD_MAX, &record->topic, &text, TOPIC_MAX);
	text = go_window_string(&scan->message, at, go->message_key);
	text_append(record, RECORD_MAX, &record->key, &text, KEY_MAX);
}

/* The call returns: an error, and the message, which is too large for registers, on the stack above the return address. */
static __always_inline int fetch_end(struct pt_regs *ctx, bool of_reader)
{
	struct go_interface error = {GO_ARG_1(ctx), GO_ARG_2(ctx)};
	const struct kafka_go_reader_layout *reader_go;
	const struct trace_context *remote = NULL;
	struct kafka_consumer_record *record;
	const struct kafka_go_layout *go;
	__u64 at = GO_SP(ctx) + 8;
	struct kafka_go_message *message;
	struct goroutine *goroutine;
	struct kafka_go_scan *scan;
	struct span *span;
	struct hit hit;
	bool receiving;

	if (!hit_begin(&hit, ctx) || !hit.goroutine || !(go = kafka_go_layout_of(&hit)))
		return 0;
	goroutine = hit.goroutine;
	reader_go = bpf_map_lookup_elem(&kafka_go_reader_layouts, &hit.process->slot);
	message = bpf_map_lookup_elem(&kafka_go_messages, &hit.key);
	scan = kafka_go_scan_of(&hit.key);
	span = span_returned(&hit, goroutine, kafka_consumer_record_kind);
	if (!reader_go || !message || !scan) {
		count(COUNTER_SPANS_EVICTED);
		if (span)
			span_pop(goroutine, span);
		return 0;
	}
	/* Not the pointer itself, which the verifier lets nobody combine with anything. */
	receiving = span ? span->stack != 0 : false;
	if (!error.type) {
		if (!go_window_read(&scan->message, at))
			return 0;
		remote = kafka_go_context(scan, go, hit.key.process, hit.key.goid, at);
	}
	if (error.type && !(receiving && of_reader) && is_idle(&hit, &error, of_reader)) {
		if (span)
			span_pop(goroutine, span);
		return 0;
	}
	if (!span) {
		span = span_enter(&hit, goroutine, kafka_consumer_record_kind, remote);
		if (!span)
			return 0;
		if (error.type || !of_reader)
			span->start = message->start;
	}

	record = &message->record;
	if (span->context.flags & TRACE_FLAG_SAMPLED) {
		record_begin(record, receiving || !of_reader || error.type, error.type);
		if (of_reader)
			append_reader(record, reader_go, message->source, error.type);
		else
			append_connection(record, go, message->source, error.type);
		if (error.type)
			go_error_append(&hit, record, RECORD_MAX, &record->error, error);
		else
			append_message(record, scan, go, at);
		if (remote && receiving) {
			record->links = 1;
			__builtin_memcpy(record->link.trace_id, remote->trace_id, sizeof(record->link.trace_id));
			__builtin_memcpy(record->link.span_id, remote->span_id, sizeof(record->link.span_id));
		} else if (remote) {
			text_append(record, RECORD_MAX, &record->tracestate, &scan->tracestate, TRACESTATE_MAX);
		}
	}
	if (receiving || !of_reader || error.type)
		message_submit(ctx, &hit, goroutine, span, message);
	return 0;
}

/* FetchMessage returns. */
SEC("uprobe/github.com/segmentio/kafka-go.(*Reader).FetchMessage")
int kafka_go_fetch_end(struct pt_regs *ctx)
{
	return fetch_end(ctx, true);
}

/* (*Conn).ReadMessage returns. */
SEC("uprobe/github.com/segmentio/kafka-go.(*Conn).ReadMessage")
int kafka_go_read_end(struct pt_regs *ctx)
{
	return fetch_end(ctx, false);
}

/* func (r *Reader) Close() error: no message comes any more. */
SEC("uprobe/github.com/segmentio/kafka-go.(*Reader).Close")
int kafka_go_close(struct pt_regs *ctx)
{
	const struct kafka_go_message *message;
	struct hit hit;

	if (!hit_begin(&hit, ctx) || !hit.goroutine)
		return 0;
	message = bpf_map_lookup_elem(&kafka_go_messages, &hit.key);
	if (message && message->source == GO_ARG_1(ctx))
		process_end(ctx, &hit, hit.goroutine);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
