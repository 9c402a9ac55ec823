// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* database/sql: one span for each query that is sent over a connection, from its beginning to its return, which is when
 * the first row can be read.
 *
 * All that is asked of a DB, a Conn or a Tx comes to (*DB).queryDC and (*DB).execDC, once a connection is there; a retry
 * over another one is another call. Prepared statements are told by (*Stmt).QueryContext and ExecContext, which have the
 * text: below them there is only the driver's statement. Transactions begin in (*DB).beginDC, and end in (*Tx).Commit and
 * (*Tx).rollback, which runs on a goroutine of its own if the context is done.
 *
 * What gets no connection comes to none of them. It is told by the function that asked for one, where that gives up:
 * (*DB).query, exec, prepare, begin and Conn, which have kept on the stack what they were given. What succeeds does not
 * come by there. */
#include "database_sql_unconnected.h"

/* Something that begins. `context` is the data word of its context.Context, `call` tells it from the next one, and
 * `driver_connection` is a *driverConn, 0 where that is not known. */
static __always_inline int start(struct hit *hit, enum sql_operation operation, __u64 context, __u64 call,
				 __u64 driver_connection, const struct go_string *query)
{
	const struct database_sql_layout *go = layout_of(hit);
	struct go_interface connection = {};
	struct goroutine *goroutine;
	const struct sql_layout *common;
	struct sql_request *entry;
	struct sql_key key;
	struct span *span;

	common = bpf_map_lookup_elem(&sql_layouts, &hit->process->slot);
	goroutine = goroutine_find_or_add(hit);
	if (!go || !common || !goroutine)
		return 0;
	span = span_push_outermost(hit, goroutine, sql_record_kind, context, call);
	if (!span)
		return 0;
	span->flags |= SPAN_DATABASE;
	if (!(span->context.flags & TRACE_FLAG_SAMPLED))
		return 0;
	key = request_key(hit);
	entry = sql_request_find_or_add(&key);
	if (!entry) {
		span_pop(goroutine, span);
		return 0;
	}
	entry->error_is_ours = 0;
	entry->unconnected = 0;
	sql_record_begin(&entry->record, operation);
	text_append(&entry->record, SQL_RECORD_MAX, &entry->record.query, query, SQL_QUERY_MAX);
	if (go_read_field(&connection, sizeof(connection), driver_connection, go->connection))
		sql_connection(hit, &entry->record, common, connection);
	return 0;
}

/* "sql: transaction has already been committed or rolled back": nothing was sent. */
static __always_inline bool is_transaction_done(const struct sql_record *record, struct go_interface error)
{
	struct go_string text = {};

	return record->operation >= SQL_COMMIT && error.data &&
	       !bpf_probe_read_user(&text, sizeof(text), (const void *)error.data) &&
	       begins_with(&text, 58, EIGHT('s', 'q', 'l', ':', ' ', 't', 'r', 'a'));
}

static __always_inline int end(struct pt_regs *ctx, struct hit *hit, struct go_interface error)
{
	const struct sql_layout *go;
	struct goroutine *goroutine;
	struct sql_request *entry;
	struct sql_key key;
	struct span *span;

	goroutine = hit->goroutine;
	if (!goroutine)
		return 0;
	span = span_returned(hit, goroutine, sql_record_kind);
	go = bpf_map_lookup_elem(&sql_layouts, &hit->process->slot);
	if (!span || !go)
		return 0;
	if (span->context.flags & TRACE_FLAG_SAMPLED) {
		key = request_key(hit);
		entry = bpf_map_lookup_elem(&sql_requests, &key);
		if (!entry) {
			count(COUNTER_SPANS_EVICTED);
		} else if (!error.type || entry->error_is_ours) {
			sql_submit(ctx, hit, span, entry);
		} else if (!is_transaction_done(&entry->record, error)) {
			sql_error(hit, &key, entry, go, error);
			sql_submit(ctx, hit, span, entry);
		}
	}
	span_pop(goroutine, span);
	return 0;
}

/* func (db *DB) queryDC(ctx, txctx context.Context, dc *driverConn, releaseConn func(error), query string, args []any)
 *	(*Rows, error) */
SEC("uprobe/database/sql.(*DB).queryDC")
int sql_query_start(struct pt_regs *ctx)
{
	struct go_string query = {GO_ARG_8(ctx), GO_ARG_9(ctx)};
	struct hit hit;

	if (!hit_begin(&hit, ctx))
		return 0;
	return start(&hit, SQL_QUERY, GO_ARG_3(ctx), GO_ARG_6(ctx), GO_ARG_6(ctx), &query);
}

