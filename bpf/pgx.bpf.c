// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* github.com/jackc/pgx/v5, where a program uses it without database/sql: one span for each query.
 *
 * Exec, CopyFrom and SendBatch are told from their beginning to their return. Query returns before PostgreSQL has answered:
 * its span ends when the rows are closed, by which time an error is known, and by another goroutine perhaps. A
 * connection has one query at a time, so that it tells which one that is. What database/sql asks through pgx/stdlib has its
 * span already. */
#include "sql.h"

struct pgx_layout {
	go_offset rows_conn GO("github.com/jackc/pgx/v5.baseRows.conn");
	go_offset rows_err GO("github.com/jackc/pgx/v5.baseRows.err");
	go_offset rows_reader GO("github.com/jackc/pgx/v5.baseRows.resultReader");
	go_offset reader_err GO("github.com/jackc/pgx/v5/pgconn.ResultReader.err");
	go_offset batch_queries GO("github.com/jackc/pgx/v5.Batch.QueuedQueries")
	    GO("github.com/jackc/pgx/v5.Batch.queuedQueries");
};

LAYOUTS(pgx_layouts, struct pgx_layout);

RECORD(sql_record);

static __always_inline bool is_of_database_sql(const struct goroutine *goroutine)
{
	__u32 depth = goroutine->depth;

	return depth && goroutine->spans[(depth - 1) & (SPAN_DEPTH - 1)].flags & SPAN_DATABASE;
}

/* What is no query: (*Conn).Ping, and where the configuration leaves them out, the parts of transactions. */
static __always_inline bool is_left_out(const struct go_string *query)
{
	__u64 word = 0, begin = EIGHT('b', 'e', 'g', 'i', 'n', 0, 0, 0),
	      commit = EIGHT('c', 'o', 'm', 'm', 'i', 't', 0, 0);

	if (query->length == 1 || query->length == 7) {
		if (query->length == 1)
			bpf_probe_read_user(&word, 1, (const void *)query->data);
		else
			bpf_probe_read_user(&word, 7, (const void *)query->data);
		return word == ';' || word == EIGHT('-', '-', ' ', 'p', 'i', 'n', 'g', 0);
	}
	if (sql_transactions || query->length < 5)
		return false;
	if (query->length == 5)
		bpf_probe_read_user(&word, 5, (const void *)query->data);
	else if (query->length == 6)
		bpf_probe_read_user(&word, 6, (const void *)query->data);
	else if (query->length >= 8)
		bpf_probe_read_user(&word, 8, (const void *)query->data);
	return (word & 0xffffffffffULL) == begin || word == commit ||
	       word == EIGHT('r', 'o', 'l', 'l', 'b', 'a', 'c', 'k');
}

/* Something that begins on a connection; its span, and its entry, which has this `id`. NULL: it has no span. */
static __always_inline struct sql_request *start(struct hit *hit, struct pt_regs *ctx, enum sql_operation operation,
						 const struct go_string *query, __u64 id, struct span **span)
{
	__u64 connection = GO_ARG_1(ctx);
	const struct sql_layout *common;
	struct goroutine *goroutine;
	struct sql_request *entry;
	struct sql_key key;

	common = bpf_map_lookup_elem(&sql_layouts, &hit->process->slot);
	goroutine = goroutine_find_or_add(hit);
	if (!common || !goroutine || is_of_database_sql(goroutine))
		return NULL;
	key.process = hit->key.process;
	key.id = id;
	entry = sql_request_find_or_add(&key);
	if (!entry)
		return NULL;
	*span = span_push_outermost(hit, goroutine, sql_record_kind, GO_ARG_3(ctx), connection);
	if (!*span)
		return NULL;
	if (!((*span)->context.flags & TRACE_FLAG_SAMPLED))
		return entry;
	entry->unconnected = 0;
	sql_record_begin(&entry->record, operation);
	text_append(&entry->record, SQL_RECORD_MAX, &entry->record.query, query, SQL_QUERY_MAX);
	sql_pgx_connection(&entry->record, common, connection);
	return entry;
}

/* func (c *Conn) Exec(ctx context.Context, sql string, arguments ...any) (pgconn.CommandTag, error) */
SEC("uprobe/github.com/jackc/pgx/v5.(*Conn).Exec")
int pgx_exec_start(struct pt_regs *ctx)
{
	struct go_string query = {GO_ARG_4(ctx), GO_ARG_5(ctx)};
	struct span *span;
	struct hit hit;

	if (hit_begin(&hit, ctx) && !is_left_out(&query))
		start(&hit, ctx, SQL_QUERY, &query, hit.key.goid, &span);
	return 0;
}

/* func (c *Conn) CopyFrom(ctx context.Context, tableName Identifier, columnNames []string, rowSrc CopyFromSource)
 *	(int64, error): an Identifier is a slice of names, the table's is the last one. */
SEC("uprobe/github.com/jackc/pgx/v5.(*Conn).CopyFrom")
int pgx_copy_start(struct pt_regs *ctx)
{
	__u64 names = GO_ARG_4(ctx), length = GO_ARG_5(ctx);
	struct go_string table = {};
	struct span *span;
	struct hit hit;

	if (!hit_begin(&hit, ctx))
		return 0;
	if (length && length < 8)
		go_read(&table, sizeof(table), names + (length - 1) * sizeof(table));
	start(&hit, ctx, SQL_COPY, &table, hit.key.goid, &span);
	return 0;
}

