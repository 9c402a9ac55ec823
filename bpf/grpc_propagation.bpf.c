// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Trace context across services, google.golang.org/grpc: a header field is appended to the header block of a call.
 *
 * A call's list of fields is made on its own goroutine, which queues it for the one that writes to the connection,
 * loopyWriter's. That encodes the list into a buffer, hBuf, and hands its content to (*Framer).WriteHeaders. On amd64 that
 * parameter is on the stack: so the field, a literal one without indexing (header_block.h), is written into the buffer's spare
 * capacity, and then the length on the stack is raised. The buffer holds no pointers, belongs to the one goroutine,
 * and is begun anew for the next call.
 *
 * Nothing is appended to the list itself: it is made as long as most calls need it, and the words of its unused part, if
 * there is one, are pointers to the garbage collector.
 *
 * Which call a list belongs to is known by the list's address, from its queueing to its encoding. */
#include "grpc_outgoing.h"
#include "header_block.h"

#define GRPC_TRANSPORT "google.golang.org/grpc/internal/transport."

struct grpc_propagation_layout {
	/* headerFrame is another struct for servers since grpc 1.82.1. */
	go_offset item_fields GO_EXACT(GRPC_TRANSPORT "clientHeaders.hf") GO_EXACT(GRPC_TRANSPORT "headerFrame.hf");
	go_offset client_framer GO_EXACT(GRPC_TRANSPORT "http2Client.framer");
	go_offset client_list_limit GO_EXACT(GRPC_TRANSPORT "http2Client.maxSendHeaderListSize");
	go_offset framer_frames GO_EXACT(GRPC_TRANSPORT "framer.fr");
	go_offset loopy_framer GO_EXACT(GRPC_TRANSPORT "loopyWriter.framer");
	go_offset loopy_buffer GO_EXACT(GRPC_TRANSPORT "loopyWriter.hBuf");
	go_offset buffer_bytes GO_EXACT("bytes.Buffer.buf");
};

LAYOUTS(grpc_propagation_layouts, struct grpc_propagation_layout);

/* hpack.HeaderField: {Name, Value string; Sensitive bool} in every version. */
struct header_field {
	struct go_string name, value;
	__u64 sensitive;
};

#define FIELDS_MAX	   64 /* looked at: a longer list may have a trace header anywhere */
#define FIELD_OVERHEAD	   32 /* what a limit counts besides the texts (RFC 9113, 6.5.2) */
#define FIELD_SIZE_MAX	   (1 << 20)
#define FIELD_UNREADABLE   -1
#define FIELD_TRACE_HEADER -2

struct list_key {
	__u64 process; /* struct process.id */
	__u64 fields; /* []hpack.HeaderField: its first one */
};

/* A call whose header is to be written. */
struct grpc_header {
	struct trace_context context;
	__u64 frames; /* *http2.Framer of its connection */
	__u64 length; /* of the list */
	__u64 buffer; /* *bytes.Buffer: where it is encoded */
	__u64 stream;
};

/* Those that wait. One that never comes to be written is overwritten by the next one whose list lies there. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct list_key);
	__type(value, struct grpc_header);
} grpc_headers_queued SEC(".maps");

/* The one that a goroutine is writing. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct goroutine_key);
	__type(value, struct grpc_header);
} grpc_headers_written SEC(".maps");

static __always_inline const struct grpc_propagation_layout *layout_of(const struct hit *hit)
{
	return bpf_map_lookup_elem(&grpc_propagation_layouts, &hit->process->slot);
}

/* What a field counts in its list, bytes; or one of the two above. A global function, which the verifier goes through once
 * and not once for each field. */
__noinline int header_field_size(__u64 address)
{
	union header_text name = {};
	struct header_field field;

	if (!go_read(&field, sizeof(field), address) || field.name.length > FIELD_SIZE_MAX ||
	    field.value.length > FIELD_SIZE_MAX)
		return FIELD_UNREADABLE;
	if (field.name.length == 10 || field.name.length == 11) {
		if (!go_read(name.bytes, 10 + (field.name.length & 1), field.name.data))
			return FIELD_UNREADABLE;
		if (is_trace_header(&name, field.name.length))
			return FIELD_TRACE_HEADER;
	}
	return field.name.length + field.value.length + FIELD_OVERHEAD;
}

