/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* A record of Kafka's message format, version 2, as github.com/segmentio/kafka-go has just encoded it into its pages: where it
 * lies, and making it longer by a header. */
#pragma once

#include "kafka_go.h"

#define KAFKA_PROTOCOL "github.com/segmentio/kafka-go/protocol."

struct kafka_go_propagation_layout {
	go_offset message_value GO_EXACT(KAFKA_GO "Message.Value");
	go_offset message_headers GO_EXACT(KAFKA_GO "Message.Headers");
	go_offset message_time GO_EXACT(KAFKA_GO "Message.Time"); /* the last field, three words */
	go_offset header_key GO_EXACT(KAFKA_PROTOCOL "Header.Key");
	go_offset header_value GO_EXACT(KAFKA_PROTOCOL "Header.Value");
	go_offset batch_messages GO_EXACT(KAFKA_GO "writeBatch.msgs");
	go_offset batch_bytes GO_EXACT(KAFKA_GO "writeBatch.bytes");
	go_offset records_messages GO_EXACT(KAFKA_GO "writerRecords.msgs");
	go_offset records_index GO_EXACT(KAFKA_GO "writerRecords.index");
	go_offset set_attributes GO_EXACT(KAFKA_PROTOCOL "RecordSet.Attributes");
	go_offset buffer_pages GO_EXACT(KAFKA_PROTOCOL "pageBuffer.pages");
	go_offset buffer_length GO_EXACT(KAFKA_PROTOCOL "pageBuffer.length");
	go_offset page_offset GO_EXACT(KAFKA_PROTOCOL "page.offset");
	go_offset page_length GO_EXACT(KAFKA_PROTOCOL "page.length");
	go_offset page_bytes GO_EXACT(KAFKA_PROTOCOL "page.buffer");
	__u32 page_size GO_ARRAY_LENGTH(KAFKA_PROTOCOL "page.buffer");
};

LAYOUTS(kafka_go_propagation_layouts, struct kafka_go_propagation_layout);

#define PAGE_SIZE	  65536 /* in every release so far; where it is not, nothing is written */
#define BATCH_HEAD	  61 /* bytes of a batch before its first record (Kafka's message format, version 2) */
#define COMPRESSION	  7 /* of a batch's attributes */
#define SENT_HEADERS_MAX  62 /* of a message: one more, and their count still takes one byte */
#define HEADER_TEXT_LIMIT (1 << 20)
#define SHORT_RECORD	  64 /* a record whose length, one byte, is below this */

/* Numbers are in zigzag encoding, and then seven bits a byte, the last of which has no high bit. */
#define ZIGZAG(number) ((number) * 2)

/* A record's header, as it is encoded. */
struct record_traceparent {
	__u8 name_length;
	char name[11];
	__u8 value_length;
	char value[TRACEPARENT_LENGTH];
};

#define GROWTH_MAX (sizeof(struct record_traceparent) + 1) /* of a record: its length may take one byte more */

/* What a goroutine encodes. */
struct kafka_go_encoding {
	__u64 buffer; /* *pageBuffer; 0: nothing */
	__u64 records; /* *writerRecords; 0: none was read yet */
	__u64 read; /* records so far */
	__u64 end; /* bytes of the buffer up to the end of the last of them */
	__u64 compressed;
	/* The record to be extended: */
	__u64 page; /* *page: the last one */
	__u64 bytes; /* of that page: the first one's address */
	__u64 used; /* of them */
	__u64 front; /* address of the record's first byte */
	__u64 head; /* what is read there */
	__u64 count_at; /* address of the count of its headers */
	__u64 headers; /* of the message */
	__u64 headers_size; /* bytes */
	struct record_traceparent added;
	__u8 text[2 * SHORT_RECORD]; /* a short record, one byte further */
	__u64 words[HEADERS_STEP * HEADER_WORDS];
	__u64 name[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct goroutine_key);
	__type(value, struct kafka_go_encoding);
} kafka_go_encodings SEC(".maps");

