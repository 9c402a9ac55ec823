/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Facts about this kernel and this configuration, written by the agent before an object is loaded. The verifier
 * treats them as constants and drops the branches that they rule out, so a helper that an old kernel lacks may stand
 * behind one of them. */
#pragma once

#include "kernel.h"

const volatile bool use_ring_buffer = true; /* else the perf buffer (kernels before 5.8, or by configuration) */
const volatile __u64 wakeup_bytes =
    1 << 20; /* wake the agent when so much of the ring waits, a power of two; else its
						timer does */

/* Where trace context goes. Written into outgoing requests only where the kernel allows it and the configuration wants it;
 * else noted, for the other end of the connection to find, if that is a traced process of this machine as well. */
const volatile bool write_http1 = false;
const volatile bool write_http2 = false;
const volatile bool write_grpc = false;
const volatile bool write_kafka = false;
const volatile bool join_connections = true;

/* The agent's own pid namespace, where that is not the initial one (bpf_get_ns_current_pid_tgid, 5.7); else 0. */
const volatile __u64 pid_namespace_dev = 0;
const volatile __u64 pid_namespace_ino = 0;

/* The bit of the object's library in struct process.libraries_off; 0: it belongs to none. */
const volatile __u64 library_bit = 0;

/* Whether spans' contexts leave their process. */
static __always_inline bool is_context_sent(void)
{
	return write_http1 || write_http2 || write_grpc || write_kafka || join_connections;
}

/* Whether others than HTTP clients send them on, who take a context as it is (unread_context.h). */
static __always_inline bool is_context_sent_as_it_is(void)
{
	return write_grpc || write_kafka;
}
