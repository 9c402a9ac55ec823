/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* A request that a net/http server serves, as the server's programs keep it: what the routers' programs, which are in
 * objects of their own, tell its route to. */
#pragma once

#include "span.h"
#include "text.h"

/* Whose words the route is in. One that is empty says that the router found none. */
enum http_router {
	ROUTER_UNKNOWN, /* no router's program had anything to say */
	ROUTER_SERVE_MUX, /* a pattern of http.ServeMux: [METHOD ][HOST]/[PATH] */
	ROUTER_PLAIN, /* a path's template */
	ROUTER_CHI, /* chi's patterns, one for each router on the way, side by side */
};

struct http_server_record {
	struct record_header header;
	__u16 status; /* as the handler set it; 0: it did not; STATUS_UNKNOWN: it could not be read */
	__u8 protocol_major, protocol_minor;
	__u8 tls; /* the connection is encrypted */
	__u8 hijacked; /* ended when the handler took the connection over */
	__u8 router; /* enum http_router */
	struct text remote_addr;
	/* Texts that are much the same from request to request stand together, so that their bytes make a key. */
	struct text host, user_agent, forwarded_proto, forwarded_host, method;
	struct text target, forwarded_for, forwarded, tracestate, route;
	struct text request_headers, response_headers; /* captured_headers.h */
};

#define STATUS_UNKNOWN 0xffff

#define METHOD_MAX	    24
#define HOST_MAX	    128
#define USER_AGENT_MAX	    256
#define FORWARDED_PROTO_MAX 8
#define FORWARDED_HOST_MAX  128
#define TARGET_MAX	    1024
#define REMOTE_ADDR_MAX	    64
#define FORWARDED_FOR_MAX   128
#define FORWARDED_MAX	    128
#define TRACESTATE_MAX	    256
#define ROUTE_MAX	    256
#define TEXTS_MAX	    2400 /* all of them at once */

/* A request in flight: its record as far as it is known, and what is needed to finish it. */
struct http_server_request {
	struct http_server_record record;
	char texts[TEXTS_MAX];
	__u64 call; /* the request that the starting call was given, of whichever type: tells a call from the next */
	__u64 request; /* *http.Request; 0: none seen yet */
	__u64 writer; /* *http2.responseWriter; 0: HTTP/1 */
	__u64 header; /* request.Header: tells whether `request` is still what it was */
	struct go_string remote_addr; /* of the request before, on the same connection */
	/* The request that turns an HTTP/1 connection into HTTP/2, which is then served as such. */
	bool becomes_http2;
	bool recorded; /* its span is open and sampled: the record is being filled */
	__u16 route_at; /* the record's length without its route, which comes last */
	__u64 route_text, route_parts; /* where a router will have put the route (route_expect); 0: nowhere */
	__u64 route_path; /* the bytes of the path that it was given */
};

#define RECORD_MAX (sizeof(struct http_server_record) + TEXTS_MAX)

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct goroutine_key);
	__type(value, struct http_server_request);
} http_server_requests SEC(".maps");

/* The request that the goroutine of this hit serves, if its span is recorded and open; else NULL. */
static __always_inline struct http_server_request *http_server_request_of(const struct hit *hit)
{
	struct http_server_request *request = bpf_map_lookup_elem(&http_server_requests, &hit->key);

	return request && request->recorded ? request : NULL;
}

/* A router is at work, or has decided: what one said before counts no more. */
static __always_inline void route_begin(struct http_server_request *request, enum http_router router)
{
	struct http_server_record *record = &request->record;

	record->router = router;
	record->header.length = request->route_at;
	record->route.length = 0;
	request->route_text = 0;
	request->route_parts = 0;
}

/* It has found a route; without this there is none. */
static __always_inline void route_set(struct http_server_request *request, enum http_router router,
				      const struct go_string *route)
{
	route_begin(request, router);
	text_append(&request->record, RECORD_MAX, &request->record.route, route, ROUTE_MAX);
}

/* It will have the route in the Go string at `text`, or, if `parts` is given, in the slice of strings there. Where it
 * finds none that string is empty, or still the path that it was given: the very bytes at `path`. This is read at the end
 * of the span, or when the router is about to give the memory away, whichever is first. */
static __always_inline void route_expect(struct http_server_request *request, enum http_router router, __u64 text,
					 __u64 parts, __u64 path)
{
	route_begin(request, router);
	request->route_text = text;
	request->route_parts = parts;
	request->route_path = path;
}

#define ROUTE_PARTS 8

static __always_inline void route_join(struct http_server_record *record, const struct go_slice *parts)
{
	struct go_string part;
	struct text text;
	__u16 cut = 0;

	record->route.offset = record->header.length;
#pragma unroll
	for (__u32 i = 0; i < ROUTE_PARTS; i++) {
		if (i >= parts->length || !go_read(&part, sizeof(part), parts->data + i * sizeof(part)))
			break;
		text_append(record, RECORD_MAX, &text, &part, ROUTE_MAX);
		cut |= text.length & TEXT_CUT;
	}
	record->route.length = (record->header.length - record->route.offset) | cut;
}

/* Read what route_expect has announced. */
static __always_inline void route_settle(struct http_server_request *request)
{
	struct go_string text = {};
	struct go_slice parts = {};

	if (!request->route_text)
		return;
	if (go_read(&text, sizeof(text), request->route_text) && text.length && text.data != request->route_path) {
		if (!request->route_parts)
			text_append(&request->record, RECORD_MAX, &request->record.route, &text, ROUTE_MAX);
		else if (go_read(&parts, sizeof(parts), request->route_parts))
			route_join(&request->record, &parts);
	}
	request->route_text = 0;
	request->route_parts = 0;
}

/* A router's call of sync.(*Pool).Put with the context that the route is in. */
static __always_inline void route_release(struct pt_regs *ctx)
{
	struct http_server_request *request;
	struct hit hit;

	if (hit_identify_sampled(&hit, ctx) && (request = http_server_request_of(&hit)))
		route_settle(request);
}
