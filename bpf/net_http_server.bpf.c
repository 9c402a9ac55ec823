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
#include "http_server_start.h"
#include "http_server_end.h"

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