EMPTY_ENTRY(empty_kafka_go_encoding, struct kafka_go_encoding);

static __always_inline __u64 number_size(__u64 zigzag)
{
	return 1 + (zigzag >= 1 << 7) + (zigzag >= 1 << 14) + (zigzag >= 1 << 21);
}

/* Look at `count` headers of a message, not more than HEADERS_STEP, and sum their sizes; 0 where one of them is trace context,
 * or cannot be told. A global function for the same reasons as kafka_go_headers_step. */
__noinline int sent_headers_step(__u64 process, __u64 goid, __u64 headers, __u64 count)
{
	const struct goroutine_key key = {process, goid};
	struct kafka_go_encoding *encoding = bpf_map_lookup_elem(&kafka_go_encodings, &key);
	__u64 size = 0;

	CLAMP(count, HEADERS_STEP);
	if (!encoding || !go_read_object(encoding->words, sizeof(encoding->words), count * HEADER_WORDS * 8, headers))
		return 0;
#pragma unroll
	for (__u32 i = 0; i < HEADERS_STEP; i++) {
		const __u64 *header = &encoding->words[i * HEADER_WORDS];
		__u64 length = header[1], value = header[3];

		if (i >= count)
			break;
		if (length >= HEADER_TEXT_LIMIT || value >= HEADER_TEXT_LIMIT)
			return 0;
		size += number_size(ZIGZAG(length)) + length + number_size(ZIGZAG(value)) + value;
		if (length != sizeof("traceparent") - 1 && length != sizeof("tracestate") - 1)
			continue;
		encoding->name[0] = 0;
		encoding->name[1] = 0;
		CLAMP(length, 11);
		if (!go_read(encoding->name, length, header[0]))
			return 0;
		if ((encoding->name[0] == TRACEPARENT_BEGINS && encoding->name[1] == TRACEPARENT_ENDS) ||
		    (encoding->name[0] == TRACESTATE_BEGINS && encoding->name[1] == TRACESTATE_ENDS))
			return 0;
	}
	encoding->headers_size += size;
	return 1;
}

/* Note how many headers a message has, and what they take; false, and counted, where trace context may be one of them. */
static __always_inline bool headers_read(const struct hit *hit, struct kafka_go_encoding *encoding,
					 const struct kafka_go_propagation_layout *go, __u64 message)
{
	struct go_slice headers;

	if (!go_read_field(&headers, sizeof(headers), message, go->message_headers) ||
	    headers.length > SENT_HEADERS_MAX || go->header_key != 0 || go->header_value != 16)
		goto own;
	encoding->headers = headers.length;
	encoding->headers_size = 0;
	for (__u32 i = 0; i < HEADERS_MAX / HEADERS_STEP; i++) {
		__u64 left = headers.length - i * HEADERS_STEP;

		if (headers.length <= i * HEADERS_STEP)
			break;
		if (!sent_headers_step(hit->key.process, hit->key.goid,
				       headers.data + i * HEADERS_STEP * HEADER_WORDS * 8,
				       left < HEADERS_STEP ? left : HEADERS_STEP))
			goto own;
	}
	return true;
own:
	count(COUNTER_CONTEXTS_OWN_HEADER);
	return false;
}

