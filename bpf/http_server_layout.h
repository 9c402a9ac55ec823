/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Where the parts of a net/http server's requests, responses and connections lie, in either version of HTTP. */
#pragma once

#include "go.h"

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

static __always_inline const struct http_server_layout *layout_of(const struct hit *hit)
{
	return bpf_map_lookup_elem(&http_server_layouts, &hit->process->slot);
}
