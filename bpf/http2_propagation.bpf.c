// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Trace context across services, HTTP/2: a header field is appended to the header block that a client is about to send.
 *
 * (*ClientConn).writeHeaders writes the HEADERS frame into the connection's bufio.Writer and then flushes that. At the call
 * of Flush the frame lies there, alone and complete, and so it can be checked: it has to fill the buffer from its
 * start to its n bytes. What lies behind them is nobody's, since whoever calls holds the connection's write lock. The field
 * goes there, then its length is added to the frame's, and then to n. That this is a client's connection is known by
 * what it writes to. The field is a literal one without indexing (header_block.h).
 *
 * The goroutine that writes is started by the request's own (roundTrip: `go cs.doRequest(...)`), so g.parentGoid tells the
 * client span (Go 1.21 and later). */
#include "header_block.h"

struct http2_propagation_layout {
	/* In the standard library, up to Go 1.26 and since. */
	go_offset sticky_conn GO_EXACT("net/http.http2stickyErrWriter.conn")
	    GO_EXACT("net/http/internal/http2.stickyErrWriter.conn");
	go_offset sticky_error GO_EXACT("net/http.http2stickyErrWriter.err")
	    GO_EXACT("net/http/internal/http2.stickyErrWriter.err");
	go_offset client_error GO_EXACT("net/http.http2ClientConn.werr")
	    GO_EXACT("net/http/internal/http2.ClientConn.werr");
	go_offset client_next GO_EXACT("net/http.http2ClientConn.nextStreamID")
	    GO_EXACT("net/http/internal/http2.ClientConn.nextStreamID");
	go_offset client_list_limit GO_EXACT("net/http.http2ClientConn.peerMaxHeaderListSize")
	    GO_EXACT("net/http/internal/http2.ClientConn.peerMaxHeaderListSize");
	go_address sticky_writer GO_ITAB("net/http.http2stickyErrWriter", "io.Writer")
	    GO_ITAB("net/http/internal/http2.stickyErrWriter", "io.Writer");
	go_address flush GO_PLACE("net/http.(*http2ClientConn).writeHeaders calls bufio.(*Writer).Flush")
	    GO_PLACE("net/http/internal/http2.(*ClientConn).writeHeaders calls bufio.(*Writer).Flush");
	/* The same in golang.org/x/net/http2, which a program may contain besides. */
	go_offset x_sticky_conn GO_EXACT("golang.org/x/net/http2.stickyErrWriter.conn");
	go_offset x_sticky_error GO_EXACT("golang.org/x/net/http2.stickyErrWriter.err");
	go_offset x_client_error GO_EXACT("golang.org/x/net/http2.ClientConn.werr");
	go_offset x_client_next GO_EXACT("golang.org/x/net/http2.ClientConn.nextStreamID");
	go_offset x_client_list_limit GO_EXACT("golang.org/x/net/http2.ClientConn.peerMaxHeaderListSize");
	go_address x_sticky_writer GO_ITAB("golang.org/x/net/http2.stickyErrWriter", "io.Writer");
	go_address x_flush GO_PLACE("golang.org/x/net/http2.(*ClientConn).writeHeaders calls bufio.(*Writer).Flush");
};

LAYOUTS(http2_propagation_layouts, struct http2_propagation_layout);

/* Where the parts of a client's connection lie, in either of the packages. */
struct http2_fields {
	go_offset sticky_conn, sticky_error, client_error, client_next, client_list_limit;
	go_address sticky_writer, flush;
};

/* What a frame begins with (RFC 9113, 4.1). */
struct frame_head {
	__u8 length[3], type, flags, stream[4]; /* big-endian */
};

#define FRAME_HEADERS	  1
#define FRAME_END_HEADERS 0x04
#define FRAME_PADDED	  0x08
#define FRAME_MAX	  16384 /* bytes that each peer takes: SETTINGS_MAX_FRAME_SIZE is that or more */
#define LIST_LIMIT_MIN	  16384 /* bytes: a peer that takes shorter lists of fields than that gets nothing more */

struct writer_key {
	__u64 process; /* struct process.id */
	__u64 writer; /* *bufio.Writer */
};

