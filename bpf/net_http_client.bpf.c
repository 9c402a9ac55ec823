// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* net/http client, and golang.org/x/net/http2 used without it: one span for each request that is sent, from the call of
 * (*Transport).roundTrip to its return, which is when the response's header has been read, or all has failed. A redirect
 * is another call, and so is a retry by whoever calls; retries by the transport itself are within one.
 *
 * What is told of a request is read when it starts; it belongs to the transport until it returns. */
#include "captured_headers.h"
#include "span.h"
#include "go_error.h"
#include "outgoing.h"
#include "unread_context.h"

struct http_client_layout {
	go_offset request_method GO("net/http.Request.Method");
	go_offset request_url GO("net/http.Request.URL");
	go_offset request_header GO("net/http.Request.Header");
	go_offset request_context GO("net/http.Request.ctx");
	go_offset request_response GO("net/http.Request.Response");
	go_offset url_scheme GO("net/url.URL.Scheme");
	go_offset url_user GO("net/url.URL.User");
	go_offset url_host GO("net/url.URL.Host");
	go_offset url_path GO("net/url.URL.Path");
	go_offset url_raw_path GO("net/url.URL.RawPath");
	go_offset url_raw_query GO("net/url.URL.RawQuery");
	go_offset url_fragment GO("net/url.URL.Fragment");
	go_offset response_status GO("net/http.Response.StatusCode");
	go_offset response_proto_major GO("net/http.Response.ProtoMajor");
	go_offset response_proto_minor GO("net/http.Response.ProtoMinor");
	go_offset response_request GO("net/http.Response.Request");
	go_offset response_header GO_EXACT("net/http.Response.Header");
};

LAYOUTS(http_client_layouts, struct http_client_layout);

struct http_client_record {
	struct record_header header;
	__u16 status; /* 0: none was read */
	__u8 protocol_major, protocol_minor; /* of the response */
	__u8 resend_count; /* by redirects */
	__u8 credentials; /* the URL has a user, and perhaps a password, neither of which is read */
	__u8 path_encoded; /* path is as it was sent: percent-encoded */
	__u8 failed; /* an error was returned, and no response */
	struct text method, scheme, host, path, query, fragment;
	struct go_error error;
	struct text request_headers, response_headers; /* captured_headers.h */
};

#define METHOD_MAX   24
#define SCHEME_MAX   8
#define HOST_MAX     256
#define PATH_MAX     1024
#define QUERY_MAX    1024
#define FRAGMENT_MAX 128
#define URL_MAX	     1280 /* of those that are read in one piece */
#define TEXTS_MAX    2720 /* all of them at once */

#define REDIRECTS_MAX 10 /* net/http's own limit (client.go: defaultCheckRedirect); what is more is not counted */

RECORD(http_client_record);

/* A request in flight. */
struct http_client_request {
	struct http_client_record record;
	char texts[TEXTS_MAX];
	struct go_window window; /* the request, its URL, the response */
};

#define RECORD_MAX (sizeof(struct http_client_record) + TEXTS_MAX)

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct goroutine_key);
	__type(value, struct http_client_request);
} http_client_requests SEC(".maps");

EMPTY_ENTRY(http_client_empty_request, struct http_client_request);

static __always_inline struct http_client_request *request_find_or_add(const struct goroutine_key *key)
{
	return find_or_add(&http_client_requests, &http_client_empty_request, key);
}

/* A URL's parts. One that was parsed (net/url.Parse) is cut out of one string, where they stand side by side: one read
 * instead of four. */
static __always_inline void append_url(struct http_client_record *record, struct go_string *scheme,
				       struct go_string *host, struct go_string *path, struct go_string *query)
{
	__u64 end = host->data + host->length;
	struct go_string whole;

	if (path->length && path->data == end)
		end += path->length;
	if (query->length && query->data == end + 1)
		end += 1 + query->length;
	whole.data = scheme->data;
	whole.length = end - scheme->data;
	if (host->data != scheme->data + scheme->length + 3 || whole.length > URL_MAX ||
	    (path->length && path->data != host->data + host->length) ||
	    (query->length && query->data != end - query->length)) {
		text_append(record, RECORD_MAX, &record->scheme, scheme, SCHEME_MAX);
		text_append(record, RECORD_MAX, &record->host, host, HOST_MAX);
		text_append(record, RECORD_MAX, &record->path, path, PATH_MAX);
		text_append(record, RECORD_MAX, &record->query, query, QUERY_MAX);
		return;
	}
	text_append(record, RECORD_MAX, &record->scheme, &whole, URL_MAX);
	record->host.length = 0;
	record->path.length = 0;
	record->query.length = 0;
	if (!record->scheme.length)
		return;
	record->host.offset = record->scheme.offset + (host->data - scheme->data);
	record->host.length = host->length;
	record->path.offset = record->host.offset + host->length;
	record->path.length = path->length;
	record->query.offset = record->scheme.offset + (query->data - scheme->data);
	record->query.length = query->length;
	record->scheme.length = scheme->length;
}

/* How many redirects led to a request: each names the response that it follows, which names the request before. */
static __always_inline __u8 count_redirects(const struct http_client_layout *go, __u64 response)
{
	__u64 request = 0;
	__u8 redirects = 0;

	for (int i = 0; i < REDIRECTS_MAX; i++) {
		if (!response)
			break;
		redirects++;
		if (!go_read_field(&request, sizeof(request), response, go->response_request) || !request ||
		    !go_read_field(&response, sizeof(response), request, go->request_response))
			break;
	}
	return redirects;
}

