// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Trace context across services, HTTP/2: a header field is appended to the header block that a client is about to send.
 *
 * (*Framer).WriteHeaders is given the block as a slice of the connection's buffer for header blocks, ClientConn.hbuf, which
 * belongs to whoever holds the connection's write lock, as its caller does. On amd64 the parameter is passed on the stack:
 * so the field is written into the buffer's spare capacity, and then the length on the stack is raised. That this is a
 * client's framer is known by what it writes to, and that the slice is hbuf by comparing it with hbuf itself. The field is
 * a literal one without indexing, which leaves no trace in the compression's state (RFC 7541, 6.2.2).
 *
 * The goroutine that writes is started by the request's own (roundTrip: `go cs.doRequest(...)`), so g.parentGoid tells the
 * client span (Go 1.21 and later). */
#include "propagation.h"

struct http2_propagation_layout {
	/* In the standard library, up to Go 1.26 and since. */
	go_offset framer_writer GO_EXACT("net/http.http2Framer.w") GO_EXACT("net/http/internal/http2.Framer.w");
	go_offset sticky_conn GO_EXACT("net/http.http2stickyErrWriter.conn")
	    GO_EXACT("net/http/internal/http2.stickyErrWriter.conn");
	go_offset sticky_error GO_EXACT("net/http.http2stickyErrWriter.err")
	    GO_EXACT("net/http/internal/http2.stickyErrWriter.err");
	go_offset client_error GO_EXACT("net/http.http2ClientConn.werr")
	    GO_EXACT("net/http/internal/http2.ClientConn.werr");
	go_offset client_block GO_EXACT("net/http.http2ClientConn.hbuf.buf")
	    GO_EXACT("net/http/internal/http2.ClientConn.hbuf.buf");
	go_offset client_next GO_EXACT("net/http.http2ClientConn.nextStreamID")
	    GO_EXACT("net/http/internal/http2.ClientConn.nextStreamID");
	go_address sticky_writer GO_ITAB("net/http.http2stickyErrWriter", "io.Writer")
	    GO_ITAB("net/http/internal/http2.stickyErrWriter", "io.Writer");
	go_address write_headers GO_PLACE("net/http.(*http2Framer).WriteHeaders")
	    GO_PLACE("net/http/internal/http2.(*Framer).WriteHeaders");
	/* The same in golang.org/x/net/http2, which a program may contain besides. */
	go_offset x_framer_writer GO_EXACT("golang.org/x/net/http2.Framer.w");
	go_offset x_sticky_conn GO_EXACT("golang.org/x/net/http2.stickyErrWriter.conn");
	go_offset x_sticky_error GO_EXACT("golang.org/x/net/http2.stickyErrWriter.err");
	go_offset x_client_error GO_EXACT("golang.org/x/net/http2.ClientConn.werr");
	go_offset x_client_block GO_EXACT("golang.org/x/net/http2.ClientConn.hbuf.buf");
	go_offset x_client_next GO_EXACT("golang.org/x/net/http2.ClientConn.nextStreamID");
	go_address x_sticky_writer GO_ITAB("golang.org/x/net/http2.stickyErrWriter", "io.Writer");
	go_address x_write_headers GO_PLACE("golang.org/x/net/http2.(*Framer).WriteHeaders");
};

LAYOUTS(http2_propagation_layouts, struct http2_propagation_layout);

/* Where the parts of a client's connection lie, in either of the packages. */
struct http2_fields {
	go_offset framer_writer, sticky_conn, sticky_error, client_error, client_block, client_next;
	go_address sticky_writer, write_headers;
};

/* The first words of a HeadersFrameParam, the same in every version: {StreamID uint32; BlockFragment []byte; EndStream,
 * EndHeaders bool; PadLength uint8; Priority PriorityParam}. */
struct headers_frame {
	__u32 stream, padding;
	struct go_slice block;
	__u8 end_stream, end_headers, pad_length, padding_2[5];
};

#define BLOCK_MAX 16384 /* bytes that each peer takes in a frame: SETTINGS_MAX_FRAME_SIZE */

struct framer_key {
	__u64 process; /* struct process.id */
	__u64 framer; /* *Framer */
};

/* The last stream that a client's framer began. Its number tells the header of a request from trailers, and a call from
 * the same call that runs again. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct framer_key);
	__type(value, __u32);
} framer_streams SEC(".maps");

/* Within this time after a request that its caller gave up, the goroutine that was to write it may still do so, and would
 * be taken for that of the caller's next one. */
#define GIVEN_UP_TIME (1000ULL * 1000 * 1000)

