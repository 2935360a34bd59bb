"""The initial member list, as it is given to each node that starts."""

from __future__ import annotations

from kvstore.errors import ConfigError
from kvstore.protocol.member import Member


def parse_members(text: str) -> tuple[Member, ...]:
    """Read `n1=host:port,n2=host:port/zone`, sorted by node id; raises ConfigError."""
    members = sorted((_parse_member(item.strip()) for item in text.split(",")), key=lambda m: m.node)
    for field in ("node", "address"):
        values = [getattr(member, field) for member in members]
        for value in values:
            if values.count(value) > 1:
                raise ConfigError(f"initial members: {field} {value!r} is given twice")
    return tuple(members)


def _parse_member(text: str) -> Member:
    node, equals, rest = text.partition("=")
    if not equals:
        raise ConfigError(f"initial member {text!r} is not of the form node=host:port[/zone]")
    address, _, zone = rest.partition("/")
    return Member(node, address, zone)