static __always_inline struct record_header *captured_record(const struct goroutine_key *key)
{
	struct http_client_request *entry = bpf_map_lookup_elem(&http_client_requests, key);

	return entry ? &entry->record.header : NULL;
}

static __always_inline __u32 captured_room(void)
{
	return RECORD_MAX - ERROR_MAX;
}

/* What a request says of itself. */
static __always_inline void client_describe(const struct hit *hit, struct http_client_request *entry,
					    const struct http_client_layout *go, __u64 request)
{
	struct http_client_record *record = &entry->record;
	const struct go_window *window = &entry->window;
	struct go_string method, scheme, host, path, query, fragment;
	__u64 url, response, header;

	record->header.length = sizeof(*record);
	record->status = 0;
	record->protocol_major = 0;
	record->protocol_minor = 0;
	record->failed = 0;
	go_error_clear(&record->error);
	url = go_window_word(window, request, go->request_url);
	header = go_window_word(window, request, go->request_header);
	method = go_window_string(window, request, go->request_method);
	response = go_window_word(window, request, go->request_response);
	record->resend_count = response ? count_redirects(go, response) : 0;
	text_append(record, RECORD_MAX, &record->method, &method, METHOD_MAX);

	/* From here on the window shows the URL. */
	if (!url || !go_window_read(&entry->window, url))
		__builtin_memset(&entry->window, 0, WINDOW_BYTES);
	record->credentials = go_window_word(window, url, go->url_user) != 0;
	scheme = go_window_string(window, url, go->url_scheme);
	host = go_window_string(window, url, go->url_host);
	path = go_window_string(window, url, go->url_raw_path);
	record->path_encoded = path.length != 0;
	if (!path.length)
		path = go_window_string(window, url, go->url_path);
	query = go_window_string(window, url, go->url_raw_query);
	fragment = go_window_string(window, url, go->url_fragment);
	append_url(record, &scheme, &host, &path, &query);
	text_append(record, RECORD_MAX, &record->fragment, &fragment, FRAGMENT_MAX);
	headers_capture(hit, header, MESSAGE_REQUEST, &record->header, &record->request_headers);
	record->response_headers.length = 0;
}

static __always_inline const struct http_client_layout *layout_of(const struct hit *hit)
{
	return bpf_map_lookup_elem(&http_client_layouts, &hit->process->slot);
}

/* func (t *Transport) roundTrip(req *Request) (*Response, error) */
SEC("uprobe/net/http.(*Transport).roundTrip")
int http_client_start(struct pt_regs *ctx)
{
	const struct http_client_layout *go;
	struct http_client_request *entry;
	struct goroutine *goroutine;
	__u64 context = 0, header = 0, request = GO_ARG_2(ctx);
	struct span *span;
	struct hit hit;

	if (!hit_begin(&hit, ctx) || !(go = layout_of(&hit)))
		return 0;
	goroutine = goroutine_find_or_add(&hit);
	if (!goroutine)
		return 0;
	go_read_field(&context, sizeof(context), request, GO_DATA_WORD(go->request_context));
	span = span_push_outermost(&hit, goroutine, http_client_record_kind, context, request);
	if (!span)
		return 0;
	if (is_context_sent()) {
		if (is_context_unread(&span->context))
			context_read_late(&hit, goroutine, &span->context);
		go_read_field(&header, sizeof(header), request, go->request_header);
		outgoing_begin(&hit, goroutine, header, &span->context);
	}
	if (!(span->context.flags & TRACE_FLAG_SAMPLED))
		return 0;
	entry = request_find_or_add(&hit.key);
	if (entry && go_window_read(&entry->window, request))
		client_describe(&hit, entry, go, request);
	else
		span_pop(goroutine, span);
	return 0;
}

/* roundTrip returns. */
SEC("uprobe/net/http.(*Transport).roundTrip")
int http_client_end(struct pt_regs *ctx)
{
	const struct http_client_layout *go;
	struct http_client_request *entry;
	struct http_client_record *record;
	__u64 response = GO_ARG_1(ctx);
	struct goroutine *goroutine;
	struct span *span;
	struct hit hit;

	if (!hit_begin(&hit, ctx))
		return 0;
	goroutine = hit.goroutine;
	if (!goroutine)
		return 0;
	span = span_returned(&hit, goroutine, http_client_record_kind);
	if (!span)
		return 0;
	outgoing_end(goroutine, GO_ARG_2(ctx) != 0);
	if (span->context.flags & TRACE_FLAG_SAMPLED) {
		go = layout_of(&hit);
		entry = bpf_map_lookup_elem(&http_client_requests, &hit.key);
		if (!entry || !go) {
			count(COUNTER_SPANS_EVICTED);
			span_pop(goroutine, span);
			return 0;
		}
		record = &entry->record;
		span_record(&hit, span, &record->header);
		record->failed = GO_ARG_2(ctx) != 0;
		if (record->failed) {
			struct go_interface error = {GO_ARG_2(ctx), GO_ARG_3(ctx)};

			go_error_append(&hit, record, RECORD_MAX, &record->error, error);
		} else if (go_window_read(&entry->window, response)) {
			record->status = go_window_word(&entry->window, response, go->response_status);
			record->protocol_major = go_window_word(&entry->window, response, go->response_proto_major);
			record->protocol_minor = go_window_word(&entry->window, response, go->response_proto_minor);
			headers_capture(&hit, go_window_word(&entry->window, response, go->response_header),
					MESSAGE_RESPONSE, &record->header, &record->response_headers);
		}
		record_submit(ctx, &record->header, RECORD_MAX);
	}
	span_pop(goroutine, span);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