/* The last stream that a client's connection began. Its number tells the header of a request from trailers. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct writer_key);
	__type(value, __u32);
} writer_streams SEC(".maps");

/* Within this time after a request that its caller gave up, the goroutine that was to write it may still do so, and would
 * be taken for that of the caller's next one. */
#define GIVEN_UP_TIME (1000ULL * 1000 * 1000)

/* The stream of the HEADERS frame that all that waits in the buffer is; 0 where that is anything else. */
static __always_inline __u32 stream_of(const struct frame_head *head, const struct buffered_writer *writer)
{
	__u64 length = (__u64)head->length[0] << 16 | (__u64)head->length[1] << 8 | head->length[2];

	if (writer->error || writer->used > writer->buffer.length || length + sizeof(*head) != writer->used ||
	    head->type != FRAME_HEADERS || !(head->flags & FRAME_END_HEADERS) || head->flags & FRAME_PADDED)
		return 0;
	return (__u32)head->stream[0] << 24 | (__u32)head->stream[1] << 16 | (__u32)head->stream[2] << 8 |
	       head->stream[3];
}

/* Append the fields to the frame. `address` is the writer's. */
static __always_inline bool frame_append(const struct frame_head *head, const struct buffered_writer *writer,
					 __u64 address, const struct buffered_writer_layout *go,
					 const struct trace_context *context)
{
	__u64 used = writer->used, room = writer->buffer.length - used, length;
	struct frame_head longer = *head;

	if (room < sizeof(struct traceparent_field) || writer->buffer.length > FRAME_MAX) {
		count(COUNTER_CONTEXTS_NO_ROOM);
		return false;
	}
	length = header_fields_write(writer->buffer.data + used, room, context);
	if (!length)
		goto failed;
	used += length;
	length = used - sizeof(*head);
	longer.length[0] = 0;
	longer.length[1] = length >> 8;
	longer.length[2] = length;
	if (!go_write(writer->buffer.data, longer.length, sizeof(longer.length)))
		goto failed;
	if (!go_write(address + go->used, &used, sizeof(used))) {
		/* The frame's start has just been written to, so it can be again. */
		go_write(writer->buffer.data, head->length, sizeof(head->length));
		goto failed;
	}
	count(COUNTER_CONTEXTS_WRITTEN);
	return true;
failed:
	count(COUNTER_CONTEXTS_WRITE_FAILED);
	return false;
}

/* Is this the first header that is written for a stream? */
static __always_inline bool is_stream_new(const struct hit *hit, __u64 writer, __u32 stream, __u32 next)
{
	const struct writer_key key = {hit->key.process, writer};
	const __u32 *last = bpf_map_lookup_elem(&writer_streams, &key);

	/* The number of the next stream to be opened is that of this one, plus 2, until its header has been written
	 * (ClientConn.reqHeaderMu). So a lower stream than was seen before is another connection's, at the same address. */
	if (next != stream + 2 || (last && *last == stream))
		return false;
	bpf_map_update_elem(&writer_streams, &key, &stream, BPF_ANY);
	return true;
}

/* What the caller waits for, on the goroutine that started this one. */
static __always_inline bool caller_find(const struct hit *hit, __u64 *header, struct trace_context *context)
{
	struct goroutine_key caller = {.process = hit->key.process};
	const struct goroutine *goroutine;
	const struct outgoing_call *call;

	if (!go_read_field(&caller.goid, sizeof(caller.goid), hit->g, hit->go->g_parent_goid))
		return false;
	goroutine = bpf_map_lookup_elem(&goroutines, &caller);
	if (!goroutine)
		return false;
	call = &goroutine->outgoing;
	if (!call->header || (call->given_up && bpf_ktime_get_ns() - call->given_up < GIVEN_UP_TIME))
		return false;
	*header = call->header;
	*context = call->context;
	return true;
}