#if defined(__TARGET_ARCH_x86)
struct traceparent_field {
	__u8 kind; /* literal header field without indexing, new name */
	__u8 name_length;
	char name[8]; /* Huffman-coded */
	__u8 value_length;
	char value[TRACEPARENT_LENGTH];
};

struct tracestate_head {
	__u8 kind, name_length;
	char name[7];
	__u8 value_length;
};

#define HUFFMAN		   0x80
#define PLAIN_LENGTH_LIMIT 127 /* from here on a length takes more than one byte */

/* Append the fields behind the block; `address` is where its length lies. */
static __always_inline bool fields_append(const struct go_slice *block, __u64 address,
					  const struct trace_context *context)
{
	struct traceparent_field field = {
	    .name_length = HUFFMAN | sizeof(field.name),
	    .name = "\x4d\x83\x21\x6b\x1d\x85\xa9\x3f",
	    .value_length = TRACEPARENT_LENGTH,
	};
	struct tracestate_head head = {.name_length = HUFFMAN | sizeof(head.name),
				       .name = "\x4d\x83\x21\x50\x91\xa4\xbf"};
	const struct tracestate *state;
	__u64 length = block->length + sizeof(field), text;

	if (length > block->capacity || length > BLOCK_MAX) {
		count(COUNTER_CONTEXTS_NO_ROOM);
		return false;
	}
	traceparent_format(field.value, context);
	if (!go_write(block->data + block->length, &field, sizeof(field)))
		goto failed;
	state = bpf_map_lookup_elem(&tracestates, context->trace_id);
	if (state) {
		text = state->length;
		if (text && text < PLAIN_LENGTH_LIMIT && length + sizeof(head) + text <= block->capacity &&
		    length + sizeof(head) + text <= BLOCK_MAX) {
			head.value_length = text;
			if (go_write(block->data + length, &head, sizeof(head)) &&
			    tracestate_write(block->data + length + sizeof(head), state, text))
				length += sizeof(head) + text;
		}
	}
	if (!go_write(address, &length, sizeof(length)))
		goto failed;
	count(COUNTER_CONTEXTS_WRITTEN);
	return true;
failed:
	count(COUNTER_CONTEXTS_WRITE_FAILED);
	return false;
}

/* The header block of a request can be written to: it is the connection's own buffer, all of it. */
static __always_inline bool is_block_of(const struct headers_frame *frame, __u64 client,
					const struct http2_fields *go)
{
	struct go_slice own;

	return frame->end_headers == 1 && frame->end_stream <= 1 && !frame->pad_length &&
	       go_read_field(&own, sizeof(own), client, go->client_block) && own.data &&
	       own.data == frame->block.data && own.length == frame->block.length &&
	       own.capacity == frame->block.capacity && own.length <= own.capacity;
}

/* Read the parameter, which is on the stack. */
static __always_inline bool frame_read(struct headers_frame *frame, struct pt_regs *ctx)
{
	return go_read(frame, sizeof(*frame), GO_SP(ctx) + 8);
}

static __always_inline bool frame_append(const struct headers_frame *frame, struct pt_regs *ctx, __u64 client,
					 const struct http2_fields *go, const struct trace_context *context)
{
	if (is_block_of(frame, client, go))
		return fields_append(&frame->block, GO_SP(ctx) + 8 + offsetof(struct headers_frame, block.length),
				     context);
	count(COUNTER_CONTEXTS_NO_ROOM);
	return false;
}
#else
/* All of the parameter is passed in registers, which a program cannot change. */
static __always_inline bool frame_read(struct headers_frame *frame, struct pt_regs *ctx)
{
	frame->stream = GO_ARG_2(ctx);
	return true;
}

#define frame_append(frame, ctx, client, go, context) false
#endif

/* Is this the first header that the framer writes for a stream? */
static __always_inline bool is_stream_new(const struct hit *hit, __u64 framer, __u32 stream, __u32 next)
{
	const struct framer_key key = {hit->key.process, framer};
	const __u32 *last = bpf_map_lookup_elem(&framer_streams, &key);

	/* The number of the next stream to be opened is that of this one, plus 2, until its header has been written
	 * (ClientConn.reqHeaderMu). So a lower stream than was seen before is another connection's, at the same address. */
	if (next != stream + 2 || (last && *last == stream))
		return false;
	bpf_map_update_elem(&framer_streams, &key, &stream, BPF_ANY);
	return true;
}

