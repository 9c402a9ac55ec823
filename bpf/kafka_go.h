/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Messages of github.com/segmentio/kafka-go, and the trace context in their headers. */
#pragma once

#include "kafka.h"

#define KAFKA_GO "github.com/segmentio/kafka-go."

struct kafka_go_layout {
	go_offset message_topic GO(KAFKA_GO "Message.Topic");
	go_offset message_partition GO(KAFKA_GO "Message.Partition");
	go_offset message_offset GO(KAFKA_GO "Message.Offset");
	go_offset message_key GO(KAFKA_GO "Message.Key");
	go_offset message_value GO(KAFKA_GO "Message.Value");
	go_offset message_headers GO(KAFKA_GO "Message.Headers");
	go_offset message_time GO(KAFKA_GO "Message.Time"); /* the last field, three words */
	go_offset header_key GO("github.com/segmentio/kafka-go/protocol.Header.Key");
	go_offset header_value GO("github.com/segmentio/kafka-go/protocol.Header.Value");
	go_offset connection_topic GO(KAFKA_GO "Conn.topic");
	go_offset connection_partition GO(KAFKA_GO "Conn.partition");
	go_offset connection_client_id GO(KAFKA_GO "Conn.clientID");
};

LAYOUTS(kafka_go_layouts, struct kafka_go_layout);

/* protocol.Header: {Key string; Value []byte}. */
#define HEADER_WORDS 5
#define HEADERS_STEP 8 /* looked at at a time */
#define HEADERS_MAX  64 /* looked at of a message */

#define TRACEPARENT_BEGINS EIGHT('t', 'r', 'a', 'c', 'e', 'p', 'a', 'r')
#define TRACEPARENT_ENDS   EIGHT('e', 'n', 't', 0, 0, 0, 0, 0)
#define TRACESTATE_BEGINS  EIGHT('t', 'r', 'a', 'c', 'e', 's', 't', 'a')
#define TRACESTATE_ENDS	   EIGHT('t', 'e', 0, 0, 0, 0, 0, 0)

/* Room to look at a message. It lies in a map, one entry a goroutine: it is too large for the stack. */
struct kafka_go_scan {
	struct go_window message;
	__u64 headers[HEADERS_STEP * HEADER_WORDS];
	__u64 name[2]; /* of a header */
	struct go_string traceparent, tracestate; /* found */
	struct traceparent text;
	struct trace_context remote; /* what traceparent says */
	/* Of messages that are sent together: */
	struct go_string topic; /* of the first */
	__u64 topics[2][TOPIC_MAX / 8]; /* room to compare two */
	bool topics_differ;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct goroutine_key);
	__type(value, struct kafka_go_scan);
} kafka_go_scans SEC(".maps");

EMPTY_ENTRY(empty_kafka_go_scan, struct kafka_go_scan);

static __always_inline struct kafka_go_scan *kafka_go_scan_of(const struct goroutine_key *key)
{
	return find_or_add(&kafka_go_scans, &empty_kafka_go_scan, key);
}

static __always_inline const struct kafka_go_layout *kafka_go_layout_of(const struct hit *hit)
{
	return bpf_map_lookup_elem(&kafka_go_layouts, &hit->process->slot);
}

/* Look at `count` headers, not more than HEADERS_STEP. The last header of a name counts, as it does for Kafka's own
 * clients (Headers.lastHeader). A global function, which the verifier goes through once; so it takes the key of the
 * scan, and not the scan (pointers to memory: only since kernel 5.12). */
__noinline int kafka_go_headers_step(__u64 process, __u64 goid, __u64 headers, __u64 count)
{
	const struct goroutine_key key = {process, goid};
	struct kafka_go_scan *scan = bpf_map_lookup_elem(&kafka_go_scans, &key);

	CLAMP(count, HEADERS_STEP);
	if (!scan || !go_read_object(scan->headers, sizeof(scan->headers), count * HEADER_WORDS * 8, headers))
		return 0;
#pragma unroll
	for (__u32 i = 0; i < HEADERS_STEP; i++) {
		const __u64 *header = &scan->headers[i * HEADER_WORDS];
		__u64 length = header[1];

		if (i >= count || (length != sizeof("traceparent") - 1 && length != sizeof("tracestate") - 1))
			continue;
		scan->name[0] = 0;
		scan->name[1] = 0;
		CLAMP(length, 11);
		if (!go_read(scan->name, length, header[0]))
			continue;
		if (scan->name[0] == TRACEPARENT_BEGINS && scan->name[1] == TRACEPARENT_ENDS) {
			scan->traceparent.data = header[2];
			scan->traceparent.length = header[3];
		} else if (scan->name[0] == TRACESTATE_BEGINS && scan->name[1] == TRACESTATE_ENDS) {
			scan->tracestate.data = header[2];
			scan->tracestate.length = header[3];
		}
	}
	return 1;
}

/* The trace context among the headers of the message that the scan shows; NULL where it has none. */
static __always_inline const struct trace_context *kafka_go_context(struct kafka_go_scan *scan,
								    const struct kafka_go_layout *go, __u64 process,
								    __u64 goid, __u64 message)
{
	struct go_string headers = go_window_string(&scan->message, message, go->message_headers);

	scan->traceparent.length = 0;
	scan->tracestate.length = 0;
	if (!headers.length || go->header_key != 0 || go->header_value != 16)
		return NULL;
	for (__u32 i = 0; i < HEADERS_MAX / HEADERS_STEP; i++) {
		__u64 left = headers.length - i * HEADERS_STEP;

		if (headers.length <= i * HEADERS_STEP)
			break;
		kafka_go_headers_step(process, goid, headers.data + i * HEADERS_STEP * HEADER_WORDS * 8,
				      left < HEADERS_STEP ? left : HEADERS_STEP);
	}
	if (headers.length > HEADERS_MAX)
		count(COUNTER_HEADERS_UNREAD);
	return traceparent_read(&scan->text, &scan->traceparent, &scan->remote) ? &scan->remote : NULL;
}