static __always_inline int request_written(struct pt_regs *ctx, struct hit *hit, const struct http2_fields *go)
{
	__u64 address = GO_ARG_1(ctx), header, client, limit = 0, bias;
	const struct buffered_writer_layout *go_writer;
	bool known, own = false, written = false;
	struct frame_head head = {};
	struct trace_context context;
	struct header_scan *scan;
	struct buffered_writer writer;
	__u32 next, stream;

	go_writer = bpf_map_lookup_elem(&buffered_writer_layouts, &hit->process->slot);
	if (!go_writer || go->client_error == GO_UNKNOWN)
		return 0;
	bias = go_bias(ctx, go->flush);
	if (!buffered_writer_read(&writer, address, go_writer) ||
	    !is_itab(writer.target.type, go->sticky_writer, bias) ||
	    !go_read_field(&client, sizeof(client), writer.target.data, go->sticky_error) ||
	    client < go->client_error)
		return 0;
	client -= go->client_error;
	/* What the buffer could not hold is on its way already. */
	if (writer.used < sizeof(head) || !go_read(&head, sizeof(head), writer.buffer.data) ||
	    !(stream = stream_of(&head, &writer))) {
		count(COUNTER_CONTEXTS_NO_ROOM);
		return 0;
	}
	if (!go_read_field(&next, sizeof(next), client, go->client_next) ||
	    !is_stream_new(hit, address, stream, next))
		return 0; /* trailers */

	known = caller_find(hit, &header, &context);
	if (!known) {
		count(COUNTER_CONTEXTS_UNKNOWN_REQUEST);
	} else if (has_trace_header(hit, header)) {
		count(COUNTER_CONTEXTS_OWN_HEADER);
		own = true;
	}
	if (write_http2 && known && !own) {
		if (go_read_field(&limit, sizeof(limit), client, go->client_list_limit) && limit >= LIST_LIMIT_MIN)
			written = frame_append(&head, &writer, address, go_writer, &context);
		else
			count(COUNTER_CONTEXTS_NO_ROOM);
	}
	if (!join_connections || !known || own || written)
		return 0;
	scan = header_scan_take();
	if (!scan)
		return 0;
	if (go_read_field(&scan->connection.conn, sizeof(scan->connection.conn), writer.target.data,
			  go->sticky_conn) &&
	    connection_read(&scan->connection, hit, bias, true)) {
		scan->connection.key.stream = stream;
		connection_note(&scan->connection.key, &context);
	}
	header_scan_give(scan);
	return 0;
}

/* func (cc *http2ClientConn) writeHeaders(streamID uint32, endStream bool, maxFrameSize int, hdrs []byte) error
 * up to Go 1.26, (*ClientConn).writeHeaders since, calls func (b *Writer) Flush() error. */
SEC("uprobe/net/http.(*http2ClientConn).writeHeaders")
int http2_request_written(struct pt_regs *ctx)
{
	const struct http2_propagation_layout *go;
	struct hit hit;

	if (!hit_identify(&hit, ctx) || !(go = bpf_map_lookup_elem(&http2_propagation_layouts, &hit.process->slot)))
		return 0;

	struct http2_fields fields = {
	    .sticky_conn = go->sticky_conn,
	    .sticky_error = go->sticky_error,
	    .client_error = go->client_error,
	    .client_next = go->client_next,
	    .client_list_limit = go->client_list_limit,
	    .sticky_writer = go->sticky_writer,
	    .flush = go->flush,
	};
	return request_written(ctx, &hit, &fields);
}

/* The same in golang.org/x/net/http2. */
SEC("uprobe/golang.org/x/net/http2.(*ClientConn).writeHeaders")
int x_http2_request_written(struct pt_regs *ctx)
{
	const struct http2_propagation_layout *go;
	struct hit hit;

	if (!hit_identify(&hit, ctx) || !(go = bpf_map_lookup_elem(&http2_propagation_layouts, &hit.process->slot)))
		return 0;

	struct http2_fields fields = {
	    .sticky_conn = go->x_sticky_conn,
	    .sticky_error = go->x_sticky_error,
	    .client_error = go->x_client_error,
	    .client_next = go->x_client_next,
	    .client_list_limit = go->x_client_list_limit,
	    .sticky_writer = go->x_sticky_writer,
	    .flush = go->x_flush,
	};
	return request_written(ctx, &hit, &fields);
}

char LICENSE[] SEC("license") = "GPL";
