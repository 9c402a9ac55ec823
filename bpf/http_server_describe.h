/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What a request that a net/http server serves says of itself, put into the record of its span. */
#pragma once

#include "http_headers.h"
#include "http_server.h"
#include "http_server_layout.h"

/* Method and target. HTTP/1 cuts both out of the request line, where they stand side by side: one read instead of
 * two. */
static __always_inline void append_request_line(struct http_server_record *record, struct go_string *method,
						struct go_string *target)
{
	struct go_string line = {method->data, method->length + 1 + target->length};
	__u16 cut = 0;

	if (target->data != method->data + method->length + 1 || method->length > METHOD_MAX) {
		text_append(record, RECORD_MAX, &record->method, method, METHOD_MAX);
		text_append(record, RECORD_MAX, &record->target, target, TARGET_MAX);
		return;
	}
	if (target->length > TARGET_MAX) {
		count(COUNTER_TEXTS_CUT);
		cut = TEXT_CUT;
		line.length = method->length + 1 + TARGET_MAX;
	}
	text_append(record, RECORD_MAX, &record->target, &line, METHOD_MAX + 1 + TARGET_MAX);
	record->method.offset = record->target.offset;
	record->method.length = 0;
	if (record->target.length <= method->length)
		return;
	record->method.length = method->length;
	record->target.offset += method->length + 1;
	record->target.length = (record->target.length - method->length - 1) | cut;
}

/* The client's address. All requests of an HTTP/1 connection have the same string, which the connection keeps alive:
 * its bytes are in the record already. */
static __always_inline void append_remote_addr(struct http_server_request *entry, const struct go_string *address)
{
	struct http_server_record *record = &entry->record;

	if (address->data == entry->remote_addr.data && address->length == entry->remote_addr.length &&
	    record->remote_addr.offset == sizeof(*record)) {
		record->header.length = sizeof(*record) + (record->remote_addr.length & (TEXT_CUT - 1));
		return;
	}
	text_append(record, RECORD_MAX, &record->remote_addr, address, REMOTE_ADDR_MAX);
	entry->remote_addr = *address;
}

/* A header's first line, if there is one. */
static __always_inline void append_header(struct http_server_record *record, struct text *text,
					  const struct header_scan *scan, enum http_header header, __u32 limit)
{
	struct go_string none = {};

	text_append(record, RECORD_MAX, text, scan->lines[header] ? &scan->values[header] : &none, limit);
}

/* What a request says of itself. A function of its own, as the verifier sees it too: else its variables would be on the
 * stack at the same time as those that are needed before. */
static __noinline int server_describe(struct http_server_request *entry, const struct header_scan *scan,
				      const struct http_server_layout *go, const struct request_fields *fields,
				      bool has_remote)
{
	struct http_server_record *record = &entry->record;
	const struct go_window *window = &scan->window;
	__u64 request = entry->call, writer = entry->writer;
	struct go_string method, target, text;

	record->header.length = sizeof(*record);
	record->status = 0;
	record->hijacked = 0;
	record->protocol_major = writer ? 2 : go_window_word(window, request, go->request_proto_major);
	record->protocol_minor = writer ? 0 : go_window_word(window, request, go->request_proto_minor);
	record->tls = go_window_word(window, request, fields->tls) != 0;
	/* The preface of HTTP/2 looks like a request, PRI * HTTP/2.0, to an HTTP/1 server. */
	entry->becomes_http2 = scan->lines[HEADER_HTTP2_SETTINGS] || (!writer && record->protocol_major == 2);

	text = go_window_string(window, request, fields->remote_addr);
	append_remote_addr(entry, &text);
	text = go_window_string(window, request, fields->host);
	text_append(record, RECORD_MAX, &record->host, &text, HOST_MAX);
	append_header(record, &record->user_agent, scan, HEADER_USER_AGENT, USER_AGENT_MAX);
	append_header(record, &record->forwarded_proto, scan, HEADER_FORWARDED_PROTO, FORWARDED_PROTO_MAX);
	append_header(record, &record->forwarded_host, scan, HEADER_FORWARDED_HOST, FORWARDED_HOST_MAX);
	method = go_window_string(window, request, fields->method);
	target = go_window_string(window, request, fields->uri);
	append_request_line(record, &method, &target);
	append_header(record, &record->forwarded_for, scan, HEADER_FORWARDED_FOR, FORWARDED_FOR_MAX);
	append_header(record, &record->forwarded, scan, HEADER_FORWARDED, FORWARDED_MAX);
	record->tracestate.length = 0;
	if (has_remote)
		append_header(record, &record->tracestate, scan, HEADER_TRACESTATE, TRACESTATE_MAX);
	entry->route_at = record->header.length;
	route_begin(entry, ROUTER_UNKNOWN);
	return 0;
}