/* What the caller waits for, on the goroutine that started this one. */
static __always_inline bool caller_find(const struct hit *hit, __u64 *header, struct trace_context *context)
{
	struct goroutine_key caller = {.process = hit->key.process};
	const struct outgoing_call *call;

	if (!go_read_field(&caller.goid, sizeof(caller.goid), hit->g, hit->go->g_parent_goid))
		return false;
	call = bpf_map_lookup_elem(&outgoing_calls, &caller);
	if (!call || !call->header || (call->given_up && bpf_ktime_get_ns() - call->given_up < GIVEN_UP_TIME))
		return false;
	*header = call->header;
	*context = call->context;
	return true;
}

static __always_inline int request_written(struct pt_regs *ctx, struct hit *hit, const struct http2_fields *go)
{
	const struct buffered_writer_layout *go_writer;
	struct go_interface to;
	struct headers_frame frame;
	struct trace_context context;
	struct header_scan *scan;
	struct buffered_writer writer;
	bool known, own = false, written = false;
	__u64 header, client, bias;
	__u32 next;

	go_writer = bpf_map_lookup_elem(&buffered_writer_layouts, &hit->process->slot);
	if (!go_writer)
		return 0;
	bias = go_bias(ctx, go->write_headers);
	if (!go_read_field(&to, sizeof(to), GO_ARG_1(ctx), go->framer_writer) ||
	    !buffered_writer_read(&writer, &to, go_writer, bias) ||
	    !is_itab(writer.target.type, go->sticky_writer, bias))
		return 0; /* a server's */
	if (!go_read_field(&client, sizeof(client), writer.target.data, go->sticky_error) ||
	    go->client_error == GO_UNKNOWN || client < go->client_error)
		return 0;
	client -= go->client_error;
	if (!frame_read(&frame, ctx) || !go_read_field(&next, sizeof(next), client, go->client_next) ||
	    !is_stream_new(hit, GO_ARG_1(ctx), frame.stream, next))
		return 0; /* trailers; or the same call again, after its stack has grown (Go before 1.21, arm64) */

	known = caller_find(hit, &header, &context);
	if (!known) {
		count(COUNTER_CONTEXTS_UNKNOWN_REQUEST);
	} else if (has_trace_header(hit, header)) {
		count(COUNTER_CONTEXTS_OWN_HEADER);
		own = true;
	}
	if (write_http2 && known && !own)
		written = frame_append(&frame, ctx, client, go, &context);
	if (!join_connections || !known || own || written)
		return 0;
	scan = header_scan_of(&hit->key);
	if (scan &&
	    go_read_field(&scan->connection.conn, sizeof(scan->connection.conn), writer.target.data,
			  go->sticky_conn) &&
	    connection_read(&scan->connection, hit, bias, true)) {
		scan->connection.key.stream = frame.stream;
		connection_note(&scan->connection.key, &context);
	}
	return 0;
}

/* func (f *http2Framer) WriteHeaders(p http2HeadersFrameParam) error, up to Go 1.26;
 * func (f *Framer) WriteHeaders(p HeadersFrameParam) error, since. */
SEC("uprobe/net/http.(*http2Framer).WriteHeaders")
int http2_request_written(struct pt_regs *ctx)
{
	const struct http2_propagation_layout *go;
	struct hit hit;

	if (!hit_identify(&hit, ctx) || !(go = bpf_map_lookup_elem(&http2_propagation_layouts, &hit.process->slot)))
		return 0;

	struct http2_fields fields = {
	    .framer_writer = go->framer_writer,
	    .sticky_conn = go->sticky_conn,
	    .sticky_error = go->sticky_error,
	    .client_error = go->client_error,
	    .client_block = go->client_block,
	    .client_next = go->client_next,
	    .sticky_writer = go->sticky_writer,
	    .write_headers = go->write_headers,
	};
	return request_written(ctx, &hit, &fields);
}

/* The same in golang.org/x/net/http2. */
SEC("uprobe/golang.org/x/net/http2.(*Framer).WriteHeaders")
int x_http2_request_written(struct pt_regs *ctx)
{
	const struct http2_propagation_layout *go;
	struct hit hit;

	if (!hit_identify(&hit, ctx) || !(go = bpf_map_lookup_elem(&http2_propagation_layouts, &hit.process->slot)))
		return 0;

	struct http2_fields fields = {
	    .framer_writer = go->x_framer_writer,
	    .sticky_conn = go->x_sticky_conn,
	    .sticky_error = go->x_sticky_error,
	    .client_error = go->x_client_error,
	    .client_block = go->x_client_block,
	    .client_next = go->x_client_next,
	    .sticky_writer = go->x_sticky_writer,
	    .write_headers = go->x_write_headers,
	};
	return request_written(ctx, &hit, &fields);
}

char LICENSE[] SEC("license") = "GPL";
