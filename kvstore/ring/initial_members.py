"""The initial member list, as it is given to each node that starts."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address

from kvstore.errors import ConfigError
from kvstore.protocol.member import Member


def parse_members(text: str) -> tuple[Member, ...]:
    """Read `n1=address,n2=address/zone,n3=address/zone/host`, sorted by node id; raises ConfigError.

    An address is `host:port`; a host without a zone stands behind an empty one, `address//host`.
    """
    members = sorted((_parse_member(item.strip()) for item in text.split(",")), key=lambda m: m.node)
    ids = [member.node for member in members]
    places = [_place(member.address) for member in members]
    for member in members:
        if ids.count(member.node) > 1:
            raise ConfigError(f"initial members: node {member.node!r} is given twice")
        if places.count(_place(member.address)) > 1:
            raise ConfigError(f"initial members: address {member.address!r} is given twice")
    return tuple(members)


def _place(address: str) -> tuple[str, int]:
    """Equal for two spellings of one address."""
    host, _, port = address.rpartition(":")
    name = host.strip("[]").lower()
    with suppress(ValueError):
        name = ip_address(name).compressed
    return name, int(port)


def _parse_member(text: str) -> Member:
    node, equals, rest = text.partition("=")
    address, *labels = rest.split("/")
    if not equals or len(labels) > 2:
        raise ConfigError(f"initial member {text!r} is not of the form node=host:port[/zone[/host]]")
    zone, host, *_ = [*labels, "", ""]
    return Member(node, address, zone, host)
