/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Joining the two ends of a connection on this machine, without writing anything: the client's end notes the context of
 * the request that it is about to send, the server's takes it when the request has come. A connection is known by its
 * addresses, read from the net.Conn; what is no TCP connection, plain or TLS, is not joined. */
#pragma once

#include "connection_reading.h"
#include "span.h"

struct connection_layout {
	go_offset conn_fd GO_EXACT("net.conn.fd");
	go_offset fd_local GO_EXACT("net.netFD.laddr");
	go_offset fd_remote GO_EXACT("net.netFD.raddr");
	go_offset address_ip GO_EXACT("net.TCPAddr.IP");
	go_offset address_port GO_EXACT("net.TCPAddr.Port");
	go_offset tls_conn GO_EXACT("crypto/tls.Conn.conn");
	go_address tcp_connection GO_ITAB("*net.TCPConn", "net.Conn");
	go_address tls_connection GO_ITAB("*crypto/tls.Conn", "net.Conn");
	go_address tcp_address GO_ITAB("*net.TCPAddr", "net.Addr");
};

LAYOUTS(connection_layouts, struct connection_layout);

struct connection_note {
	struct connection_key key; /* whose it is: others may have the same hash */
	__u32 time; /* coarse_time(); 0: taken */
	struct trace_context context;
};

/* In coarse_time, five seconds or more. A request that has not come by then won't: the note is of one that its server, not
 * traced then, did not take. */
#define NOTE_LIFETIME 40

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64); /* connection_hash(): a look by all of the key would take twice as long */
	__type(value, struct connection_note);
} connection_notes SEC(".maps");

static __always_inline __u64 connection_hash(const struct connection_key *key)
{
	const any_u64 *words = (const any_u64 *)key;
	__u64 hash = 0;

	_Static_assert(sizeof(*key) == 5 * sizeof(*words) + sizeof(key->stream), "all of it counts");
#pragma unroll
	for (int i = 0; i < 5; i++) {
		hash = (hash ^ words[i]) * 0x9e3779b97f4a7c15ULL;
		hash ^= hash >> 32;
	}
	return (hash ^ key->stream) * 0xbf58476d1ce4e5b9ULL;
}

static __always_inline bool is_same_connection(const struct connection_key *one, const struct connection_key *other)
{
	const any_u64 *a = (const any_u64 *)one, *b = (const any_u64 *)other;

	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]) |
		 (one->stream ^ other->stream));
}

/* The note of a connection, if there is one. `hash` is the key's. */
static __always_inline struct connection_note *connection_find(const struct connection_key *key, const __u64 *hash)
{
	struct connection_note *note = bpf_map_lookup_elem(&connection_notes, hash);

	return note && is_same_connection(&note->key, key) ? note : NULL;
}

/* Whether there has been any note: servers without traced clients on their machine need not look. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} connection_notes_made SEC(".maps");

static __always_inline __u64 *notes_made(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&connection_notes_made, &zero);
}

/* The address that the linker gave to what lies at an address now, less that address. `place` is the probe's. */
static __always_inline __u64 go_bias(struct pt_regs *ctx, go_address place)
{
	return GO_PC(ctx) - place;
}

static __always_inline bool is_itab(__u64 word, go_address itab, __u64 bias)
{
	return itab != GO_NOWHERE && word == itab + bias;
}

/* A *net.TCPAddr. */
static __always_inline bool address_read(struct connection_reading *at, const struct go_interface *address,
					 struct ip_address *ip, __u16 *port, const struct connection_layout *go,
					 __u64 bias)
{
	if (!is_itab(address->type, go->tcp_address, bias) ||
	    !go_read_field(&at->ip, sizeof(at->ip), address->data, go->address_ip) ||
	    !go_read_field(&at->port, sizeof(at->port), address->data, go->address_port))
		return false;
	*port = at->port;
	if (at->ip.length == 16)
		return go_read(ip->words, 16, at->ip.data);
	ip->words[0] = ip->words[1] = 0;
	ip->words[2] = 0xffff0000; /* little-endian: bytes 00 00 ff ff */
	return at->ip.length == 4 && go_read(&ip->words[3], 4, at->ip.data);
}

static __always_inline bool is_loopback(const struct ip_address *ip)
{
	if (ip->words[0] || ip->words[1])
		return false;
	return (ip->words[2] == 0xffff0000 && ip->bytes[12] == 127) || (!ip->words[2] && ip->words[3] == 0x01000000);
}

/* Tell a connection by at->conn; false where that can't be done with certainty. */
static __always_inline bool connection_read(struct connection_reading *at, const struct hit *hit, __u64 bias,
					    bool is_client)
{
	const struct connection_layout *go = bpf_map_lookup_elem(&connection_layouts, &hit->process->slot);
	struct connection_key *key = &at->key;

	if (!go)
		return false;
	__builtin_memset(key, 0, sizeof(*key));
	if (is_itab(at->conn.type, go->tls_connection, bias) &&
	    !go_read_field(&at->conn, sizeof(at->conn), at->conn.data, go->tls_conn))
		return false;
	if (!is_itab(at->conn.type, go->tcp_connection, bias) ||
	    !go_read_field(&at->fd, sizeof(at->fd), at->conn.data, go->conn_fd) ||
	    !go_read_field(&at->local, sizeof(at->local), at->fd, go->fd_local) ||
	    !go_read_field(&at->remote, sizeof(at->remote), at->fd, go->fd_remote) ||
	    !address_read(at, is_client ? &at->local : &at->remote, &key->client, &key->client_port, go, bias) ||
	    !address_read(at, is_client ? &at->remote : &at->local, &key->server, &key->server_port, go, bias))
		return false;
	if (is_loopback(&key->server)) {
		struct task_struct *task = (void *)bpf_get_current_task();

		key->network = BPF_CORE_READ(task, nsproxy, net_ns, ns.inum);
	}
	return true;
}

/* The client's end: a request with this context is about to be sent. */
static __always_inline void connection_note(const struct connection_key *key, const struct trace_context *context)
{
	__u64 hash = connection_hash(key), *made = notes_made();
	struct connection_note *known = connection_find(key, &hash);

	if (made && !*made)
		*made = 1;
	if (known) {
		known->context = *context;
		known->time = coarse_time();
	} else {
		struct connection_note note = {.key = *key, .time = coarse_time(), .context = *context};

		/* Of two with the same hash only one can have a note. */
		if (bpf_map_update_elem(&connection_notes, &hash, &note, BPF_NOEXIST))
			return;
	}
	count(COUNTER_CONTEXTS_NOTED);
}

/* The client's end: a request is about to be sent that carries a context itself, or is not known. */
static __always_inline void connection_forget(const struct connection_key *key)
{
	__u64 hash = connection_hash(key);
	struct connection_note *note = connection_find(key, &hash);

	if (note)
		note->time = 0;
}

static __always_inline bool are_connections_joined(void)
{
	const __u64 *made;

	if (!join_connections)
		return false;
	made = notes_made();
	return made && *made;
}

/* The server's end: a request without a context has come. The note of an HTTP/1 connection stays, for its next request. */
static __always_inline bool connection_take(const struct connection_key *key, struct trace_context *context)
{
	__u64 hash = connection_hash(key);
	struct connection_note *note = connection_find(key, &hash);
	bool fresh;

	if (!note || !note->time)
		return false;
	fresh = (__u32)coarse_time() - note->time < NOTE_LIFETIME;
	*context = note->context;
	note->time = 0;
	if (key->stream)
		bpf_map_delete_elem(&connection_notes, &hash);
	if (fresh)
		count(COUNTER_CONTEXTS_JOINED);
	return fresh;
}