/* func (c *Conn) SendBatch(ctx context.Context, b *Batch) BatchResults */
SEC("uprobe/github.com/jackc/pgx/v5.(*Conn).SendBatch")
int pgx_batch_start(struct pt_regs *ctx)
{
	__u64 batch = GO_ARG_4(ctx);
	const struct pgx_layout *go;
	struct go_slice queries = {};
	struct sql_request *entry;
	struct go_string none = {};
	struct span *span;
	struct hit hit;

	if (!hit_begin(&hit, ctx))
		return 0;
	go = bpf_map_lookup_elem(&pgx_layouts, &hit.process->slot);
	entry = start(&hit, ctx, SQL_BATCH, &none, hit.key.goid, &span);
	if (go && entry && go_read_field(&queries, sizeof(queries), batch, go->batch_queries))
		entry->record.batch_size = queries.length;
	return 0;
}

static __always_inline int end(struct pt_regs *ctx, struct go_interface error)
{
	const struct sql_layout *common;
	struct sql_request *entry;
	struct sql_key key;
	struct span *span;
	struct hit hit;

	if (!hit_begin(&hit, ctx) || !hit.goroutine)
		return 0;
	span = span_returned(&hit, hit.goroutine, sql_record_kind);
	common = bpf_map_lookup_elem(&sql_layouts, &hit.process->slot);
	if (!span || !common)
		return 0;
	if (span->context.flags & TRACE_FLAG_SAMPLED) {
		key.process = hit.key.process;
		key.id = hit.key.goid;
		entry = bpf_map_lookup_elem(&sql_requests, &key);
		if (!entry) {
			count(COUNTER_SPANS_EVICTED);
		} else {
			if (error.type)
				sql_error(&hit, &key, entry, common, error);
			sql_submit(ctx, &hit, span, entry);
		}
	}
	span_pop(hit.goroutine, span);
	return 0;
}

/* Exec returns. */
SEC("uprobe/github.com/jackc/pgx/v5.(*Conn).Exec")
int pgx_exec_end(struct pt_regs *ctx)
{
	struct go_interface error = {GO_ARG_3(ctx), GO_ARG_4(ctx)};

	return end(ctx, error);
}

/* CopyFrom returns. */
SEC("uprobe/github.com/jackc/pgx/v5.(*Conn).CopyFrom")
int pgx_copy_end(struct pt_regs *ctx)
{
	struct go_interface error = {GO_ARG_2(ctx), GO_ARG_3(ctx)};

	return end(ctx, error);
}

/* SendBatch returns: what went wrong is told with the results. */
SEC("uprobe/github.com/jackc/pgx/v5.(*Conn).SendBatch")
int pgx_batch_end(struct pt_regs *ctx)
{
	struct go_interface none = {};

	return end(ctx, none);
}

/* func (c *Conn) Query(ctx context.Context, sql string, args ...any) (Rows, error) */
SEC("uprobe/github.com/jackc/pgx/v5.(*Conn).Query")
int pgx_query_start(struct pt_regs *ctx)
{
	struct go_string query = {GO_ARG_4(ctx), GO_ARG_5(ctx)};
	struct sql_request *entry;
	struct span *span;
	struct hit hit;

	if (!hit_begin(&hit, ctx))
		return 0;
	entry = start(&hit, ctx, SQL_QUERY, &query, GO_ARG_1(ctx), &span);
	if (!entry)
		return 0;
	if (entry->is_open)
		count(COUNTER_SPANS_ABANDONED);
	entry->is_open = span->context.flags & TRACE_FLAG_SAMPLED;
	entry->span = *span;
	/* While the rows are read the program goes on: nothing is a child of this. */
	hit.goroutine->depth--;
	return 0;
}

/* func (rows *baseRows) Close(): called by Next when there are no more rows, or an error; by QueryRow's Scan; and by
 * whoever has asked, so perhaps more than once. */
SEC("uprobe/github.com/jackc/pgx/v5.(*baseRows).Close")
int pgx_query_end(struct pt_regs *ctx)
{
	__u64 rows = GO_ARG_1(ctx), reader = 0;
	struct go_interface error = {};
	const struct sql_layout *common;
	const struct pgx_layout *go;
	struct sql_request *entry;
	struct sql_key key = {};
	struct hit hit;

	if (!hit_begin(&hit, ctx))
		return 0;
	go = bpf_map_lookup_elem(&pgx_layouts, &hit.process->slot);
	common = bpf_map_lookup_elem(&sql_layouts, &hit.process->slot);
	if (!go || !common || !go_read_field(&key.id, sizeof(key.id), rows, go->rows_conn))
		return 0;
	key.process = hit.key.process;
	entry = bpf_map_lookup_elem(&sql_requests, &key);
	if (!entry || !entry->is_open)
		return 0;
	entry->is_open = 0;
	go_read_field(&error, sizeof(error), rows, go->rows_err);
	if (!error.type && go_read_field(&reader, sizeof(reader), rows, go->rows_reader) && reader)
		go_read_field(&error, sizeof(error), reader, go->reader_err);
	if (error.type)
		sql_error(&hit, &key, entry, common, error);
	sql_submit(ctx, &hit, &entry->span, entry);
	count(COUNTER_SPANS_ENDED);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
