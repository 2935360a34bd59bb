"""Which nodes are reached through a proxy: none, unless the user has named one for gRPC.

`http_proxy` and `https_proxy` are set for the web on many machines, and gRPC alone would take them for nodes,
too: then a node that is up would be refused by a proxy that nobody thinks of.
"""

from __future__ import annotations

import os
from ipaddress import ip_address
from urllib.parse import urlsplit


def proxy_for(address: str) -> str | None:
    """`host:port` of the proxy on the way to `host:port`, as the environment variable `grpc_proxy` says."""
    named = os.environ.get("grpc_proxy", "")  # noqa: SIM112  (as gRPC reads it)
    if not named or _on_this_machine(address.rpartition(":")[0]):
        return None
    return urlsplit(named).netloc.rpartition("@")[2] or named  # without a password


def _on_this_machine(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
