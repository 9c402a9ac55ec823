// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* net/http server, and golang.org/x/net/http2: one span a request.
 *
 * HTTP/1: from serverHandler.ServeHTTP to (*response).finishRequest, on the connection's goroutine. A handler that
 * panics never gets there; conn.serve recovers, and closes the connection. One that hijacks the connection does not
 * either: its span ends at Hijack.
 * HTTP/2: from (*serverConn).runHandler, on the stream's own goroutine, to the function that it defers, which runs
 * after a panic too. The request passes serverHandler.ServeHTTP as well, unless x/net/http2 serves it by itself.
 *
 * All that is told of a request is read when it starts, before the handler can change it; the status when it ends; the
 * route when a router has found it (http_server.h). */
#include "http_server.h"
#include "captured_headers.h"
#include "connection.h"
#include "tracestate.h"

struct http_server_layout {
	go_offset request_method GO("net/http.Request.Method");
	go_offset request_proto_major GO("net/http.Request.ProtoMajor");
	go_offset request_proto_minor GO("net/http.Request.ProtoMinor");
	go_offset request_header GO("net/http.Request.Header");
	go_offset request_host GO("net/http.Request.Host");
	go_offset request_remote_addr GO("net/http.Request.RemoteAddr");
	go_offset request_uri GO("net/http.Request.RequestURI");
	go_offset request_tls GO("net/http.Request.TLS");
	go_offset request_context GO("net/http.Request.ctx");
	go_offset request_pat GO("net/http.Request.pat"); /* since Go 1.22 */
	go_offset pattern_str GO("net/http.pattern.str");
	go_offset response_status GO("net/http.response.status");
	/* The response's header: as the handler sees it, and as it was when WriteHeader was called; nil before. What is
	 * there goes into spans as it is: no offset but a certain one will do. */
	go_offset response_header GO_EXACT("net/http.response.handlerHeader");
	go_offset response_snapshot GO_EXACT("net/http.response.cw.header");
	/* The connection. */
	go_offset response_conn GO_EXACT("net/http.response.conn");
	go_offset conn_rwc GO_EXACT("net/http.conn.rwc");
	go_address serve_http GO_PLACE("net/http.serverHandler.ServeHTTP");
	go_offset h2_state_stream GO_EXACT("net/http.http2responseWriterState.stream")
	    GO_EXACT("net/http/internal/http2.responseWriterState.stream");
	go_offset h2_stream_id GO_EXACT("net/http.http2stream.id") GO_EXACT("net/http/internal/http2.stream.id");
	go_offset h2_server_conn GO_EXACT("net/http.http2serverConn.conn")
	    GO_EXACT("net/http/internal/http2.serverConn.conn");
	go_address h2_run_handler GO_PLACE("net/http.(*http2serverConn).runHandler")
	    GO_PLACE("net/http/internal/http2.(*serverConn).runHandler");
	go_offset x_state_stream GO_EXACT("golang.org/x/net/http2.responseWriterState.stream");
	go_offset x_stream_id GO_EXACT("golang.org/x/net/http2.stream.id");
	go_offset x_server_conn GO_EXACT("golang.org/x/net/http2.serverConn.conn");
	go_address x_run_handler GO_PLACE("golang.org/x/net/http2.(*serverConn).runHandler");
	/* HTTP/2 in the standard library, up to Go 1.26 and since. */
	go_offset h2_writer_state GO("net/http.http2responseWriter.rws")
	    GO("net/http/internal/http2.responseWriter.rws");
	go_offset h2_state_status GO("net/http.http2responseWriterState.status")
	    GO("net/http/internal/http2.responseWriterState.status");
	go_offset h2_state_header GO_EXACT("net/http.http2responseWriterState.handlerHeader")
	    GO_EXACT("net/http/internal/http2.responseWriterState.handlerHeader");
	go_offset h2_state_snapshot GO_EXACT("net/http.http2responseWriterState.snapHeader")
	    GO_EXACT("net/http/internal/http2.responseWriterState.snapHeader");
	/* Since Go 1.27 the standard library's HTTP/2 has a request type of its own. */
	go_offset h2_own_type GO("net/http/internal/http2.ServerRequest.Header");
	go_offset h2_request_method GO("net/http/internal/http2.ServerRequest.Method") GO("net/http.Request.Method");
	go_offset h2_request_header GO("net/http/internal/http2.ServerRequest.Header") GO("net/http.Request.Header");
	go_offset h2_request_host GO("net/http/internal/http2.ServerRequest.Host") GO("net/http.Request.Host");
	go_offset h2_request_remote_addr GO("net/http/internal/http2.ServerRequest.RemoteAddr")
	    GO("net/http.Request.RemoteAddr");
	go_offset h2_request_uri GO("net/http/internal/http2.ServerRequest.RequestURI")
	    GO("net/http.Request.RequestURI");
	go_offset h2_request_tls GO("net/http/internal/http2.ServerRequest.TLS") GO("net/http.Request.TLS");
	go_offset h2_request_context GO("net/http/internal/http2.ServerRequest.Context") GO("net/http.Request.ctx");
	/* The same in golang.org/x/net/http2, which a program may contain besides. */
	go_offset x_writer_state GO("golang.org/x/net/http2.responseWriter.rws");
	go_offset x_state_status GO("golang.org/x/net/http2.responseWriterState.status");
	go_offset x_state_header GO_EXACT("golang.org/x/net/http2.responseWriterState.handlerHeader");
	go_offset x_state_snapshot GO_EXACT("golang.org/x/net/http2.responseWriterState.snapHeader");
};

