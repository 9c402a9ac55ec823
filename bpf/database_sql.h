/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Where database/sql keeps what its programs read. */
#pragma once

#include "sql.h"

#define DB "database/sql.(*DB)."

/* A function that asks for a connection by calling another one: where it gives up, and where it has kept what it was given
 * (its *DB, its context's data word, and a query if it is given one). */
#define ASKS(name, function, callee)                                                                                 \
	go_address name##_fails GO_FAILURE(DB function, DB callee);                                                  \
	go_offset name##_db GO_KEPT(DB function, 1);                                                                 \
	go_offset name##_context GO_KEPT(DB function, 3);                                                            \
	go_offset name##_query GO_KEPT(DB function, 4);                                                              \
	go_offset name##_length GO_KEPT(DB function, 5)

struct database_sql_layout {
	go_offset connection GO("database/sql.driverConn.ci");
	go_offset stmt_query GO("database/sql.Stmt.query");
	go_offset stmt_of_connection GO("database/sql.Stmt.cgds");
	go_offset stmt_connections GO("database/sql.Stmt.css");
	go_offset stmt_connection GO("database/sql.connStmt.dc");
	go_offset driver_stmt_locker GO("database/sql.driverStmt.Locker");
	go_offset tx_connection GO("database/sql.Tx.dc");
	go_offset tx_context GO("database/sql.Tx.ctx");
	go_offset tx_done GO("database/sql.Tx.done");
	go_offset db_connector GO("database/sql.DB.connector");
	go_offset dsn_driver GO("database/sql.dsnConnector.driver");
	go_offset mysql_connector_config GO("github.com/go-sql-driver/mysql.connector.cfg");
	go_offset pq_connector_host GO("github.com/lib/pq.Connector.cfg.Host"); /* since lib/pq 1.11 */
	go_offset pq_connector_port GO("github.com/lib/pq.Connector.cfg.Port");
	go_offset pq_connector_database GO("github.com/lib/pq.Connector.cfg.Database");
	go_offset pgx_error_config GO("github.com/jackc/pgx/v5/pgconn.ConnectError.Config")
	    GO("github.com/jackc/pgx/v5/pgconn.connectError.config");
	go_offset pgx_config_host GO("github.com/jackc/pgx/v5/pgconn.Config.Host");
	go_offset pgx_config_port GO("github.com/jackc/pgx/v5/pgconn.Config.Port");
	go_offset pgx_config_database GO("github.com/jackc/pgx/v5/pgconn.Config.Database");
	ASKS(query, "query", "conn");
	ASKS(exec, "exec", "conn");
	ASKS(prepare, "prepare", "conn");
	ASKS(begin, "begin", "conn");
	ASKS(conn, "Conn", "retry");
};

LAYOUTS(database_sql_layouts, struct database_sql_layout);

RECORD(sql_record);

static __always_inline const struct database_sql_layout *layout_of(const struct hit *hit)
{
	return bpf_map_lookup_elem(&database_sql_layouts, &hit->process->slot);
}

static __always_inline struct sql_key request_key(const struct hit *hit)
{
	struct sql_key key = {hit->key.process, hit->key.goid};

	return key;
}
