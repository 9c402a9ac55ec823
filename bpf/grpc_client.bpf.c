// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* google.golang.org/grpc client: one span a call, whatever the number of its attempts.
 *
 * A unary call is (*ClientConn).Invoke, from its beginning to its return, interceptors included. A streaming call begins
 * with (*ClientConn).NewStream and goes on when that returns a stream. It ends when the client has no more use for it: then
 * its context is cancelled, for which a goroutine waits that grpc starts with every stream. */
#include "grpc.h"
#include "grpc_outgoing.h"
#include "go_type.h"

struct grpc_client_layout {
	go_offset connection_target GO("google.golang.org/grpc.ClientConn.target");
	go_offset stream_header GO("google.golang.org/grpc.clientStream.callHdr");
	go_offset header_method GO(GRPC_TRANSPORT "CallHdr.Method");
	go_offset stream_finished GO("google.golang.org/grpc.clientStream.finished");
	go_offset stream_attempt GO("google.golang.org/grpc.clientStream.attempt");
	go_offset attempt_stream GO("google.golang.org/grpc.csAttempt.transportStream")
	    GO("google.golang.org/grpc.csAttempt.s");
	/* A type of its own since grpc 1.69. */
	go_offset transport_status GO(GRPC_TRANSPORT "ClientStream.status") GO(GRPC_TRANSPORT "Stream.status");
	go_offset peer_address GO(GRPC_TRANSPORT "http2Client.remoteAddr");
	/* The error that a status becomes: it has had a status since grpc 1.40, a pointer to the message since 1.28; before
	 * it was the message itself, as statusError. */
	go_offset error_status GO("google.golang.org/grpc/internal/status.Error.s");
	go_offset error_message GO("google.golang.org/grpc/internal/status.Error.e");
};

LAYOUTS(grpc_client_layouts, struct grpc_client_layout);

#define ERRORS_MAX 4 /* an error, and those that it wraps */

struct grpc_client_record {
	struct record_header header;
	__u32 code; /* of a stream's status; GRPC_CODE_UNKNOWN: see the errors */
	/* What the call returned: the error, and those that it wraps, each with the code that it has if it is grpc's own. */
	__u32 codes[ERRORS_MAX];
	struct tcp_address peer; /* of the last attempt */
	__u8 failed; /* the call returned an error */
	__u8 streaming;
	struct text target, method;
	struct text errors[ERRORS_MAX]; /* their types, as %T prints them */
};

#define TARGET_MAX 256
#define METHOD_MAX 256
#define TEXTS_MAX  (TARGET_MAX + METHOD_MAX + ERRORS_MAX * TYPE_NAME_MAX)

RECORD(grpc_client_record);

/* A call in flight. */
struct grpc_client_request {
	struct grpc_client_record record;
	char texts[TEXTS_MAX];
	struct span span; /* of a stream, once it is on no goroutine any more */
};

#define RECORD_MAX (sizeof(struct grpc_client_record) + TEXTS_MAX)

/* Calls may be nested: an interceptor makes calls of its own. So the depth of the span is a part of the key. */
struct grpc_client_key {
	struct goroutine_key goroutine;
	__u64 depth;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct grpc_client_key);
	__type(value, struct grpc_client_request);
} grpc_client_requests SEC(".maps");

struct grpc_stream_key {
	__u64 process; /* struct process.id */
	__u64 stream; /* *clientStream */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct grpc_stream_key);
	__type(value, struct grpc_client_request);
} grpc_stream_requests SEC(".maps");

EMPTY_ENTRY(grpc_client_empty_request, struct grpc_client_request);

static __always_inline struct grpc_client_key request_key(const struct hit *hit, __u32 depth)
{
	struct grpc_client_key key = {hit->key, depth};

	return key;
}

static __always_inline struct grpc_client_request *request_find_or_add(const struct grpc_client_key *key)
{
	return find_or_add(&grpc_client_requests, &grpc_client_empty_request, key);
}

static __always_inline const struct grpc_client_layout *layout_of(const struct hit *hit)
{
	return bpf_map_lookup_elem(&grpc_client_layouts, &hit->process->slot);
}

