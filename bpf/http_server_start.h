/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* A net/http server's span begins: whose child it is, whether it is sampled, and what its request says of itself. */
#pragma once

#include "captured_headers.h"
#include "connection.h"
#include "http_server_describe.h"
#include "tracestate.h"

RECORD(http_server_record);

EMPTY_ENTRY(http_server_empty_request, struct http_server_request);

static __always_inline struct http_server_request *request_find_or_add(const struct goroutine_key *key)
{
	return find_or_add(&http_server_requests, &http_server_empty_request, key);
}

/* The bit of a context's address in goroutine.contexts_noted. */
static __always_inline __u64 context_bit(__u64 context)
{
	return 1ULL << (context * 0x9e3779b97f4a7c15ULL >> 58);
}

/* Whoever is given the context of a request that is not sampled has to know that. Requests of HTTP/1 come one after the
 * other on a connection, whose context tells; and so seldom is it noted that the map cannot have lost it meanwhile. A
 * sampled request may have had its context at the same address before. */
static __always_inline void note_unsampled(const struct hit *hit, struct goroutine *goroutine, bool http2,
					   __u64 context, const struct span *span)
{
	struct context_key key = {hit->key.process, context};
	__u64 now;

	if (http2) {
		context_note_stream(hit->key.process, hit->key.goid, context, &span->context);
		return;
	}
	if (goroutine->contexts_noted & context_bit(context))
		context_forget(&key);
	now = coarse_time();
	if (goroutine->connection_noted == now)
		return;
	goroutine->connection_noted = now;
	context_note_connection(hit->key.process, hit->key.goid, context);
}

/* Whoever is given the context of a sampled request is to become its child. */
static __always_inline void note_sampled(const struct hit *hit, struct goroutine *goroutine, bool http2,
					 __u64 context, const struct span *span)
{
	if (http2) {
		context_note_stream(hit->key.process, hit->key.goid, context, &span->context);
		return;
	}
	context_note_request(hit->key.process, hit->key.goid, context, &span->context, &goroutine->connection_context,
			     !goroutine->contexts_noted && !goroutine->connection_noted);
	goroutine->contexts_noted |= context_bit(context);
}

/* Tell the connection that a request came by. A function of its own as server_describe is. */
static __noinline int server_connection_read(struct pt_regs *ctx, const struct hit *hit,
					     const struct request_fields *fields, struct connection_reading *at)
{
	__u64 owner = fields->owner;

	if (fields->place == GO_NOWHERE ||
	    (!fields->writer && !go_read_field(&owner, sizeof(owner), owner, fields->response_conn)))
		return 0;
	return go_read_field(&at->conn, sizeof(at->conn), owner, fields->conn) &&
	       connection_read(at, hit, go_bias(ctx, fields->place), false);
}

/* The context of a request that carries none, if its client is traced on this machine; 0 where there is none. */
static __always_inline bool context_from_connection(struct pt_regs *ctx, const struct hit *hit,
						    const struct request_fields *fields, struct known_connection *own,
						    struct header_scan *scan)
{
	__u64 state = fields->writer;

	if (!are_connections_joined())
		return false;
	/* Each HTTP/2 request has a goroutine of its own. */
	if (state || !own->owner) {
		if (!server_connection_read(ctx, hit, fields, &scan->connection))
			return false;
		own->key = scan->connection.key;
		own->owner = !state;
	}
	if (state && (!go_read_field(&state, sizeof(state), state, fields->writer_state) ||
		      !go_read_field(&state, sizeof(state), state, fields->state_stream) ||
		      !go_read_field(&own->key.stream, sizeof(own->key.stream), state, fields->stream_id)))
		return false;
	return connection_take(&own->key, &scan->remote);
}

static __always_inline struct record_header *captured_record(const struct goroutine_key *key)
{
	struct http_server_request *entry = bpf_map_lookup_elem(&http_server_requests, key);

	return entry ? &entry->record.header : NULL;
}

static __always_inline __u32 captured_room(void)
{
	return RECORD_MAX - ROUTE_MAX;
}

/* A request begins in a process none of whose are sampled, or there is no room to look at it, so that it is not. What trace it
 * belongs to is looked for when an HTTP client's call is to send that on (unread_context.h). */
