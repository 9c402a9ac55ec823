/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What spans of SQL databases have in common: the query, the connection that it goes over, and the error that came back.
 *
 * Connections and errors are read by their types: the driver's own structs tell the server, the database and the code of an
 * error. Of drivers that are not known here the type's name is told, from which the agent knows the system. */
#pragma once

#include "span.h"
#include "go_error.h"

struct sql_layout {
	go_offset pq_host GO("github.com/lib/pq.conn.cfg.Host"); /* since lib/pq 1.11 */
	go_offset pq_port GO("github.com/lib/pq.conn.cfg.Port");
	go_offset pq_database GO("github.com/lib/pq.conn.cfg.Database");
	go_offset pq_error_code GO("github.com/lib/pq.Error.Code");
	go_offset mysql_config GO("github.com/go-sql-driver/mysql.mysqlConn.cfg");
	go_offset mysql_address GO("github.com/go-sql-driver/mysql.Config.Addr");
	go_offset mysql_database GO("github.com/go-sql-driver/mysql.Config.DBName");
	go_offset mysql_error_number GO("github.com/go-sql-driver/mysql.MySQLError.Number");
	go_offset stdlib_conn GO("github.com/jackc/pgx/v5/stdlib.Conn.conn")
	    GO("github.com/jackc/pgx/v4/stdlib.Conn.conn");
	go_offset pgx_config GO("github.com/jackc/pgx/v5.Conn.config") GO("github.com/jackc/pgx/v4.Conn.config");
	go_offset pgx_host GO("github.com/jackc/pgx/v5.ConnConfig.Config.Host")
	    GO("github.com/jackc/pgx/v4.ConnConfig.Config.Host");
	go_offset pgx_port GO("github.com/jackc/pgx/v5.ConnConfig.Config.Port")
	    GO("github.com/jackc/pgx/v4.ConnConfig.Config.Port");
	go_offset pgx_database GO("github.com/jackc/pgx/v5.ConnConfig.Config.Database")
	    GO("github.com/jackc/pgx/v4.ConnConfig.Config.Database");
	go_offset pgx_error_code GO("github.com/jackc/pgx/v5/pgconn.PgError.Code")
	    GO("github.com/jackc/pgconn.PgError.Code");
	go_offset sqlite_error_code GO("modernc.org/sqlite.Error.code");
	go_offset mssql_connector GO_EXACT("github.com/microsoft/go-mssqldb.Conn.connector");
	go_offset mssql_host GO_EXACT("github.com/microsoft/go-mssqldb.Connector.params.Host");
	go_offset mssql_port GO_EXACT("github.com/microsoft/go-mssqldb.Connector.params.Port");
	go_offset mssql_database GO_EXACT("github.com/microsoft/go-mssqldb.Connector.params.Database");
	go_offset clickhouse_conn GO_EXACT("github.com/ClickHouse/clickhouse-go/v2.stdDriver.conn");
	go_offset clickhouse_options GO_EXACT("github.com/ClickHouse/clickhouse-go/v2.connect.opt");
	go_offset clickhouse_http_options GO_EXACT("github.com/ClickHouse/clickhouse-go/v2.httpConnect.opt");
	go_offset clickhouse_addresses GO_EXACT("github.com/ClickHouse/clickhouse-go/v2.Options.Addr");
	go_offset clickhouse_database GO_EXACT("github.com/ClickHouse/clickhouse-go/v2.Options.Auth.Database");
	go_offset oracle_error_code GO_EXACT("github.com/godror/godror.OraErr.code");
};

LAYOUTS(sql_layouts, struct sql_layout);

enum sql_operation {
	SQL_QUERY,
	SQL_BEGIN,
	SQL_COMMIT,
	SQL_ROLLBACK,
	SQL_BATCH, /* several at once */
	SQL_COPY, /* rows into a table, which is what `query` names */
	SQL_CONNECT, /* nothing but a connection is asked for */
};

/* Whether the beginning and end of transactions are spans of their own; by the configuration. */
const volatile bool sql_transactions = true;

struct sql_record {
	struct record_header header;
	__u32 batch_size; /* queries in a batch */
	__u32 error_number; /* that the database gave to its error; 0: none */
	__u16 port; /* 0: see host */
	__u8 operation; /* enum sql_operation */
	__u8 failed; /* an error was returned */
	struct text query;
	struct text driver; /* the type of the connection, as %T prints it */
	struct text driver_inner; /* and of what it wraps, if it does that in its first field */
	struct text host; /* with the port, where that is 0 */
	struct text database;
	struct text error_state; /* the SQLSTATE of an error */
	struct go_error error; /* what was returned, or what it wraps */
};