/* The innermost span of the goroutine, if it is a call of this library. */
static __always_inline struct span *span_of_call(struct goroutine *goroutine)
{
	__u32 depth = goroutine->depth;
	struct span *span;

	if (!depth || depth > SPAN_DEPTH)
		return NULL;
	span = &goroutine->spans[(depth - 1) & (SPAN_DEPTH - 1)];
	return span->kind == grpc_client_record_kind ? span : NULL;
}

static __always_inline int client_start(struct pt_regs *ctx, __u64 method_data, __u64 method_length, bool streaming)
{
	__u64 connection = GO_ARG_1(ctx), context = GO_ARG_3(ctx);
	struct go_string text = {};
	const struct grpc_client_layout *go;
	struct grpc_client_request *entry;
	struct grpc_client_record *record;
	struct goroutine *goroutine;
	struct grpc_client_key key;
	struct span *span;
	struct hit hit;
	__u64 stack;

	if (!hit_begin(&hit, ctx) || !(go = layout_of(&hit)))
		return 0;
	goroutine = goroutine_find_or_add(&hit);
	if (!goroutine)
		return 0;
	/* The same call again, after its stack has grown (Go before 1.21, arm64). */
	stack = stack_in_use(&hit);
	span = span_of_call(goroutine);
	if (span && span->stack == stack && span->call == method_data)
		return 0;
	span = span_push(&hit, goroutine, grpc_client_record_kind, context);
	if (!span)
		return 0;
	span->call = method_data;
	key = request_key(&hit, goroutine->depth);
	entry = request_find_or_add(&key);
	if (!entry) {
		span_pop(goroutine, span);
		return 0;
	}
	if (!(span->context.flags & TRACE_FLAG_SAMPLED))
		return 0;
	record = &entry->record;
	record->header.length = sizeof(*record);
	record->code = GRPC_CODE_UNKNOWN;
	__builtin_memset(record->errors, 0, sizeof(record->errors));
	record->peer.length = 0;
	record->failed = 0;
	record->streaming = streaming;
	go_read_field(&text, sizeof(text), connection, go->connection_target);
	text_append(record, RECORD_MAX, &record->target, &text, TARGET_MAX);
	text.data = method_data;
	text.length = method_length;
	text_append(record, RECORD_MAX, &record->method, &text, METHOD_MAX);
	return 0;
}

/* func (cc *ClientConn) Invoke(ctx context.Context, method string, args, reply any, opts ...CallOption) error */
SEC("uprobe/google.golang.org/grpc.(*ClientConn).Invoke")
int grpc_client_start(struct pt_regs *ctx)
{
	return client_start(ctx, GO_ARG_4(ctx), GO_ARG_5(ctx), false);
}

/* func (cc *ClientConn) NewStream(ctx context.Context, desc *StreamDesc, method string, opts ...CallOption)
 *	(ClientStream, error) */
SEC("uprobe/google.golang.org/grpc.(*ClientConn).NewStream")
int grpc_stream_start(struct pt_regs *ctx)
{
	return client_start(ctx, GO_ARG_5(ctx), GO_ARG_6(ctx), true);
}

/* func (t *http2Client) NewStream(ctx context.Context, callHdr *CallHdr, ...): an attempt, over the connection `t`. A retry
 * may run on another goroutine than the call. */
SEC("uprobe/google.golang.org/grpc/internal/transport.(*http2Client).NewStream")
int grpc_client_attempt(struct pt_regs *ctx)
{
	const struct grpc_client_layout *go;
	const struct grpc_layout *common;
	struct grpc_client_request *entry;
	struct goroutine *goroutine;
	struct grpc_client_key key;
	struct span *span;
	struct hit hit;

	if (!hit_begin(&hit, ctx) || !(go = layout_of(&hit)))
		return 0;
	goroutine = hit.goroutine;
	span = goroutine ? span_of_call(goroutine) : NULL;
	if (write_grpc)
		grpc_attempt_begin(&hit, GO_ARG_1(ctx), span);
	if (!span)
		return 0;
	key = request_key(&hit, goroutine->depth);
	entry = bpf_map_lookup_elem(&grpc_client_requests, &key);
	common = bpf_map_lookup_elem(&grpc_layouts, &hit.process->slot);
	if (!entry || !common)
		return 0;
	if (span->context.flags & TRACE_FLAG_SAMPLED)
		tcp_address_of(&entry->record.peer, common, GO_ARG_1(ctx), go->peer_address);
	return 0;
}

