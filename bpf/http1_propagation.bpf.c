// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Trace context across services, HTTP/1: `traceparent`, and `tracestate` where one came in, are appended to what waits in
 * the connection's buffer when a client writes a request's header.
 *
 * (*transferWriter).writeHeader is called for each request when its first lines are in the buffer and the program's own
 * headers are about to follow, by the one goroutine that writes to this connection. Its writer is a *bufio.Writer which
 * belongs to a persistConn: so this is a client's request, and no response, no copy of a request that is written
 * elsewhere, and no CONNECT to a proxy, which is written by other means. What lies behind the buffer's n bytes is nobody's;
 * so the bytes are written first, and then n.
 *
 * What could not be written, or must not be, is noted for the other end of the connection (connection.h). */
#include "propagation.h"

struct http1_propagation_layout {
	go_offset transfer_header GO_EXACT("net/http.transferWriter.Header");
	go_offset connection GO_EXACT("net/http.persistConn.conn");
	go_address connection_writer GO_ITAB("net/http.persistConnWriter", "io.Writer");
	go_address write_header GO_PLACE("net/http.(*transferWriter).writeHeader");
};

LAYOUTS(http1_propagation_layouts, struct http1_propagation_layout);

/* A header line, as net/http writes it. */
struct traceparent_line {
	char name[13], value[TRACEPARENT_LENGTH], end[2];
};

enum sending {
	SENDING_WRITTEN, /* it goes out with the request */
	SENDING_OWN, /* the program sends its own */
	SENDING_NOT, /* it is to be noted */
	SENDING_UNKNOWN, /* whose request this is, is not known */
};

static __always_inline bool traceparent_line_write(__u64 to, const struct trace_context *context)
{
	struct traceparent_line line = {.name = "Traceparent: ", .end = "\r\n"};

	traceparent_format(line.value, context);
	return go_write(to, &line, sizeof(line));
}

/* Write `Tracestate: ...` to an address, if one came with the trace and there is room for it; give its length. */
static __always_inline __u64 tracestate_line_write(__u64 to, __u64 room, const struct trace_context *context)
{
	const struct tracestate *state = bpf_map_lookup_elem(&tracestates, context->trace_id);
	__u64 length;

	if (!state)
		return 0;
	length = state->length;
	if (!length || length > TRACESTATE_KEPT || room < 12 + length + 2)
		return 0;
	if (!go_write(to, "Tracestate: ", 12) || !tracestate_write(to + 12, state, length) ||
	    !go_write(to + 12 + length, "\r\n", 2))
		return 0;
	return 12 + length + 2;
}

/* Append the lines to the buffer of `writer`, which is at `address`. */
static __always_inline enum sending lines_append(const struct buffered_writer *writer, __u64 address,
						 const struct buffered_writer_layout *go,
						 const struct trace_context *context, struct outgoing *entry)
{
	__u64 end = writer->buffer.data + writer->used;
	__u64 length = sizeof(struct traceparent_line), used = writer->used;

	if (writer->error || used > writer->buffer.length || writer->buffer.length - used < length) {
		count(COUNTER_CONTEXTS_NO_ROOM);
		return SENDING_NOT;
	}
	if (!traceparent_line_write(end, context)) {
		count(COUNTER_CONTEXTS_WRITE_FAILED);
		return SENDING_NOT;
	}
	length += tracestate_line_write(end + length, writer->buffer.length - used - length, context);
	used += length;
	if (!go_write(address + go->used, &used, sizeof(used))) {
		count(COUNTER_CONTEXTS_WRITE_FAILED);
		return SENDING_NOT;
	}
	entry->written = end + length;
	count(COUNTER_CONTEXTS_WRITTEN);
	return SENDING_WRITTEN;
}

/* Tell the connection that the goroutine writes to, which is that of the persistConn at `owner` alone. */
static __always_inline bool own_connection_read(struct known_connection *own, const struct hit *hit, __u64 owner,
						go_offset connection, __u64 bias)
{
	struct header_scan *scan;
	bool known;

	if (own->owner == owner)
		return true;
	own->owner = 0;
	scan = header_scan_take();
	if (!scan)
		return false;
	known = go_read_field(&scan->connection.conn, sizeof(scan->connection.conn), owner, connection) &&
		connection_read(&scan->connection, hit, bias, true);
	if (known) {
		own->key = scan->connection.key;
		own->owner = owner;
	}
	header_scan_give(scan);
	return known;
}

/* func (t *transferWriter) writeHeader(w io.Writer, trace *httptrace.ClientTrace) error */
SEC("uprobe/net/http.(*transferWriter).writeHeader")
int http1_request_written(struct pt_regs *ctx)
{
	struct go_interface to = {GO_ARG_2(ctx), GO_ARG_3(ctx)};
	const struct http1_propagation_layout *go;
	const struct buffered_writer_layout *go_writer;
	__u64 header = 0;
	enum sending sending = SENDING_UNKNOWN;
	struct trace_context context;
	struct goroutine *goroutine;
	struct buffered_writer writer;
	struct outgoing_requests requests;
	struct hit hit;
	__u64 bias;
	bool known;

	if (!hit_identify(&hit, ctx))
		return 0;
	go = bpf_map_lookup_elem(&http1_propagation_layouts, &hit.process->slot);
	go_writer = bpf_map_lookup_elem(&buffered_writer_layouts, &hit.process->slot);
	if (!go || !go_writer)
		return 0;
	bias = go_bias(ctx, go->write_header);
	if (!is_itab(to.type, go_writer->type, bias) || !buffered_writer_read(&writer, to.data, go_writer) ||
	    !is_itab(writer.target.type, go->connection_writer, bias))
		return 0;

	if (!go_read_field(&header, sizeof(header), GO_ARG_1(ctx), go->transfer_header))
		return 0;
	known = outgoing_header(&requests, hit.key.process, header);
	if (known && requests.entry->written == writer.buffer.data + writer.used)
		return 0; /* the same call again, after its stack has grown (Go before 1.21, arm64) */
	if (!known || !*requests.requests) {
		count(COUNTER_CONTEXTS_UNKNOWN_REQUEST);
	} else if (!outgoing_find(&requests, &context)) {
		count(COUNTER_CONTEXTS_SHARED_HEADER);
	} else if (write_http1 && has_trace_header(&hit, header)) {
		/* Where nothing is written, it is heeded by the other end all the same. */
		count(COUNTER_CONTEXTS_OWN_HEADER);
		sending = SENDING_OWN;
	} else {
		sending = SENDING_NOT;
		if (write_http1)
			sending = lines_append(&writer, to.data, go_writer, &context, requests.entry);
	}

	if (!join_connections || (sending != SENDING_NOT && !are_connections_joined()))
		return 0;
	goroutine = find_or_add(&goroutines, &empty_goroutine, &hit.key);
	if (!goroutine || !own_connection_read(&goroutine->own, &hit, writer.target.data, go->connection, bias))
		return 0;
	if (sending == SENDING_NOT)
		connection_note(&goroutine->own.key, &context);
	else
		connection_forget(&goroutine->own.key);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