#define SQL_QUERY_MAX	 2048
#define SQL_HOST_MAX	 256
#define SQL_DATABASE_MAX 128
#define SQL_STATE_MAX	 8
#define SQL_TEXTS_MAX                                                                                                \
	(SQL_QUERY_MAX + SQL_HOST_MAX + SQL_DATABASE_MAX + 2 * TYPE_NAME_MAX + SQL_STATE_MAX + ERROR_MAX)
#define SQL_ERRORS_MAX 6 /* an error, and those that it wraps */

/* A query in flight. */
struct sql_request {
	struct sql_record record;
	char texts[SQL_TEXTS_MAX];
	struct span span; /* of a query that is on no goroutine any more */
	struct go_interface error; /* that was returned, while it is looked into */
	__u64 unconnected; /* when an attempt got no connection that may be made again, ns; 0: none did */
	__u8 error_is_ours; /* what is returned in the end does not come from the database */
	__u8 is_open; /* of a query that is on no goroutine: its end was not seen yet */
};

#define SQL_RECORD_MAX (sizeof(struct sql_record) + SQL_TEXTS_MAX)

/* What a query in flight is found by at its end. */
struct sql_key {
	__u64 process; /* struct process.id */
	__u64 id; /* a goid, or the address of a connection */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct sql_key);
	__type(value, struct sql_request);
} sql_requests SEC(".maps");

EMPTY_ENTRY(sql_empty_request, struct sql_request);

static __always_inline struct sql_request *sql_request_find_or_add(const struct sql_key *key)
{
	return find_or_add(&sql_requests, &sql_empty_request, key);
}

static __always_inline void sql_record_begin(struct sql_record *record, enum sql_operation operation)
{
	record->header.length = sizeof(*record);
	record->operation = operation;
	record->failed = 0;
	record->batch_size = 0;
	record->error_number = 0;
	record->port = 0;
	__builtin_memset(&record->query, 0, sizeof(*record) - __builtin_offsetof(struct sql_record, query));
}

/* The first eight characters of a string; 0 where it is shorter. Not counted where they cannot be read. */
static __always_inline __u64 string_first(const struct go_string *string)
{
	__u64 word = 0;

	if (string->length >= 8)
		bpf_probe_read_user(&word, sizeof(word), (const void *)string->data);
	return word;
}

static __always_inline void sql_append(struct sql_record *record, struct text *text, __u64 base, go_offset offset,
				       __u32 limit)
{
	struct go_string string = {};

	if (go_read_field(&string, sizeof(string), base, offset))
		text_append(record, SQL_RECORD_MAX, text, &string, limit);
}

/* The server and the database of a *pgx.Conn. */
static __always_inline void sql_pgx_connection(struct sql_record *record, const struct sql_layout *go,
					       __u64 connection)
{
	__u64 config = 0;

	if (!go_read_field(&config, sizeof(config), connection, go->pgx_config) || !config)
		return;
	sql_append(record, &record->host, config, go->pgx_host, SQL_HOST_MAX);
	go_read_field(&record->port, sizeof(record->port), config, go->pgx_port);
	sql_append(record, &record->database, config, go->pgx_database, SQL_DATABASE_MAX);
}

/* The server and the database of a *clickhouse.stdDriver, which speaks ClickHouse's own protocol or HTTP. Of several servers
 * that it may have chosen from none is told. */
static __always_inline void sql_clickhouse_connection(const struct hit *hit, struct sql_record *record,
						      const struct sql_layout *go, __u64 connection)
{
	struct go_interface conn = {};
	struct go_slice addresses = {};
	struct go_string type;
	__u64 options = 0;

	if (!go_read_field(&conn, sizeof(conn), connection, go->clickhouse_conn))
		return;
	type = dynamic_type_name(hit, conn.type);
	/* *clickhouse.connect is shorter than *clickhouse.httpConnect. */
	if (!go_read_field(&options, sizeof(options), conn.data,
			   type.length == 19 ? go->clickhouse_options : go->clickhouse_http_options))
		return;
	if (go_read_field(&addresses, sizeof(addresses), options, go->clickhouse_addresses) && addresses.length == 1)
		sql_append(record, &record->host, addresses.data, 0, SQL_HOST_MAX);
	sql_append(record, &record->database, options, go->clickhouse_database, SQL_DATABASE_MAX);
}