static __always_inline void server_start_unread(const struct hit *hit, struct goroutine *goroutine,
						const struct request_fields *fields, __u64 request)
{
	struct trace_context unread = {};
	__u64 context = 0, header = 0;
	struct span *span;

	if (is_context_sent_as_it_is())
		context_make_up(&unread);
	span = span_open(hit, goroutine, http_server_record_kind, &unread, false);
	if (!span)
		return;
	span->call = request;
	span->own_goroutine = fields->writer;
	goids_note(hit, goroutine, false);
	/* By way of the stack, as the kernel looks closer at what it is to copy to anywhere else. */
	go_read_field(&context, sizeof(context), request, fields->context);
	go_read_field(&header, sizeof(header), request, fields->header);
	goroutine->request_context = context;
	goroutine->unread_header = header;
	note_unsampled(hit, goroutine, fields->writer, context, span);
}

/* A word of a request that has been read by its first bytes. A global function, which the verifier goes through once. */
__noinline __u64 request_word(__u32 place, __u64 request, __u32 offset)
{
	const struct header_scan *scan = header_scan_at(place);

	return scan ? go_window_word(&scan->window, request, offset) : 0;
}

/* A request begins: open its span, and note what it says of itself, if that is wanted. */
static __always_inline struct http_server_request *server_start_read(struct pt_regs *ctx, struct hit *hit,
								     struct goroutine *goroutine,
								     const struct http_server_layout *go,
								     const struct request_fields *fields,
								     __u64 request, struct header_scan *scan)
{
	__u64 writer = fields->writer;
	const struct trace_context *remote = NULL;
	struct http_server_request *entry;
	struct span *span;
	__u64 word = 0;

	/* The header alone at first: a request that is not sampled needs no more than that and its context. */
	if (!go_read_field(&word, sizeof(word), request, fields->header))
		return NULL;
	if (http_headers_context(hit, scan, word) ||
	    (!scan->lines[HEADER_TRACEPARENT] && context_from_connection(ctx, hit, fields, &goroutine->own, scan)))
		remote = &scan->remote;
	if (remote && (write_http1 || write_http2) && http_headers_state(hit, scan))
		tracestate_keep(remote->trace_id, &scan->values[HEADER_TRACESTATE]);
	span = span_enter(hit, goroutine, http_server_record_kind, remote);
	if (!span)
		return NULL;
	span->call = request;
	span->own_goroutine = writer;
	if (!(span->context.flags & TRACE_FLAG_SAMPLED)) {
		word = 0;
		go_read_field(&word, sizeof(word), request, fields->context);
		goroutine->request_context = word;
		note_unsampled(hit, goroutine, writer, word, span);
		return NULL;
	}
	if (!go_window_read(&scan->window, request)) {
		span_pop(goroutine, span);
		return NULL;
	}
	goroutine->request_context = request_word(scan->place, request, fields->context);
	note_sampled(hit, goroutine, writer, goroutine->request_context, span);
	entry = request_find_or_add(&hit->key);
	if (!entry)
		return NULL;
	http_headers_rest(hit, scan);
	entry->recorded = false;
	entry->call = request;
	entry->request = 0;
	entry->writer = writer;
	entry->header = scan->map;

	server_describe(entry, scan, go, fields, remote);
	headers_capture(hit, entry->header, MESSAGE_REQUEST, &entry->record.header, &entry->record.request_headers);
	entry->route_at = entry->record.header.length;
	entry->recorded = true;
	return entry;
}

static __always_inline struct http_server_request *server_start(struct pt_regs *ctx, struct hit *hit,
								const struct http_server_layout *go,
								const struct request_fields *fields, __u64 request)
{
	struct http_server_request *entry;
	struct goroutine *goroutine;
	struct header_scan *scan = NULL;
	struct span *span;

	goroutine = goroutine_find_or_add(hit);
	if (!goroutine)
		return NULL;
	span = span_find(goroutine, http_server_record_kind);
	if (span) {
		/* The same call again, after its stack has grown (Go before 1.21, arm64). */
		if (span->call == request)
			return NULL;
		count(COUNTER_SPANS_ABANDONED);
		entry = http_server_request_of(hit);
		if (entry)
			entry->recorded = false;
	}
	goroutine->depth = 0;
	if (hit->process->sampler != SAMPLER_ALWAYS_OFF || is_context_sent_as_it_is())
		scan = header_scan_take();
	if (!scan) {
		server_start_unread(hit, goroutine, fields, request);
		return NULL;
	}
	entry = server_start_read(ctx, hit, goroutine, go, fields, request, scan);
	header_scan_give(scan);
	return entry;
}
