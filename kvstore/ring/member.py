"""Members of the cluster, and the initial member list they are read from."""

from __future__ import annotations

from dataclasses import dataclass

from kvstore.config import NAME
from kvstore.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Member:
    """One node: its id, the `host:port` it is reached at, and labels that keep replicas apart."""

    node: str
    address: str
    zone: str = ""
    host: str = ""
    weight: int = 1

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.node):
            raise ConfigError(f"node id {self.node!r} is not of the form {NAME.pattern}")
        host, _, port = self.address.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or len(port) > 5 or not 0 < int(port) < 65536:
            raise ConfigError(f"address {self.address!r} of node {self.node} is not of the form host:port")
        if self.weight < 1:
            raise ConfigError(f"weight {self.weight} of node {self.node} must be at least 1")


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
