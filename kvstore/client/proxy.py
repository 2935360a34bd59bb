"""Which nodes are reached through a proxy: none, unless the user has named one for gRPC.

`http_proxy` and `https_proxy` are set for the web on many machines, and gRPC alone would take them for nodes,
too: then a node that is up would be refused by a proxy that nobody thinks of.
"""

from __future__ import annotations

import os
from ipaddress import ip_address


def proxy_for(address: str) -> str | None:
    """`host:port` of the proxy on the way to `host:port`, as the environment variable `grpc_proxy` says."""
    named = os.environ.get("grpc_proxy", "")  # noqa: SIM112  (as gRPC reads it)
    host = address.rpartition(":")[0].strip("[]")
    if not named or _on_this_machine(host) or _excepted(host):
        return None
    return (named.partition("//")[2] or named).partition("/")[0].rpartition("@")[2]  # without a password


def _excepted(host: str) -> bool:
    # here, since much comes with it
    from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

    exceptions = os.environ.get("no_grpc_proxy") or os.environ.get("no_proxy", "")  # noqa: SIM112  (as above)
    return bool(proxy_bypass_environment(host, {"no": exceptions}))


def _on_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