LAYOUTS(http_server_layouts, struct http_server_layout);

RECORD(http_server_record);

EMPTY_ENTRY(http_server_empty_request, struct http_server_request);

/* Where the parts of a request lie, for either of its types. */
struct request_fields {
	go_offset method, header, host, remote_addr, uri, tls, context;
	/* HTTP/1: from the *response to its *conn, and there to the net.Conn. HTTP/2: from the *serverConn to the
	 * net.Conn, and from the responseWriter to the stream's number. */
	go_offset response_conn, conn, writer_state, state_stream, stream_id;
	go_address place; /* of the probe */
	__u64 owner; /* *response or *serverConn */
	__u64 writer; /* *responseWriter; 0: HTTP/1 */
};

static __always_inline struct http_server_request *request_find_or_add(const struct goroutine_key *key)
{
	return find_or_add(&http_server_requests, &http_server_empty_request, key);
}

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
		context_note(hit->key.process, hit->key.goid, context, &span->context);
		return;
	}
	if (goroutine->contexts_noted & context_bit(context))
		bpf_map_delete_elem(&contexts, &key);
	now = coarse_time();
	if (goroutine->connection_noted == now)
		return;
	goroutine->connection_noted = now;
	context_note_connection(hit->key.process, hit->key.goid, context);
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
						    const struct request_fields *fields, struct header_scan *scan)
{
	struct known_connection *own = &scan->own;
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

static __always_inline struct record_header *captured_record(const struct goroutine_key *key)
{
	struct http_server_request *entry = bpf_map_lookup_elem(&http_server_requests, key);

	return entry ? &entry->record.header : NULL;
}

static __always_inline __u32 captured_room(void)
{
	return RECORD_MAX - ROUTE_MAX;
}

/* A request begins in a process none of whose are sampled. What trace it belongs to is looked for when an HTTP client's call
 * is to send that on (unread_context.h). */
static __always_inline void server_start_unread(const struct hit *hit, struct goroutine *goroutine,
						const struct request_fields *fields, __u64 request)
{
	const struct trace_context unread = {};
	struct span *span = span_open(hit, goroutine, http_server_record_kind, &unread, false);

	if (!span)
		return;
	span->call = request;
	span->own_goroutine = fields->writer;
	goids_note(hit, goroutine, false);
	go_read_field(&goroutine->request_context, 8, request, fields->context);
	go_read_field(&goroutine->unread_header, 8, request, fields->header);
	note_unsampled(hit, goroutine, fields->writer, goroutine->request_context, span);
}

/* A request begins: open its span, and note what it says of itself. */
static __always_inline struct http_server_request *server_start(struct pt_regs *ctx, struct hit *hit,
								const struct http_server_layout *go,
								const struct request_fields *fields, __u64 request)
{
	__u64 writer = fields->writer;
	const struct trace_context *remote = NULL;
	struct http_server_request *entry;
	struct goroutine *goroutine;
	const struct go_window *window;
	struct header_scan *scan;
	__u64 header, context;
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
	if (hit->process->sampler == SAMPLER_ALWAYS_OFF && !write_grpc) {
		server_start_unread(hit, goroutine, fields, request);
		return NULL;
	}

	scan = header_scan_of(&hit->key);
	if (!scan || !go_window_read(&scan->window, request))
		return NULL;
	window = &scan->window;
	header = go_window_word(window, request, fields->header);
	context = go_window_word(window, request, fields->context);
	if (http_headers_context(hit, scan, header) ||
	    (!scan->lines[HEADER_TRACEPARENT] && context_from_connection(ctx, hit, fields, scan)))
		remote = &scan->remote;
	if (remote && (write_http1 || write_http2) && http_headers_state(hit, scan))
		tracestate_keep(remote->trace_id, &scan->values[HEADER_TRACESTATE]);
	span = span_enter(hit, goroutine, http_server_record_kind, remote);
	if (!span)
		return NULL;
	span->call = request;
	span->own_goroutine = writer;
	goroutine->request_context = context;
	if (!(span->context.flags & TRACE_FLAG_SAMPLED)) {
		note_unsampled(hit, goroutine, writer, context, span);
		return NULL;
	}
	if (writer)
		context_note(hit->key.process, hit->key.goid, context, &span->context);
	else
		context_note_request(hit->key.process, hit->key.goid, context, &span->context,
				     !goroutine->contexts_noted && !goroutine->connection_noted);
	goroutine->contexts_noted |= context_bit(context);
	entry = request_find_or_add(&hit->key);
	if (!entry)
		return NULL;
	http_headers_rest(hit, scan);
	entry->recorded = false;
	entry->call = request;
	entry->request = 0;
	entry->writer = writer;
	entry->header = header;

	server_describe(entry, scan, go, fields, remote);
	headers_capture(hit, entry->header, MESSAGE_REQUEST, &entry->record.header, &entry->record.request_headers);
	entry->route_at = entry->record.header.length;
	entry->recorded = true;
	return entry;
}

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

static __always_inline const struct http_server_layout *layout_of(const struct hit *hit)
{
	return bpf_map_lookup_elem(&http_server_layouts, &hit->process->slot);
}

/* func (sh serverHandler) ServeHTTP(rw ResponseWriter, req *Request) */
SEC("uprobe/net/http.serverHandler.ServeHTTP")
int http_server_start(struct pt_regs *ctx)
{
	const struct http_server_layout *go;
	struct http_server_request *entry;
	__u64 request = GO_ARG_4(ctx);
	struct span *span;
	struct hit hit;

	if (!hit_begin(&hit, ctx) || !(go = layout_of(&hit)))
		return 0;
	/* An HTTP/2 request on its way to the handler: from here on it is an *http.Request in every Go version. */
	if (hit.goroutine && (span = span_find(hit.goroutine, http_server_record_kind)) && span->own_goroutine) {
		entry = http_server_request_of(&hit);
		if (entry)
			entry->request = request;
		return 0;
	}

	struct request_fields fields = {
	    .method = go->request_method,
	    .header = go->request_header,
	    .host = go->request_host,
	    .remote_addr = go->request_remote_addr,
	    .uri = go->request_uri,
	    .tls = go->request_tls,
	    .context = GO_DATA_WORD(go->request_context),
	    .response_conn = go->response_conn,
	    .conn = go->conn_rwc,
	    .place = go->serve_http,
	    .owner = GO_ARG_3(ctx),
	};
	entry = server_start(ctx, &hit, go, &fields, request);
	if (entry)
		entry->request = request;
	return 0;
}

/* func (mux *ServeMux) findHandler(r *Request) (h Handler, patStr string, _ *pattern, matches []string), since Go 1.22,
 * has returned: with no pattern where it found none, or redirects. */
SEC("uprobe/net/http.(*ServeMux).findHandler")
int http_server_route(struct pt_regs *ctx)
{
	struct go_string pattern = {GO_ARG_3(ctx), GO_ARG_4(ctx)};
	struct http_server_request *entry;
	struct hit hit;

	if (!hit_identify_sampled(&hit, ctx) || !(entry = http_server_request_of(&hit)))
		return 0;
	if (GO_ARG_5(ctx))
		route_set(entry, ROUTER_SERVE_MUX, &pattern);
	else
		route_begin(entry, ROUTER_SERVE_MUX);
	return 0;
}

/* func (w *response) finishRequest(): the handler has returned. */
SEC("uprobe/net/http.(*response).finishRequest")
int http_server_end(struct pt_regs *ctx)
{
	const struct http_server_layout *go;
	struct http_server_request *entry;
	struct span *span;
	struct hit hit;
	__u64 status = 0;

	if (!hit_begin(&hit, ctx) || !(span = server_span(&hit)) || !(entry = server_request(&hit, span)) ||
	    !(go = layout_of(&hit)))
		return 0;
	if (!go_read_field(&status, sizeof(status), GO_ARG_1(ctx), go->response_status))
		status = STATUS_UNKNOWN;
	struct response_fields response = {GO_ARG_1(ctx), go->response_header, go->response_snapshot};
	server_end(ctx, &hit, go, span, entry, status, 0, false, &response);
	return 0;
}

/* func (c *conn) close(): with a request still open, its handler did not return. The goroutine ends. */
SEC("uprobe/net/http.(*conn).close")
int http_server_abort(struct pt_regs *ctx)
{
	const struct http_server_layout *go;
	struct http_server_request *entry;
	struct span *span;
	struct hit hit;

	if (!hit_begin(&hit, ctx) || !(go = layout_of(&hit)))
		return 0;
	if ((span = server_span(&hit)) && (entry = server_request(&hit, span)))
		server_end(ctx, &hit, go, span, entry, 0, RECORD_UNFINISHED, false, &no_response);
	bpf_map_delete_elem(&http_server_requests, &hit.key);
	bpf_map_delete_elem(&goroutines, &hit.key);
	return 0;
}

/* func (w *response) Hijack(): the handler takes the connection over, and net/http sees no more of it. */
SEC("uprobe/net/http.(*response).Hijack")
int http_server_hijack(struct pt_regs *ctx)
{
	const struct http_server_layout *go;
	struct http_server_request *entry;
	struct span *span;
	struct hit hit;
	__u64 status = 0;

	if (!hit_begin(&hit, ctx) || !(span = server_span(&hit)) || !(entry = server_request(&hit, span)) ||
	    !(go = layout_of(&hit)))
		return 0;
	if (!go_read_field(&status, sizeof(status), GO_ARG_1(ctx), go->response_status))
		status = STATUS_UNKNOWN;
	server_end(ctx, &hit, go, span, entry, status, 0, true, &no_response);
	return 0;
}

/* func (sc *http2serverConn) runHandler(rw *http2responseWriter, req *Request, handler func(...)), up to Go 1.26;
 * func (sc *serverConn) runHandler(rw *responseWriter, req *ServerRequest, handler func(...)), since. */
SEC("uprobe/net/http.(*http2serverConn).runHandler")
int http2_server_start(struct pt_regs *ctx)
{
	const struct http_server_layout *go;
	struct http_server_request *entry;
	struct hit hit;

	if (!hit_begin(&hit, ctx) || !(go = layout_of(&hit)))
		return 0;

	struct request_fields fields = {
	    .method = go->h2_request_method,
	    .header = go->h2_request_header,
	    .host = go->h2_request_host,
	    .remote_addr = go->h2_request_remote_addr,
	    .uri = go->h2_request_uri,
	    .tls = go->h2_request_tls,
	    .context = GO_DATA_WORD(go->h2_request_context),
	    .conn = go->h2_server_conn,
	    .writer_state = go->h2_writer_state,
	    .state_stream = go->h2_state_stream,
	    .stream_id = go->h2_stream_id,
	    .place = go->h2_run_handler,
	    .owner = GO_ARG_1(ctx),
	    .writer = GO_ARG_2(ctx),
	};
	entry = server_start(ctx, &hit, go, &fields, GO_ARG_3(ctx));
	if (entry && go->h2_own_type == GO_UNKNOWN)
		entry->request = GO_ARG_3(ctx);
	return 0;
}

/* The same in golang.org/x/net/http2, whose request is net/http's in every version. */
SEC("uprobe/golang.org/x/net/http2.(*serverConn).runHandler")
int x_http2_server_start(struct pt_regs *ctx)
{
	const struct http_server_layout *go;
	struct http_server_request *entry;
	struct hit hit;

	if (!hit_begin(&hit, ctx) || !(go = layout_of(&hit)))
		return 0;

	struct request_fields fields = {
	    .method = go->request_method,
	    .header = go->request_header,
	    .host = go->request_host,
	    .remote_addr = go->request_remote_addr,
	    .uri = go->request_uri,
	    .tls = go->request_tls,
	    .context = GO_DATA_WORD(go->request_context),
	    .conn = go->x_server_conn,
	    .writer_state = go->x_writer_state,
	    .state_stream = go->x_state_stream,
	    .stream_id = go->x_stream_id,
	    .place = go->x_run_handler,
	    .owner = GO_ARG_1(ctx),
	    .writer = GO_ARG_2(ctx),
	};
	entry = server_start(ctx, &hit, go, &fields, GO_ARG_3(ctx));
	if (entry)
		entry->request = GO_ARG_3(ctx);
	return 0;
}

/* The function that runHandler defers: the handler has returned, or panicked. The goroutine ends. */
static __always_inline int http2_end(struct pt_regs *ctx, bool x_net)
{
	const struct http_server_layout *go;
	struct http_server_request *entry;
	__u64 state = 0, status = 0;
	__u32 flags = 0;
	struct span *span;
	struct hit hit;

	if (!hit_begin(&hit, ctx) || !(go = layout_of(&hit)))
		return 0;
	if ((span = server_span(&hit)) && (entry = server_request(&hit, span))) {
		if (!go_read_field(&state, sizeof(state), entry->writer,
				   x_net ? go->x_writer_state : go->h2_writer_state) ||
		    !go_read_field(&status, sizeof(status), state, x_net ? go->x_state_status : go->h2_state_status))
			status = STATUS_UNKNOWN;
		if (is_panicking(ctx, hit.go))
			flags = RECORD_UNFINISHED;

		struct response_fields response = {
		    .writer = flags ? 0 : state,
		    .header = x_net ? go->x_state_header : go->h2_state_header,
		    .snapshot = x_net ? go->x_state_snapshot : go->h2_state_snapshot,
		};
		server_end(ctx, &hit, go, span, entry, status, flags, false, &response);
		bpf_map_delete_elem(&http_server_requests, &hit.key);
	}
	bpf_map_delete_elem(&goroutines, &hit.key);
	return 0;
}

SEC("uprobe/net/http.(*http2serverConn).runHandler.func1")
int http2_server_end(struct pt_regs *ctx)
{
	return http2_end(ctx, false);
}

SEC("uprobe/golang.org/x/net/http2.(*serverConn).runHandler.func1")
int x_http2_server_end(struct pt_regs *ctx)
{
	return http2_end(ctx, true);
}

char LICENSE[] SEC("license") = "GPL";
