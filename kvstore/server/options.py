"""gRPC channel and server options, and why each is not left at its default."""

from __future__ import annotations

import resource

from kvstore.config import MAX_REQUEST_BYTES, MIB


def most_connections() -> int:
    """How many connections a node takes: the files of the engine need room beside them."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_CONNECTIONS if files == resource.RLIM_INFINITY else min(_MOST_CONNECTIONS, files // 2)


_MOST_CONNECTIONS = 4096

COMMON = [
    # what is received takes several times its size until it is judged: a put of a value over the limit of
    # this node still arrives, to be refused with that limit, unless no node would take it
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", -1),
    # a connection that a split has cut silently is noticed, and made anew, in seconds
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
]

SERVER = [
    *COMMON,
    # of one connection; more calls wait in the client, by HTTP/2's own rules
    ("grpc.max_concurrent_streams", 512),
    # one more is closed at once; and who has not said within this time that it speaks HTTP/2 makes room
    ("grpc.max_allowed_incoming_connections", most_connections()),
    ("grpc.server_handshake_timeout_ms", 5_000),
    # nor may one that has no calls take the place of a client that has some; whoever comes back connects anew
    ("grpc.max_connection_idle_ms", 120_000),
    # what is taken of a stream before the node reads it: gRPC's own estimate is larger the slower the machine
    # is, and has no bound near a node's budgets (300 MB of a peer that sends faster than its parts are kept)
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", MIB),
    # otherwise a second node on the same port starts without an error and takes half of the requests
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
]