/* The server and the database of a driver.Conn of this type; false where it is none that is known here. */
static __always_inline bool sql_driver_connection(const struct hit *hit, struct sql_record *record,
						  const struct sql_layout *go, const struct go_string *type,
						  __u64 connection)
{
	__u64 first = string_first(type), inner = 0;

	if (type->length == 8 && first == EIGHT('*', 'p', 'q', '.', 'c', 'o', 'n', 'n')) {
		sql_append(record, &record->host, connection, go->pq_host, SQL_HOST_MAX);
		go_read_field(&record->port, sizeof(record->port), connection, go->pq_port);
		sql_append(record, &record->database, connection, go->pq_database, SQL_DATABASE_MAX);
	} else if (type->length == 12 && first == EIGHT('*', 's', 't', 'd', 'l', 'i', 'b', '.')) {
		if (go_read_field(&inner, sizeof(inner), connection, go->stdlib_conn))
			sql_pgx_connection(record, go, inner);
	} else if (type->length == 16 && first == EIGHT('*', 'm', 'y', 's', 'q', 'l', '.', 'm')) {
		if (!go_read_field(&inner, sizeof(inner), connection, go->mysql_config))
			return true;
		sql_append(record, &record->host, inner, go->mysql_address, SQL_HOST_MAX);
		sql_append(record, &record->database, inner, go->mysql_database, SQL_DATABASE_MAX);
	} else if (type->length == 11 && first == EIGHT('*', 'm', 's', 's', 'q', 'l', '.', 'C')) {
		if (!go_read_field(&inner, sizeof(inner), connection, go->mssql_connector))
			return true;
		sql_append(record, &record->host, inner, go->mssql_host, SQL_HOST_MAX);
		go_read_field(&record->port, sizeof(record->port), inner, go->mssql_port);
		sql_append(record, &record->database, inner, go->mssql_database, SQL_DATABASE_MAX);
	} else if (type->length == 21 && first == EIGHT('*', 'c', 'l', 'i', 'c', 'k', 'h', 'o')) {
		sql_clickhouse_connection(hit, record, go, connection);
	} else {
		return false;
	}
	return true;
}

/* What is told of a driver.Conn, an interface. One that is not known may wrap another in its first field, as those do that
 * count and log. */
static __always_inline void sql_connection(const struct hit *hit, struct sql_record *record,
					   const struct sql_layout *go, struct go_interface connection)
{
	struct go_string type = dynamic_type_name(hit, connection.type);

	text_append(record, SQL_RECORD_MAX, &record->driver, &type, TYPE_NAME_MAX);
	if (!type.length || sql_driver_connection(hit, record, go, &type, connection.data))
		return;
	if ((__s64)connection.data <= 4096 ||
	    bpf_probe_read_user(&connection, sizeof(connection), (const void *)connection.data))
		return;
	type = dynamic_type_name(hit, connection.type);
	if (!type.length || type.length > TYPE_NAME_MAX)
		return;
	text_append(record, SQL_RECORD_MAX, &record->driver_inner, &type, TYPE_NAME_MAX);
	sql_driver_connection(hit, record, go, &type, connection.data);
}

/* Where in an error of this type the one lies that it wraps; GO_UNKNOWN: it wraps none, as far as is known. */
static __always_inline go_offset sql_error_inner(const struct go_string *type, __u64 first)
{
	char ninth = 0;

	if (first == EIGHT('*', 'f', 'm', 't', '.', 'w', 'r', 'a') && type->length == 14)
		return 16; /* wrapError{msg string; err error} (fmt/errors.go) */
	if (first == EIGHT('*', 'c', 'l', 'i', 'c', 'k', 'h', 'o') && type->length == 21)
		return 8; /* of clickhouse-go HTTPError{StatusCode int; Err error} */
	if (first != EIGHT('*', 'p', 'g', 'c', 'o', 'n', 'n', '.'))
		return GO_UNKNOWN;
	switch (type->length) { /* pgconn/errors.go */
	case 18: /* errTimeout{err error} */
	case 31: /* contextAlreadyDoneError{err error} */
		return 0;
	case 19: /* pgconnError{msg string; err error; ...} */
		return 16;
	case 20:
		bpf_probe_read_user(&ninth, sizeof(ninth), (const void *)(type->data + 8));
		if (ninth == 'c') /* connectError{config *Config; msg string; err error}, up to 5.4 */
			return 24;
		return ninth == 'C' ? 8
				    : 0; /* ConnectError{Config *Config; err error}, PrepareError{err error; ...} */
	case 27: /* perDialConnectError{address string; originalHostname string; err error} */
		return 32;
	}
	return GO_UNKNOWN;
}