/* An error, and those that it wraps: {msg string; err error} (fmt/errors.go, wrapError). */
struct wrap_error {
	struct go_string text;
	struct go_interface inner;
};

/* Note what a call returned. Each code is read as if the error were grpc's own: the agent sees by the types which one is.
 */
static __always_inline void errors_note(const struct hit *hit, struct grpc_client_record *record,
					const struct grpc_client_layout *go, const struct grpc_layout *common,
					__u64 itab, __u64 data)
{
	struct wrap_error wrapping;
	struct go_string name;
	__u64 inner;

#pragma unroll
	for (int i = 0; i < ERRORS_MAX; i++) {
		if (!itab || !data)
			return;
		record->codes[i] = GRPC_CODE_UNKNOWN;
		name = dynamic_type_name(hit, itab);
		text_append(record, RECORD_MAX, &record->errors[i], &name, TYPE_NAME_MAX);
		if (!record->errors[i].length)
			return;
		if (go->error_status != GO_UNKNOWN) {
			if (!bpf_probe_read_user(&inner, sizeof(inner), (const void *)(data + go->error_status)) &&
			    inner &&
			    !bpf_probe_read_user(&inner, sizeof(inner),
						 (const void *)(inner + common->status_message)) &&
			    inner && common->message_code != GO_UNKNOWN)
				bpf_probe_read_user(&record->codes[i], 4,
						    (const void *)(inner + common->message_code));
		} else if (go->error_message != GO_UNKNOWN) {
			if (!bpf_probe_read_user(&inner, sizeof(inner), (const void *)(data + go->error_message)) &&
			    inner)
				bpf_probe_read_user(&record->codes[i], 4,
						    (const void *)(inner + common->message_code));
		} else if (common->message_code != GO_UNKNOWN) {
			bpf_probe_read_user(&record->codes[i], 4, (const void *)(data + common->message_code));
		}
		if (bpf_probe_read_user(&wrapping, sizeof(wrapping), (const void *)data))
			return;
		itab = wrapping.inner.type;
		data = wrapping.inner.data;
	}
}

static __always_inline void client_submit(struct pt_regs *ctx, const struct hit *hit, const struct span *span,
					  struct grpc_client_request *entry)
{
	span_record(hit, span, &entry->record.header);
	record_submit(ctx, &entry->record.header, RECORD_MAX);
}

/* The call that returns here. */
static __always_inline struct span *call_returned(const struct hit *hit, struct goroutine **goroutine,
						  struct grpc_client_request **entry)
{
	struct grpc_client_key key;
	struct span *span;

	*goroutine = hit->goroutine;
	if (!*goroutine)
		return NULL;
	span = span_returned(hit, *goroutine, grpc_client_record_kind);
	if (!span)
		return NULL;
	/* What it has called and what did not return is dropped with it. */
	(*goroutine)->depth = (__u64)((char *)span - (char *)(*goroutine)->spans) / sizeof(*span) + 1;
	key = request_key(hit, (*goroutine)->depth);
	*entry = bpf_map_lookup_elem(&grpc_client_requests, &key);
	if (*entry)
		return span;
	count(COUNTER_SPANS_EVICTED);
	span_pop(*goroutine, span);
	return NULL;
}

/* Invoke returns. */
SEC("uprobe/google.golang.org/grpc.(*ClientConn).Invoke")
int grpc_client_end(struct pt_regs *ctx)
{
	const struct grpc_client_layout *go;
	const struct grpc_layout *common;
	struct grpc_client_request *entry;
	struct goroutine *goroutine;
	struct span *span;
	struct hit hit;

	if (!hit_begin(&hit, ctx) || !(go = layout_of(&hit)))
		return 0;
	common = bpf_map_lookup_elem(&grpc_layouts, &hit.process->slot);
	span = call_returned(&hit, &goroutine, &entry);
	if (!common || !span)
		return 0;
	if (span->context.flags & TRACE_FLAG_SAMPLED) {
		entry->record.failed = GO_ARG_1(ctx) != 0;
		if (entry->record.failed)
			errors_note(&hit, &entry->record, go, common, GO_ARG_1(ctx), GO_ARG_2(ctx));
		client_submit(ctx, &hit, span, entry);
	}
	span_pop(goroutine, span);
	return 0;
}

#define WRAPPERS_MAX 5 /* looked into: interceptors give back streams of their own */

