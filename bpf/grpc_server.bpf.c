// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* google.golang.org/grpc server: one span a call, from (*Server).handleStream, on the goroutine that runs the handler, to
 * the writing of its status. A call whose status is not written any more, since its client has gone, ends when
 * handleStream returns.
 *
 * Where net/http serves the calls, the span takes the place of the request's.
 *
 * The parent is in the metadata that the transport has put into the stream's context: no probe reads headers, and calls
 * that share a connection cannot be confused. */
#include "grpc.h"
#include "http_headers.h"

struct grpc_server_layout {
	/* *ServerStream since grpc 1.69; up to 1.76 it embeds a pointer to the Stream, which is a part of it since. */
	go_offset server_stream_context GO(GRPC_TRANSPORT "ServerStream.Stream.ctx");
	go_offset server_stream_method GO(GRPC_TRANSPORT "ServerStream.Stream.method");
	go_offset server_stream_stream GO(GRPC_TRANSPORT "ServerStream.Stream");
	go_offset stream_context GO(GRPC_TRANSPORT "Stream.ctx");
	go_offset stream_method GO(GRPC_TRANSPORT "Stream.method");
	/* Of the transport: since grpc 1.60 in one struct. */
	go_offset peer_address GO(GRPC_TRANSPORT "http2Server.peer.Addr") GO(GRPC_TRANSPORT "http2Server.remoteAddr");
	go_offset local_address GO(GRPC_TRANSPORT "http2Server.peer.LocalAddr")
	    GO(GRPC_TRANSPORT "http2Server.localAddr");
	/* Tell the metadata among the values of a context. */
	go_distance metadata GO_TYPE("google.golang.org/grpc/metadata.MD");
	go_distance metadata_key GO_TYPE("google.golang.org/grpc/metadata.mdIncomingKey");
};

LAYOUTS(grpc_server_layouts, struct grpc_server_layout);

struct grpc_server_record {
	struct record_header header;
	__u32 code; /* of the status; GRPC_CODE_UNKNOWN: it was not written, or could not be read */
	struct tcp_address peer, local;
	__u8 method_unknown; /* the server has no such method */
	struct text method, tracestate;
};

#define METHOD_MAX     256
#define TRACESTATE_MAX 256
#define TEXTS_MAX      (METHOD_MAX + TRACESTATE_MAX)

RECORD(grpc_server_record);

/* A context with a value (context.valueCtx). What else is met has its parent at the same place. */
struct value_context {
	struct go_interface parent, key, value;
};

/* A call in flight. */
struct grpc_server_request {
	struct grpc_server_record record;
	char texts[TEXTS_MAX];
	__u64 stream; /* as handleStream was given it: tells a call from the next */
	struct value_context at; /* room to read one */
};

#define RECORD_MAX (sizeof(struct grpc_server_record) + TEXTS_MAX)

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct goroutine_key);
	__type(value, struct grpc_server_request);
} grpc_server_requests SEC(".maps");

EMPTY_ENTRY(grpc_server_empty_request, struct grpc_server_request);

static __always_inline struct grpc_server_request *request_find_or_add(const struct goroutine_key *key)
{
	return find_or_add(&grpc_server_requests, &grpc_server_empty_request, key);
}

#define VALUE_CONTEXTS 10 /* looked at: what interceptors of the transport (tap, stats) may put around the metadata */

/* The metadata that came with a call: the value in its context whose type is as far from its key's as metadata.MD is
 * from the type of its key, wherever in memory the program's types are. */
static __always_inline __u64 metadata_of(struct value_context *at, const struct grpc_server_layout *go, __u64 context)
{
	__u32 distance = go->metadata - go->metadata_key;

	if (go->metadata == GO_DISTANCE_UNKNOWN || go->metadata_key == GO_DISTANCE_UNKNOWN)
		return 0;
	for (int i = 0; i < VALUE_CONTEXTS; i++) {
		if ((__s64)context <= 4096 || bpf_probe_read_user(at, sizeof(*at), (const void *)context))
			return 0;
		if (at->value.type - at->key.type == (__u64)(__s64)(__s32)distance)
			return at->value.data;
		context = at->parent.data;
	}
	return 0;
}

/* Where the parts of a call are: in the stream itself, or in one that it points to. */
static __always_inline void stream_parts(const struct grpc_server_layout *go, __u64 stream, __u64 *context,
					 struct go_string *method)
{
	bool embeds = go->server_stream_context != GO_UNKNOWN;
	struct go_interface of_stream = {};

	if (!embeds && go->server_stream_stream != GO_UNKNOWN &&
	    !go_read_field(&stream, sizeof(stream), stream, go->server_stream_stream))
		return;
	if (go_read_field(&of_stream, sizeof(of_stream), stream,
			  embeds ? go->server_stream_context : go->stream_context))
		*context = of_stream.data;
	go_read_field(method, sizeof(*method), stream, embeds ? go->server_stream_method : go->stream_method);
}

static __always_inline const struct grpc_server_layout *layout_of(const struct hit *hit)
{
	return bpf_map_lookup_elem(&grpc_server_layouts, &hit->process->slot);
}