/* func (db *DB) execDC(ctx context.Context, dc *driverConn, release func(error), query string, args []any)
 *	(res Result, err error) */
SEC("uprobe/database/sql.(*DB).execDC")
int sql_exec_start(struct pt_regs *ctx)
{
	struct go_string query = {GO_ARG_6(ctx), GO_ARG_7(ctx)};
	struct hit hit;

	if (!hit_begin(&hit, ctx))
		return 0;
	return start(&hit, SQL_QUERY, GO_ARG_3(ctx), GO_ARG_4(ctx), GO_ARG_4(ctx), &query);
}

/* A connection that a statement is prepared on: its own, or the first of those that it has been used on. */
static __always_inline __u64 connection_of_stmt(const struct database_sql_layout *go, __u64 stmt)
{
	__u64 connection = 0, prepared = 0;
	struct go_slice connections = {};

	if (go_read_field(&prepared, sizeof(prepared), stmt, go->stmt_of_connection) && prepared)
		go_read_field(&connection, sizeof(connection), prepared, GO_DATA_WORD(go->driver_stmt_locker));
	else if (go_read_field(&connections, sizeof(connections), stmt, go->stmt_connections) && connections.length)
		go_read_field(&connection, sizeof(connection), connections.data, go->stmt_connection);
	return connection;
}

/* func (s *Stmt) QueryContext(ctx context.Context, args ...any) (*Rows, error)
 * func (s *Stmt) ExecContext(ctx context.Context, args ...any) (Result, error) */
SEC("uprobe/database/sql.(*Stmt).QueryContext")
int sql_stmt_start(struct pt_regs *ctx)
{
	const struct database_sql_layout *go;
	__u64 stmt = GO_ARG_1(ctx);
	struct go_string query = {};
	struct hit hit;

	if (!hit_begin(&hit, ctx) || !(go = layout_of(&hit)))
		return 0;
	go_read_field(&query, sizeof(query), stmt, go->stmt_query);
	return start(&hit, SQL_QUERY, GO_ARG_3(ctx), stmt, connection_of_stmt(go, stmt), &query);
}

/* queryDC and (*Stmt).QueryContext return. */
SEC("uprobe/database/sql.(*DB).queryDC")
int sql_query_end(struct pt_regs *ctx)
{
	struct go_interface error = {GO_ARG_2(ctx), GO_ARG_3(ctx)};
	struct hit hit;

	return hit_begin(&hit, ctx) ? end(ctx, &hit, error) : 0;
}

/* execDC and (*Stmt).ExecContext return. */
SEC("uprobe/database/sql.(*DB).execDC")
int sql_exec_end(struct pt_regs *ctx)
{
	struct go_interface error = {GO_ARG_3(ctx), GO_ARG_4(ctx)};
	struct hit hit;

	return hit_begin(&hit, ctx) ? end(ctx, &hit, error) : 0;
}

/* func (db *DB) beginDC(ctx context.Context, dc *driverConn, release func(error), opts *TxOptions) (tx *Tx, err error):
 * it ends as queryDC does. */
SEC("uprobe/database/sql.(*DB).beginDC")
int sql_begin_start(struct pt_regs *ctx)
{
	struct go_string none = {};
	struct hit hit;

	if (!sql_transactions || !hit_begin(&hit, ctx))
		return 0;
	return start(&hit, SQL_BEGIN, GO_ARG_3(ctx), GO_ARG_4(ctx), GO_ARG_4(ctx), &none);
}

/* The end of a transaction begins; true where there is something to be sent. */
static __always_inline bool tx_end_start(struct pt_regs *ctx, struct hit *hit, enum sql_operation operation)
{
	const struct database_sql_layout *go;
	__u64 connection = 0, context = 0, tx = GO_ARG_1(ctx);
	struct go_string none = {};
	__u32 done = 0;

	if (!sql_transactions || !hit_begin(hit, ctx) || !(go = layout_of(hit)))
		return false;
	/* Rollback after Commit, as a deferred call: it does nothing. */
	if (go_read_field(&done, sizeof(done), tx, go->tx_done) && done)
		return false;
	go_read_field(&connection, sizeof(connection), tx, go->tx_connection);
	go_read_field(&context, sizeof(context), tx, GO_DATA_WORD(go->tx_context));
	start(hit, operation, context, tx, connection, &none);
	return true;
}