/* The *clientStream that a ClientStream is, or that is in the first field of one, as wrappers embed it. It is known by its
 * call's method: the very string that NewStream was given. 0 where none is found. */
static __always_inline __u64 client_stream_of(const struct grpc_client_layout *go, __u64 stream, __u64 method)
{
	struct go_interface inner;
	__u64 header, data;

	if (go->stream_header == GO_UNKNOWN || go->header_method == GO_UNKNOWN)
		return 0;
	for (int i = 0; i < WRAPPERS_MAX; i++) {
		if ((__s64)stream <= 4096)
			return 0;
		if (!bpf_probe_read_user(&header, sizeof(header), (const void *)(stream + go->stream_header)) &&
		    (__s64)header > 4096 &&
		    !bpf_probe_read_user(&data, sizeof(data), (const void *)(header + go->header_method)) &&
		    data == method)
			return stream;
		if (bpf_probe_read_user(&inner, sizeof(inner), (const void *)stream))
			return 0;
		stream = inner.data;
	}
	return 0;
}

/* NewStream returns: with an error the call has ended, else it goes on without the goroutine. Where the stream can't be told from what
 * an interceptor has put around it, its span ends here too. */
SEC("uprobe/google.golang.org/grpc.(*ClientConn).NewStream")
int grpc_stream_started(struct pt_regs *ctx)
{
	const struct grpc_client_layout *go;
	const struct grpc_layout *common;
	struct grpc_client_request *entry;
	struct goroutine *goroutine;
	struct grpc_stream_key key;
	struct span *span;
	struct hit hit;

	if (!hit_begin(&hit, ctx) || !(go = layout_of(&hit)))
		return 0;
	common = bpf_map_lookup_elem(&grpc_layouts, &hit.process->slot);
	span = call_returned(&hit, &goroutine, &entry);
	if (!common || !span)
		return 0;
	if (span->context.flags & TRACE_FLAG_SAMPLED) {
		key.process = hit.key.process;
		key.stream = 0;
		if (GO_ARG_3(ctx)) {
			entry->record.failed = true;
			errors_note(&hit, &entry->record, go, common, GO_ARG_3(ctx), GO_ARG_4(ctx));
		} else {
			key.stream = client_stream_of(go, GO_ARG_2(ctx), span->call);
		}
		entry->span = *span;
		if (!key.stream)
			client_submit(ctx, &hit, span, entry);
		else if (bpf_map_update_elem(&grpc_stream_requests, &key, entry, BPF_ANY))
			count(COUNTER_SPANS_EVICTED);
	}
	span_pop(goroutine, span);
	return 0;
}

/* The goroutine that waits for a stream's context calls (*clientStream).finish(err), which does nothing more if the call
 * has ended already. */
SEC("uprobe/google.golang.org/grpc.newClientStreamWithParams.func4")
int grpc_stream_end(struct pt_regs *ctx)
{
	__u64 stream = GO_ARG_1(ctx), attempt = 0, transport_stream = 0, status = 0;
	const struct grpc_client_layout *go;
	const struct grpc_layout *common;
	struct grpc_client_request *entry;
	struct grpc_stream_key key = {};
	__u8 finished = 0;
	struct hit hit;

	if (!hit_begin(&hit, ctx) || !(go = layout_of(&hit)))
		return 0;
	common = bpf_map_lookup_elem(&grpc_layouts, &hit.process->slot);
	if (!common)
		return 0;
	key.process = hit.key.process;
	key.stream = stream;
	entry = bpf_map_lookup_elem(&grpc_stream_requests, &key);
	if (!entry)
		return 0;
	go_read_field(&finished, sizeof(finished), stream, go->stream_finished);
	if (finished && go_read_field(&attempt, sizeof(attempt), stream, go->stream_attempt) && attempt &&
	    go_read_field(&transport_stream, sizeof(transport_stream), attempt, go->attempt_stream) &&
	    transport_stream && go_read_field(&status, sizeof(status), transport_stream, go->transport_status) &&
	    status) {
		entry->record.code = status_code(common, status);
	} else {
		entry->record.failed = true;
		errors_note(&hit, &entry->record, go, common, GO_ARG_2(ctx), GO_ARG_3(ctx));
	}
	client_submit(ctx, &hit, &entry->span, entry);
	bpf_map_delete_elem(&grpc_stream_requests, &key);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
