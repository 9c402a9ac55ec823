/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What database/sql was asked for and got no connection for: by which function, and of which database. */
#pragma once

#include "database_sql.h"

/* What a function was given that gets no connection, from where it has kept it; 0 where it has not. */
struct asked {
	__u64 db; /* *DB */
	__u64 context;
	struct go_string query;
};

static __always_inline void kept(__u64 *to, const struct hit *hit, go_offset at)
{
	go_read_field(to, sizeof(*to), hit->sp, at);
}

/* The database that connections are made to, as far as its driver or the error that there is none says which it is. */
static __always_inline void append_database(const struct hit *hit, struct sql_record *record,
					    const struct database_sql_layout *go, const struct sql_layout *common,
					    __u64 db, struct go_interface error)
{
	struct go_interface connector = {};
	struct go_string type;
	__u64 first, config = 0;

	if (!go_read_field(&connector, sizeof(connector), db, go->db_connector))
		return;
	type = dynamic_type_name(hit, connector.type);
	/* sql.dsnConnector, of Open by a driver that makes no connectors itself. */
	if (begins_with(&type, 16, EIGHT('s', 'q', 'l', '.', 'd', 's', 'n', 'C')) &&
	    go_read_field(&connector, sizeof(connector), connector.data, go->dsn_driver))
		type = dynamic_type_name(hit, connector.type);
	text_append(record, SQL_RECORD_MAX, &record->driver, &type, TYPE_NAME_MAX);
	first = string_first(&type);
	if (type.length == 16 && first == EIGHT('*', 'm', 'y', 's', 'q', 'l', '.', 'c')) {
		if (!go_read_field(&config, sizeof(config), connector.data, go->mysql_connector_config))
			return;
		sql_append(record, &record->host, config, common->mysql_address, SQL_HOST_MAX);
		sql_append(record, &record->database, config, common->mysql_database, SQL_DATABASE_MAX);
	} else if (type.length == 13 && first == EIGHT('*', 'p', 'q', '.', 'C', 'o', 'n', 'n')) {
		sql_append(record, &record->host, connector.data, go->pq_connector_host, SQL_HOST_MAX);
		go_read_field(&record->port, sizeof(record->port), connector.data, go->pq_connector_port);
		sql_append(record, &record->database, connector.data, go->pq_connector_database, SQL_DATABASE_MAX);
	}
	type = dynamic_type_name(hit, error.type);
	first = EIGHT('*', 'p', 'g', 'c', 'o', 'n', 'n', '.');
	/* Of the types that sql_error_inner knows, those with this length but PrepareError, which this is not. */
	if (begins_with(&type, 20, first) &&
	    go_read_field(&config, sizeof(config), error.data, go->pgx_error_config)) {
		sql_append(record, &record->host, config, go->pgx_config_host, SQL_HOST_MAX);
		go_read_field(&record->port, sizeof(record->port), config, go->pgx_config_port);
		sql_append(record, &record->database, config, go->pgx_config_database, SQL_DATABASE_MAX);
	}
}

/* driver.ErrBadConn: a connection that has been open too long, for one, and another one is asked for. */
static __always_inline bool is_tried_again(struct go_interface error)
{
	struct go_string text = {};

	return error.data && !bpf_probe_read_user(&text, sizeof(text), (const void *)error.data) &&
	       begins_with(&text, 22, EIGHT('d', 'r', 'i', 'v', 'e', 'r', ':', ' '));
}

#define HAS_KEPT(name)                                                                                               \
	do {                                                                                                         \
		kept(&asked->db, hit, go->name##_db);                                                                \
		kept(&asked->context, hit, go->name##_context);                                                      \
	} while (0)

#define HAS_KEPT_QUERY(name)                                                                                         \
	do {                                                                                                         \
		HAS_KEPT(name);                                                                                      \
		kept(&asked->query.data, hit, go->name##_query);                                                     \
		kept(&asked->query.length, hit, go->name##_length);                                                  \
	} while (0)

/* What was asked for by the function that gives up here, and what is wrong. */
static __always_inline enum sql_operation asked_read(struct asked *asked, struct go_interface *error,
						     struct pt_regs *ctx, const struct hit *hit,
						     const struct database_sql_layout *go)
{
	__u64 first = GO_ARG_1(ctx), second = GO_ARG_2(ctx), third = GO_ARG_3(ctx);
	const __u64 at = GO_PC(ctx) - code_start();

	/* Loaded here: a pointer to one of the registers is none that the verifier would take. */
	asm volatile("" : "+r"(first), "+r"(second), "+r"(third));
	/* conn has returned (*driverConn, error), and retry, by which Conn calls it, only the error. */
	error->type = at == go->conn_fails ? first : second;
	error->data = at == go->conn_fails ? second : third;
	if (at == go->begin_fails) {
		HAS_KEPT(begin);
		return SQL_BEGIN;
	}
	if (at == go->conn_fails) {
		HAS_KEPT(conn);
		return SQL_CONNECT;
	}
	if (at == go->query_fails)
		HAS_KEPT_QUERY(query);
	else if (at == go->exec_fails)
		HAS_KEPT_QUERY(exec);
	else if (at == go->prepare_fails)
		HAS_KEPT_QUERY(prepare);
	return SQL_QUERY;
}