/* Find the record from `start` to `end`, bytes of the buffer, in its pages; false where it does not lie as it has to. */
static __always_inline bool record_find(struct kafka_go_encoding *encoding,
					const struct kafka_go_propagation_layout *go, __u64 start, __u64 end)
{
	__u64 page = 0, offset = 0, bytes = 0, before;
	struct go_slice pages;

	if (go->page_size != PAGE_SIZE || end <= start ||
	    !go_read_field(&pages, sizeof(pages), encoding->buffer, go->buffer_pages) || !pages.length ||
	    !go_read(&page, sizeof(page), pages.data + (pages.length - 1) * 8) ||
	    !go_read_field(&offset, sizeof(offset), page, go->page_offset) ||
	    !go_read_field(&encoding->used, sizeof(encoding->used), page, go->page_length) ||
	    !go_read_field(&bytes, sizeof(bytes), page, go->page_bytes) || !bytes || encoding->used > PAGE_SIZE ||
	    offset + encoding->used != end)
		return false;
	before = encoding->headers_size + 1;
	if (before > encoding->used || before >= end - start)
		return false;
	encoding->page = page;
	encoding->bytes = bytes;
	encoding->count_at = bytes + encoding->used - before;
	if (start < offset) {
		/* It begins in an earlier page. */
		__u64 index = start / PAGE_SIZE, first = index * PAGE_SIZE;

		if (!go_read(&page, sizeof(page), pages.data + index * 8) ||
		    !go_read_field(&offset, sizeof(offset), page, go->page_offset) || offset != first ||
		    !go_read_field(&bytes, sizeof(bytes), page, go->page_bytes) || !bytes)
			return false;
	}
	if (start - offset > PAGE_SIZE - sizeof(encoding->head))
		return false;
	encoding->front = bytes + (start - offset);
	return go_read(&encoding->head, sizeof(encoding->head), encoding->front);
}

/* The number that `head` begins with, as far as it takes up to four bytes; `size` is set to how many. */
static __always_inline __u64 number_read(__u64 head, __u64 *size)
{
	__u64 number = head & 0x7f;

	*size = 1;
	if (!(head & 0x80))
		return number;
	*size = 2;
	number |= (head >> 1) & (0x7fULL << 7);
	if (!(head & 0x8000))
		return number;
	*size = 3;
	number |= (head >> 2) & (0x7fULL << 14);
	if (!(head & 0x800000))
		return number;
	*size = 4;
	return number | ((head >> 3) & (0x7fULL << 21));
}

/* A number in `size` bytes, two to four. */
static __always_inline __u64 number_bytes(__u64 number, __u64 size)
{
	__u64 bytes = (number & 0x7f) | (number & (0x7fULL << 7)) << 1 | 0x80;

	if (size > 2)
		bytes |= (number & (0x7fULL << 14)) << 2 | 0x8000;
	if (size > 3)
		bytes |= (number & (0x7fULL << 21)) << 3 | 0x800000;
	return bytes;
}

/* Raise, or lower, the lengths of the page and of the buffer. */
static __always_inline bool lengths_write(const struct kafka_go_encoding *encoding,
					  const struct kafka_go_propagation_layout *go, __u64 used, __u64 end)
{
	return go_write(encoding->page + go->page_length, &used, sizeof(used)) &&
	       go_write(encoding->buffer + go->buffer_length, &end, sizeof(end));
}

/* Write a short record, which lies at `text` + 2 but for its length, and `size` bytes of it, from `text` + `from`. */
static __always_inline bool short_record_write(struct kafka_go_encoding *encoding, __u64 to, __u32 from, __u64 size)
{
	CLAMP(size, SHORT_RECORD + 1);
	return (__s64)to > 0 && !bpf_probe_write_user((void *)to, encoding->text + from, size);
}

/* Change a record whose length, `length` until now, takes one byte more from now on: all of it moves on by that. */
static __always_inline bool short_record_extend(struct kafka_go_encoding *encoding,
						const struct kafka_go_propagation_layout *go, __u64 length, __u64 end)
{
	const __u64 grown = ZIGZAG(length + sizeof(struct record_traceparent));
	const __u64 used = encoding->used;
	__u64 body = length, at;

	at = 1 + encoding->count_at - encoding->front;
	if (length < 6 || length >= SHORT_RECORD || at > length + 1)
		return false;
	CLAMP(body, SHORT_RECORD - 1);
	MASK(at, 2 * SHORT_RECORD - 1);
	if (!go_read(encoding->text + 2, body, encoding->front + 1))
		return false;
	encoding->text[0] = (grown & 0x7f) | 0x80;
	encoding->text[1] = grown >> 7;
	encoding->text[at] = ZIGZAG(encoding->headers + 1);
	if (!lengths_write(encoding, go, used, end))
		return false;
	if (short_record_write(encoding, encoding->front, 0, length + 2) &&
	    lengths_write(encoding, go, used + GROWTH_MAX, end + GROWTH_MAX))
		return true;
	encoding->text[1] = ZIGZAG(length);
	encoding->text[at] = ZIGZAG(encoding->headers);
	short_record_write(encoding, encoding->front, 1, length + 1);
	lengths_write(encoding, go, used, end);
	return false;
}