/* func (tx *Tx) Commit() error */
SEC("uprobe/database/sql.(*Tx).Commit")
int sql_commit_start(struct pt_regs *ctx)
{
	struct hit hit;

	tx_end_start(ctx, &hit, SQL_COMMIT);
	return 0;
}

/* func (tx *Tx) rollback(discardConn bool) error: with discardConn it returns driver.ErrBadConn in any case. */
SEC("uprobe/database/sql.(*Tx).rollback")
int sql_rollback_start(struct pt_regs *ctx)
{
	struct sql_request *entry;
	struct sql_key key;
	struct hit hit;

	if (!tx_end_start(ctx, &hit, SQL_ROLLBACK))
		return 0;
	key = request_key(&hit);
	entry = bpf_map_lookup_elem(&sql_requests, &key);
	if (entry)
		entry->error_is_ours = GO_ARG_2(ctx) & 1;
	return 0;
}

/* Commit and rollback return. */
SEC("uprobe/database/sql.(*Tx).Commit")
int sql_tx_end(struct pt_regs *ctx)
{
	struct go_interface error = {GO_ARG_1(ctx), GO_ARG_2(ctx)};
	struct hit hit;

	return hit_begin(&hit, ctx) ? end(ctx, &hit, error) : 0;
}

/* func (db *DB) query(ctx context.Context, query string, args []any, strategy connReuseStrategy) (*Rows, error)
 * func (db *DB) exec(ctx context.Context, query string, args []any, strategy connReuseStrategy) (Result, error)
 * func (db *DB) prepare(ctx context.Context, query string, strategy connReuseStrategy) (*Stmt, error)
 * func (db *DB) begin(ctx context.Context, opts *TxOptions, strategy connReuseStrategy) (tx *Tx, err error)
 * func (db *DB) Conn(ctx context.Context) (*Conn, error)
 * One of these gets no connection: a span that begins and ends here. */
SEC("uprobe/database/sql.(*DB).query")
int sql_unconnected(struct pt_regs *ctx)
{
	const struct database_sql_layout *go;
	const struct sql_layout *common;
	struct go_interface error = {};
	struct goroutine *goroutine;
	enum sql_operation operation;
	struct sql_request *entry;
	struct asked asked = {};
	struct sql_key key;
	struct span *span;
	struct hit hit;

	if (!hit_begin(&hit, ctx) || !(go = layout_of(&hit)))
		return 0;
	operation = asked_read(&asked, &error, ctx, &hit, go);
	common = bpf_map_lookup_elem(&sql_layouts, &hit.process->slot);
	goroutine = goroutine_find_or_add(&hit);
	if (!common || !goroutine || (operation == SQL_BEGIN && !sql_transactions))
		return 0;
	span = span_push_outermost(&hit, goroutine, sql_record_kind, asked.context, 0);
	if (!span)
		return 0;
	key = request_key(&hit);
	if (span->context.flags & TRACE_FLAG_SAMPLED && (entry = sql_request_find_or_add(&key))) {
		sql_record_begin(&entry->record, operation);
		text_append(&entry->record, SQL_RECORD_MAX, &entry->record.query, &asked.query, SQL_QUERY_MAX);
		append_database(&hit, &entry->record, go, common, asked.db, error);
		sql_error(&hit, &key, entry, common, error);
		/* Conn gives up when all has been tried; the others may be the last attempt, or not. */
		entry->unconnected = operation != SQL_CONNECT && is_tried_again(error) ? bpf_ktime_get_ns() : 0;
		entry->span = *span;
		if (!entry->unconnected)
			sql_submit(ctx, &hit, span, entry);
	}
	span_pop(goroutine, span);
	return 0;
}

#define ATTEMPT_NS 10000000 /* between the end of an attempt and that of the attempts */

/* func (db *DB) retry(fn func(strategy connReuseStrategy) error) error: it returns what its last attempt has. */
SEC("uprobe/database/sql.(*DB).retry")
int sql_attempts_over(struct pt_regs *ctx)
{
	struct go_interface error = {GO_ARG_1(ctx), GO_ARG_2(ctx)};
	struct sql_request *entry;
	struct sql_key key;
	struct hit hit;

	if (!hit_identify_sampled(&hit, ctx) || !is_tried_again(error))
		return 0;
	key = request_key(&hit);
	entry = bpf_map_lookup_elem(&sql_requests, &key);
	/* Where the last attempt got a connection, that is no more in the entry. */
	if (entry && bpf_ktime_get_ns() - entry->unconnected < ATTEMPT_NS) {
		entry->unconnected = 0;
		sql_submit(ctx, &hit, &entry->span, entry);
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
