/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* A net/http server's span ends: its route, and what its response says of itself. */
#pragma once

#include "http_server_start.h"

/* Where no router's program has said anything: the pattern by which http.ServeMux found the handler, which it notes in
 * the request (Go 1.22 and later): its `pat`, as `Pattern` is a mere path where ServeMux redirects to that path
 * (server.go, findHandler, up to Go 1.25). A request that was made on the way to the handler (HTTP/2 since Go 1.27) may
 * have been freed by now: it counts only while its header is still the very map it was, which the connection keeps
 * alive. */
static __always_inline void server_route(struct http_server_request *entry, const struct http_server_layout *go)
{
	struct go_string pattern = {};
	__u64 header = 0, pat = 0;

	if (entry->record.router != ROUTER_UNKNOWN || !entry->request)
		return;
	if (entry->request != entry->call &&
	    (!go_read_field(&header, sizeof(header), entry->request, go->request_header) || header != entry->header))
		return;
	if (go_read_field(&pat, sizeof(pat), entry->request, go->request_pat) && pat &&
	    go_read_field(&pattern, sizeof(pattern), pat, go->pattern_str))
		route_set(entry, ROUTER_SERVE_MUX, &pattern);
}

/* Where a response's header is. */
struct response_fields {
	__u64 writer; /* *response or *responseWriterState; 0: there is no response, or it may not have been sent */
	go_offset header, snapshot;
};

static const struct response_fields no_response = {};

/* What has been sent of a header, or is to be yet: the handler's as it was when WriteHeader was called, which may have been
 * changed since (trailers); as it is, where nobody has called that. HTTP/1 leaves the copy out where the handler had not
 * asked for its header by then: so there was nothing in it. */
static __always_inline void server_response_headers(const struct hit *hit, struct http_server_record *record,
						    const struct response_fields *response)
{
	__u64 header = 0;

	if (hit->process->headers)
		go_read_field(&header, sizeof(header), response->writer,
			      record->status ? response->snapshot : response->header);
	headers_capture(hit, header, MESSAGE_RESPONSE, &record->header, &record->response_headers);
}

/* A request ends, in one of the ways that the flags tell. */
static __always_inline void server_end(void *ctx, const struct hit *hit, const struct http_server_layout *go,
				       struct span *span, struct http_server_request *entry, __u64 status,
				       __u32 flags, bool hijacked, const struct response_fields *response)
{
	struct http_server_record *record = &entry->record;

	if (!(span->flags & SPAN_REPLACED) && !(hijacked && entry->becomes_http2)) {
		span_record(hit, span, &record->header);
		record->header.flags |= flags;
		record->status = status;
		record->hijacked = hijacked;
		route_settle(entry);
		server_route(entry, go);
		server_response_headers(hit, record, response);
		record_submit(ctx, &record->header, RECORD_MAX);
	}
	entry->recorded = false;
	span_pop(hit->goroutine, span);
}

/* The span of the request that the goroutine of this hit serves. One that is not sampled ends here: there is nothing more
 * to be told of it. */
static __always_inline struct span *server_span(const struct hit *hit)
{
	struct goroutine *goroutine = hit->goroutine;
	struct span *span;

	if (!goroutine)
		return NULL;
	span = span_find(goroutine, http_server_record_kind);
	if (!span)
		return NULL;
	goroutine->request_context = 0;
	goroutine->unread_header = 0;
	if (span->context.flags & TRACE_FLAG_SAMPLED)
		return span;
	span_pop(goroutine, span);
	return NULL;
}

/* The request of that span; where it is gone, the span goes too. */
static __always_inline struct http_server_request *server_request(const struct hit *hit, struct span *span)
{
	struct http_server_request *entry = bpf_map_lookup_elem(&http_server_requests, &hit->key);

	if (entry)
		return entry;
	count(COUNTER_SPANS_EVICTED);
	span_pop(hit->goroutine, span);
	return NULL;
}