/* func (s *Server) handleStream(t transport.ServerTransport, stream *transport.ServerStream) */
SEC("uprobe/google.golang.org/grpc.(*Server).handleStream")
int grpc_server_start(struct pt_regs *ctx)
{
	const struct grpc_server_layout *go;
	const struct grpc_layout *common;
	struct grpc_server_request *entry;
	struct grpc_server_record *record;
	__u64 transport = GO_ARG_3(ctx), stream = GO_ARG_4(ctx), context = 0;
	const struct trace_context *remote = NULL;
	struct header_scan *headers;
	struct goroutine *goroutine;
	struct go_string method = {};
	struct span *span, *outer;
	struct hit hit;

	if (!hit_begin(&hit, ctx) || !(go = layout_of(&hit)))
		return 0;
	common = bpf_map_lookup_elem(&grpc_layouts, &hit.process->slot);
	goroutine = goroutine_find_or_add(&hit);
	entry = request_find_or_add(&hit.key);
	if (!common || !goroutine || !entry)
		return 0;
	if (span_find(goroutine, grpc_server_record_kind)) {
		/* The same call again, after its stack has grown (Go before 1.21, arm64). */
		if (entry->stream == stream)
			return 0;
		count(COUNTER_SPANS_ABANDONED);
	}
	goroutine->depth = 0;
	entry->stream = stream;
	stream_parts(go, stream, &context, &method);
	outer = context && context_find(hit.key.process, hit.key.goid, context) ? span_found(&hit, goroutine) : NULL;
	headers = header_scan_take();
	if (!headers)
		return 0;
	if (http_headers_context(&hit, headers, metadata_of(&entry->at, go, context)))
		remote = &headers->remote;
	span = span_enter(&hit, goroutine, grpc_server_record_kind, remote);
	if (!span)
		goto given;
	if (outer) {
		span->context = outer->context;
		__builtin_memcpy(span->parent_id, outer->parent_id, sizeof(span->parent_id));
		span->flags = outer->flags;
		span->start = bpf_ktime_get_ns();
		outer->flags |= SPAN_REPLACED;
	}
	context_note(hit.key.process, hit.key.goid, context, &span->context);
	if (!(span->context.flags & TRACE_FLAG_SAMPLED))
		goto given;

	record = &entry->record;
	record->header.length = sizeof(*record);
	record->code = GRPC_CODE_UNKNOWN;
	record->method_unknown = 0;
	tcp_address_of(&record->peer, common, transport, go->peer_address);
	tcp_address_of(&record->local, common, transport, go->local_address);
	text_append(record, RECORD_MAX, &record->method, &method, METHOD_MAX);
	record->tracestate.length = 0;
	http_headers_rest(&hit, headers);
	if (remote && headers->lines[HEADER_TRACESTATE])
		text_append(record, RECORD_MAX, &record->tracestate, &headers->values[HEADER_TRACESTATE],
			    TRACESTATE_MAX);
given:
	header_scan_give(headers);
	return 0;
}

/* Whether the server answers so because it has no such method (server.go, handleStream: "unknown service ...", "unknown
 * method ...", "malformed method name ..."). */
static __always_inline bool is_method_unknown(const struct grpc_layout *go, __u64 status)
{
	struct go_string text = {};
	__u64 message = 0, start = 0;

	if (!go_read_field(&message, sizeof(message), status, go->status_message) ||
	    !go_read_field(&text, sizeof(text), message, go->message_text) || text.length < 15 ||
	    !go_read(&start, sizeof(start), text.data))
		return false;
	return start == 0x206e776f6e6b6e75ULL /* "unknown " */ || start == 0x656d726f666c616dULL /* "malforme" */;
}

static __always_inline void server_end(struct pt_regs *ctx, const struct hit *hit, struct goroutine *goroutine,
				       struct span *span, struct grpc_server_request *entry)
{
	struct grpc_server_record *record = &entry->record;

	if (span->context.flags & TRACE_FLAG_SAMPLED) {
		span_record(hit, span, &record->header);
		record_submit(ctx, &record->header, RECORD_MAX);
	}
	span_pop(goroutine, span);
	bpf_map_delete_elem(&grpc_server_requests, &hit->key);
	if (!goroutine->depth && !goroutine->outgoing.given_up)
		bpf_map_delete_elem(&goroutines, &hit->key);
}

/* The call that the goroutine of this hit handles. */
static __always_inline bool server_current(const struct hit *hit, struct goroutine **goroutine, struct span **span,
					   struct grpc_server_request **entry)
{
	*goroutine = hit->goroutine;
	if (!*goroutine)
		return false;
	*span = span_find(*goroutine, grpc_server_record_kind);
	if (!*span)
		return false;
	*entry = bpf_map_lookup_elem(&grpc_server_requests, &hit->key);
	if (*entry)
		return true;
	count(COUNTER_SPANS_EVICTED);
	span_pop(*goroutine, *span);
	return false;
}

/* func (t *http2Server) writeStatus(s *ServerStream, st *status.Status) error, and that of serverHandlerTransport. */
SEC("uprobe/google.golang.org/grpc/internal/transport.(*http2Server).writeStatus")
int grpc_server_status(struct pt_regs *ctx)
{
	__u64 stream = GO_ARG_2(ctx), status = GO_ARG_3(ctx);
	const struct grpc_layout *common;
	struct grpc_server_request *entry;
	struct goroutine *goroutine;
	struct span *span;
	struct hit hit;

	if (!hit_begin(&hit, ctx) || !server_current(&hit, &goroutine, &span, &entry) || entry->stream != stream)
		return 0;
	common = bpf_map_lookup_elem(&grpc_layouts, &hit.process->slot);
	if (!common)
		return 0;
	entry->record.code = status_code(common, status);
	if (entry->record.code == GRPC_UNIMPLEMENTED)
		entry->record.method_unknown = is_method_unknown(common, status);
	server_end(ctx, &hit, goroutine, span, entry);
	return 0;
}

/* handleStream returns. */
SEC("uprobe/google.golang.org/grpc.(*Server).handleStream")
int grpc_server_return(struct pt_regs *ctx)
{
	struct grpc_server_request *entry;
	struct goroutine *goroutine;
	struct span *span;
	struct hit hit;

	if (hit_begin(&hit, ctx) && server_current(&hit, &goroutine, &span, &entry))
		server_end(ctx, &hit, goroutine, span, entry);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