/* Whether a field may be appended to a list; `limit` is what the peer takes, bytes. What may not is counted. */
static __always_inline bool is_list_free(const struct go_slice *list, __u64 limit)
{
	__u64 total = TRACEPARENT_LIST_SIZE, left = list->length;
	__u64 address = list->data;

	for (int i = 0; i < FIELDS_MAX && left; i++) {
		int size = header_field_size(address);

		if (size < 0) {
			count(COUNTER_CONTEXTS_OWN_HEADER);
			return false;
		}
		total += size;
		address += sizeof(struct header_field);
		left--;
	}
	if (left) {
		count(COUNTER_CONTEXTS_OWN_HEADER);
		return false;
	}
	if (total > limit) {
		count(COUNTER_CONTEXTS_NO_ROOM);
		return false;
	}
	return true;
}

/* NewStream calls func (c *controlBuffer) executeAndPut(f func() bool, it cbItem) (bool, error): again, where it had to wait
 * for the peer to allow one more stream. */
SEC("uprobe/google.golang.org/grpc/internal/transport.(*http2Client).NewStream")
int grpc_header_queued(struct pt_regs *ctx)
{
	const struct grpc_propagation_layout *go;
	const struct grpc_attempt *attempt;
	const struct grpc_header *queued;
	struct grpc_header header = {};
	struct go_slice list;
	struct list_key key;
	__u64 limit_at, framer;
	__u32 limit;
	struct hit hit;

	if (!write_grpc || !hit_begin(&hit, ctx) || !(go = layout_of(&hit)) ||
	    !go_read_field(&list, sizeof(list), GO_ARG_4(ctx), go->item_fields) || !list.data)
		return 0;
	key.process = hit.key.process;
	key.fields = list.data;
	attempt = bpf_map_lookup_elem(&grpc_attempts, &hit.key);
	if (!attempt || !attempt->transport) {
		count(COUNTER_CONTEXTS_UNKNOWN_REQUEST);
		goto forget;
	}
	queued = bpf_map_lookup_elem(&grpc_headers_queued, &key);
	if (queued && queued->length == list.length &&
	    *(const any_u64 *)queued->context.span_id == *(const any_u64 *)attempt->context.span_id)
		return 0; /* the same attempt again */
	if (!go_read_field(&framer, sizeof(framer), attempt->transport, go->client_framer) ||
	    !go_read_field(&header.frames, sizeof(header.frames), framer, go->framer_frames) ||
	    !go_read_field(&limit_at, sizeof(limit_at), attempt->transport, go->client_list_limit))
		goto forget;
	limit = 0xffffffff;
	if (limit_at && !go_read(&limit, sizeof(limit), limit_at))
		goto forget;
	if (!is_list_free(&list, limit))
		goto forget;
	header.context = attempt->context;
	header.length = list.length;
	bpf_map_update_elem(&grpc_headers_queued, &key, &header, BPF_ANY);
	return 0;
forget:
	bpf_map_delete_elem(&grpc_headers_queued, &key);
	return 0;
}

/* func (l *loopyWriter) writeHeader(streamID uint32, endStream bool, hf []hpack.HeaderField, onWrite func()) error, of
 * servers as well. */
SEC("uprobe/google.golang.org/grpc/internal/transport.(*loopyWriter).writeHeader")
int grpc_header_encoded(struct pt_regs *ctx)
{
	const struct grpc_propagation_layout *go;
	const struct grpc_header *queued;
	struct grpc_header header;
	struct list_key key;
	__u64 framer, frames;
	struct hit hit;

	if (!write_grpc || !hit_begin(&hit, ctx) || !(go = layout_of(&hit)))
		return 0;
	key.process = hit.key.process;
	key.fields = GO_ARG_4(ctx);
	queued = bpf_map_lookup_elem(&grpc_headers_queued, &key);
	if (!queued)
		return 0;
	header = *queued;
	bpf_map_delete_elem(&grpc_headers_queued, &key);
	if (header.length != GO_ARG_5(ctx) ||
	    !go_read_field(&framer, sizeof(framer), GO_ARG_1(ctx), go->loopy_framer) ||
	    !go_read_field(&frames, sizeof(frames), framer, go->framer_frames) || frames != header.frames ||
	    !go_read_field(&header.buffer, sizeof(header.buffer), GO_ARG_1(ctx), go->loopy_buffer))
		return 0;
	header.stream = (__u32)GO_ARG_2(ctx);
	bpf_map_update_elem(&grpc_headers_written, &hit.key, &header, BPF_ANY);
	return 0;
}

