/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What the server and the client of google.golang.org/grpc have in common: statuses and network addresses. */
#pragma once

#include "span.h"
#include "text.h"

#define GRPC_TRANSPORT "google.golang.org/grpc/internal/transport."

struct grpc_layout {
	/* A *status.Status is a pointer to the message; it was in another package before grpc 1.28. */
	go_offset status_message GO("google.golang.org/grpc/internal/status.Status.s")
	    GO("google.golang.org/grpc/status.Status.s");
	go_offset message_code GO("google.golang.org/genproto/googleapis/rpc/status.Status.Code");
	go_offset message_text GO("google.golang.org/genproto/googleapis/rpc/status.Status.Message");
	go_offset tcp_ip GO("net.TCPAddr.IP");
	go_offset tcp_port GO("net.TCPAddr.Port");
};

LAYOUTS(grpc_layouts, struct grpc_layout);

#define GRPC_CODE_UNKNOWN  0xffffffff /* no status could be read */
#define GRPC_UNIMPLEMENTED 12

/* An IP address and a port, as net.TCPAddr has them. */
struct tcp_address {
	__u8 ip[16];
	__u16 port;
	__u8 length; /* of ip, bytes: 4 or 16; 0: no such address */
};

/* Read the *net.TCPAddr that a net.Addr may be. Of another type, or of none, nothing is taken. */
static __always_inline void tcp_address_read(struct tcp_address *to, const struct grpc_layout *go, __u64 address)
{
	struct go_slice ip = {};
	__u64 port = 0;

	to->length = 0;
	if (!go_read_field(&ip, sizeof(ip), address, go->tcp_ip) ||
	    !go_read_field(&port, sizeof(port), address, go->tcp_port))
		return;
	if (port > 0xffff || ip.capacity < ip.length)
		return;
	if (ip.length == 4) {
		if (!go_read(to->ip, 4, ip.data))
			return;
	} else if (ip.length == 16) {
		if (!go_read(to->ip, 16, ip.data))
			return;
	} else {
		return;
	}
	to->port = port;
	to->length = ip.length;
}

/* The address in the net.Addr at `offset` of the struct at `base`. */
static __always_inline void tcp_address_of(struct tcp_address *to, const struct grpc_layout *go, __u64 base,
					   go_offset offset)
{
	struct go_interface address = {};

	to->length = 0;
	if (go_read_field(&address, sizeof(address), base, offset) && address.data)
		tcp_address_read(to, go, address.data);
}

/* The code in the message (google.rpc.Status) at `message`. What cannot be read has never been written to, since its page
 * is not there: the one status that all calls without an error share is made of zeros. */
static __always_inline __u32 message_code(const struct grpc_layout *go, __u64 message)
{
	__u32 code = 0;

	if (go->message_code == GO_UNKNOWN || (__s64)message <= 0)
		return GRPC_CODE_UNKNOWN;
	/* The helper zeroes what it was to fill where it fails. */
	bpf_probe_read_user(&code, sizeof(code), (const void *)(message + go->message_code));
	return code;
}

/* The code of a *status.Status; nil is OK (status.go, Code). */
static __always_inline __u32 status_code(const struct grpc_layout *go, __u64 status)
{
	__u64 message = 0;

	if (!status)
		return 0;
	if (!go_read_field(&message, sizeof(message), status, go->status_message))
		return GRPC_CODE_UNKNOWN;
	return message ? message_code(go, message) : 0;
}
