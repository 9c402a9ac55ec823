/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What connections are known by, and what is read to learn it (connection.h). */
#pragma once

#include "go.h"

struct ip_address {
	union {
		__u8 bytes[16]; /* IPv4 ones are mapped into IPv6: ::ffff:a.b.c.d */
		__u32 words[4];
	};
};

/* A request on a connection. */
struct connection_key {
	struct ip_address client, server;
	__u16 client_port, server_port;
	__u32 network; /* network namespace of a loopback address, else 0: then addresses tell machines apart */
	__u32 stream; /* HTTP/2: its number; HTTP/1: 0, as there is one request at a time */
};

/* What is read on the way to a connection's addresses. It may lie in a map, where a program's stack has no room for it. */
struct connection_reading {
	struct connection_key key; /* the result */
	struct go_interface conn; /* the net.Conn that it begins with */
	struct go_interface local, remote;
	struct go_slice ip;
	__u64 fd, port;
};

/* The connection that a goroutine has to do with for all of its life, as those of HTTP/1 have: it is read once. */
struct known_connection {
	__u64 owner; /* what it was found by: tells it from none, and from another one */
	struct connection_key key;
};
