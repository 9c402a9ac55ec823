/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What is told of messages to and from Kafka, whichever library sends or receives them. */
#pragma once

#include "go_error.h"

#define TOPIC_MAX      256 /* Kafka's own limit is 249 */
#define KEY_MAX	       128
#define SERVER_MAX     256
#define CLIENT_ID_MAX  128
#define GROUP_MAX      256
#define TRACESTATE_MAX 256
#define LINKS_MAX      8

#define PARTITION_UNKNOWN (-1)
#define PARTITION_SEVERAL (-2)
#define OFFSET_UNKNOWN	  (-1)

/* A span's context. */
struct kafka_link {
	__u8 trace_id[16];
	__u8 span_id[8];
};

struct kafka_producer_record {
	struct record_header header;
	__s64 offset; /* of the first message; OFFSET_UNKNOWN */
	__u64 begun; /* when a batch was, Unix time, ns; 0: the span is that of a call, which began with it */
	__u32 messages; /* of the call, or of the batch */
	__s32 partition; /* PARTITION_UNKNOWN, PARTITION_SEVERAL */
	__u8 failed; /* the call returned an error, or the batch came to one */
	__u8 tombstone; /* one message, without a value */
	__u8 links; /* of `link` */
	struct go_error error;
	struct text topic; /* empty where messages have different ones */
	struct text key; /* of one message */
	struct text server, client_id;
	struct kafka_link link[LINKS_MAX]; /* contexts that came with the messages, put there by the program itself */
};

struct kafka_consumer_record {
	struct record_header header;
	__s64 offset; /* OFFSET_UNKNOWN: there is no message */
	__s32 partition; /* PARTITION_UNKNOWN */
	__u8 receiving; /* the span is that of the call which gave the message; else of what is done with it */
	__u8 failed; /* that call returned an error, and no message */
	__u8 links; /* of `link`: 0 or 1 */
	struct go_error error;
	struct text topic, key, group, server, client_id, tracestate;
	struct kafka_link link; /* the context that came with the message, where that is not the parent */
};