/* Change a record whose length, `size` bytes, keeps its size. */
static __always_inline bool record_extend(struct kafka_go_encoding *encoding,
					  const struct kafka_go_propagation_layout *go, __u64 length, __u64 size,
					  __u64 end)
{
	const __u64 added = sizeof(struct record_traceparent), used = encoding->used;
	const __u8 count_before = ZIGZAG(encoding->headers), count_now = ZIGZAG(encoding->headers + 1);
	const __u64 before = encoding->head, all = ~0ULL << 8 * size;
	/* The bytes behind the number are the record's, which has as many. */
	const __u64 now = (before & all) | (number_bytes(ZIGZAG(length + added), size) & ~all);

	if (!lengths_write(encoding, go, used, end) || !go_write(encoding->count_at, &count_before, 1) ||
	    !go_write(encoding->front, &before, sizeof(before)))
		return false;
	if (go_write(encoding->front, &now, sizeof(now)) && go_write(encoding->count_at, &count_now, 1) &&
	    lengths_write(encoding, go, used + added, end + added))
		return true;
	go_write(encoding->front, &before, sizeof(before));
	go_write(encoding->count_at, &count_before, 1);
	lengths_write(encoding, go, used, end);
	return false;
}

/* Append the header to the record from `start` to `end`; give by how much it has grown. What is not done is counted. */
static __always_inline __u64 record_append(struct kafka_go_encoding *encoding,
					   const struct kafka_go_propagation_layout *go, __u64 start, __u64 end)
{
	__u64 number, length, size = 0, growth = sizeof(struct record_traceparent);
	__u8 headers = 0;
	bool done;

	if (!record_find(encoding, go, start, end)) {
		count(COUNTER_CONTEXTS_NO_ROOM);
		return 0;
	}
	number = number_read(encoding->head, &size);
	length = number / 2;
	if (number & 1 || length + size != end - start || !go_read(&headers, 1, encoding->count_at) ||
	    headers != ZIGZAG(encoding->headers)) {
		count(COUNTER_CONTEXTS_UNKNOWN_REQUEST);
		return 0;
	}
	if (number_size(ZIGZAG(length + growth)) != size)
		growth++;
	/* Only a short record can be moved on, and one that lies in one page. */
	if (encoding->used + growth > PAGE_SIZE || number_size(ZIGZAG(length + growth)) > 4 ||
	    (growth == GROWTH_MAX && (size != 1 || end - start > encoding->used))) {
		count(COUNTER_CONTEXTS_NO_ROOM);
		return 0;
	}
	if (!go_write(encoding->bytes + encoding->used + growth - sizeof(encoding->added), &encoding->added,
		      sizeof(encoding->added)))
		done = false;
	else if (growth == GROWTH_MAX)
		done = short_record_extend(encoding, go, length, end);
	else
		done = size > 1 && record_extend(encoding, go, length, size, end);
	count(done ? COUNTER_CONTEXTS_WRITTEN : COUNTER_CONTEXTS_WRITE_FAILED);
	return done ? growth : 0;
}

static __always_inline void traceparent_prepare(struct record_traceparent *to, const struct trace_context *context)
{
	to->name_length = ZIGZAG(sizeof(to->name));
	__builtin_memcpy(to->name, "traceparent", sizeof(to->name));
	to->value_length = ZIGZAG(sizeof(to->value));
	traceparent_format(to->value, context);
}