#if defined(__TARGET_ARCH_x86)
/* The first words of a HeadersFrameParam, the same in every version: {StreamID uint32; BlockFragment []byte; EndStream,
 * EndHeaders bool; PadLength uint8; Priority PriorityParam}. */
struct headers_frame {
	__u32 stream, padding;
	struct go_slice block;
	__u8 end_stream, end_headers, pad_length, padding_2[5];
};

#define BLOCK_MAX 16384 /* bytes that grpc sends, and each peer takes, in a frame */

/* The block is all of the buffer, complete and in one frame, and has room behind it. */
static __always_inline bool is_block_of(const struct headers_frame *frame, const struct grpc_header *header,
					const struct grpc_propagation_layout *go)
{
	const struct go_slice *block = &frame->block;
	struct go_slice own;

	return frame->stream == header->stream && frame->end_headers == 1 && frame->end_stream <= 1 &&
	       !frame->pad_length && go_read_field(&own, sizeof(own), header->buffer, go->buffer_bytes) && own.data &&
	       own.data == block->data && own.length == block->length && own.capacity == block->capacity &&
	       own.length <= own.capacity && own.capacity - own.length >= sizeof(struct traceparent_field) &&
	       own.length <= BLOCK_MAX - sizeof(struct traceparent_field);
}

/* writeHeader calls func (f *Framer) WriteHeaders(p HeadersFrameParam) error. */
SEC("uprobe/google.golang.org/grpc/internal/transport.(*loopyWriter).writeHeader")
int grpc_header_written(struct pt_regs *ctx)
{
	const __u64 at = GO_SP(ctx); /* the return address is not there yet */
	const struct grpc_propagation_layout *go;
	const struct grpc_header *found;
	struct headers_frame frame;
	struct grpc_header header;
	__u64 length, room;
	struct hit hit;

	if (!write_grpc || !hit_begin(&hit, ctx) || !(go = layout_of(&hit)))
		return 0;
	found = bpf_map_lookup_elem(&grpc_headers_written, &hit.key);
	if (!found)
		return 0;
	header = *found;
	bpf_map_delete_elem(&grpc_headers_written, &hit.key);
	if (GO_ARG_1(ctx) != header.frames || !go_read(&frame, sizeof(frame), at) ||
	    !is_block_of(&frame, &header, go)) {
		count(COUNTER_CONTEXTS_NO_ROOM);
		return 0;
	}
	length = frame.block.length;
	room = frame.block.capacity - length;
	if (room > BLOCK_MAX - length)
		room = BLOCK_MAX - length;
	room = header_fields_write(frame.block.data + length, room, &header.context);
	length += room;
	if (!room || !go_write(at + offsetof(struct headers_frame, block.length), &length, sizeof(length)))
		count(COUNTER_CONTEXTS_WRITE_FAILED);
	else
		count(COUNTER_CONTEXTS_WRITTEN);
	return 0;
}
#else
/* All of the parameter is passed in registers, which a program cannot change. */
SEC("uprobe/google.golang.org/grpc/internal/transport.(*loopyWriter).writeHeader")
int grpc_header_written(struct pt_regs *ctx)
{
	struct hit hit;

	if (write_grpc && hit_begin(&hit, ctx) && !bpf_map_delete_elem(&grpc_headers_written, &hit.key))
		count(COUNTER_CONTEXTS_NO_ROOM);
	return 0;
}
#endif

char LICENSE[] SEC("license") = "GPL";