/* Put in place of a request's error, which wraps others, the one that says what went wrong; of several the first. A global
 * function, which the verifier goes through once; so it takes the key of the request, and not the request (pointers to
 * memory: only since kernel 5.12). */
__noinline int sql_error_unwrap(__u64 process, __u64 id, __u32 slot)
{
	const struct hit hit = {.go = bpf_map_lookup_elem(&runtime_layouts, &slot)};
	const struct sql_key key = {process, id};
	struct sql_request *entry = bpf_map_lookup_elem(&sql_requests, &key);

	if (!hit.go || !entry)
		return 0;
	for (int i = 1; i < SQL_ERRORS_MAX; i++) {
		struct go_string type = dynamic_type_name(&hit, entry->error.type);
		__u64 first = string_first(&type), at = entry->error.data;
		go_offset inner = sql_error_inner(&type, first);
		struct go_interface wrapped;

		if (first == EIGHT('*', 'e', 'r', 'r', 'o', 'r', 's', '.') && type.length == 17) {
			/* joinError{errs []error} (errors/join.go) */
			inner = 0;
			if (!at || bpf_probe_read_user(&at, sizeof(at), (const void *)at))
				return 0;
		}
		if (inner == GO_UNKNOWN || !at ||
		    bpf_probe_read_user(&wrapped, sizeof(wrapped), (const void *)(at + inner)))
			return 0;
		entry->error = wrapped;
	}
	return 0;
}

/* The code that the database gave to an error, where it is a driver's own. */
static __always_inline void sql_error_code(struct sql_record *record, const struct sql_layout *go,
					   const struct go_string *type, __u64 first, __u64 error)
{
	go_offset state = GO_UNKNOWN, number = GO_UNKNOWN;

	if (first == EIGHT('*', 'p', 'q', '.', 'E', 'r', 'r', 'o'))
		state = go->pq_error_code;
	else if (first == EIGHT('*', 'p', 'g', 'c', 'o', 'n', 'n', '.') && type->length == 15)
		state = go->pgx_error_code;
	else if (first == EIGHT('*', 's', 'q', 'l', 'i', 't', 'e', '.') && type->length == 13)
		number = go->sqlite_error_code;
	else if (first == EIGHT('s', 'q', 'l', 'i', 't', 'e', '3', '.'))
		number = 8; /* of mattn/go-sqlite3 {Code ErrNo; ExtendedCode ErrNoExtended; ...} */
	else if (first == EIGHT('m', 's', 's', 'q', 'l', '.', 'E', 'r') ||
		 first == EIGHT('*', 'p', 'r', 'o', 't', 'o', '.', 'E'))
		number = 0; /* of go-mssqldb {Number int32; ...}, of clickhouse-go {Code int32; ...} */
	else if (first == EIGHT('*', 'g', 'o', 'd', 'r', 'o', 'r', '.'))
		number = go->oracle_error_code;
	else if (first == EIGHT('*', 'm', 'y', 's', 'q', 'l', '.', 'M'))
		go_read_field(&record->error_number, sizeof(__u16), error, go->mysql_error_number);
	if (state != GO_UNKNOWN)
		sql_append(record, &record->error_state, error, state, SQL_STATE_MAX);
	if (number != GO_UNKNOWN)
		go_read_field(&record->error_number, sizeof(record->error_number), error, number);
}

/* What a call returned. */
static __always_inline void sql_error(const struct hit *hit, const struct sql_key *key, struct sql_request *entry,
				      const struct sql_layout *go, struct go_interface error)
{
	struct sql_record *record = &entry->record;
	struct go_string type;

	record->failed = 1;
	entry->error = error;
	sql_error_unwrap(key->process, key->id, hit->process->slot);
	error = entry->error;
	type = dynamic_type_name(hit, error.type);
	sql_error_code(record, go, &type, string_first(&type), error.data);
	go_error_append(hit, record, SQL_RECORD_MAX, &record->error, error);
}

static __always_inline void sql_submit(struct pt_regs *ctx, const struct hit *hit, const struct span *span,
				       struct sql_request *entry)
{
	span_record(hit, span, &entry->record.header);
	record_submit(ctx, &entry->record.header, SQL_RECORD_MAX);
}
