"""Members of the cluster, as its state names them."""

from __future__ import annotations

from dataclasses import dataclass

from kvstore.config import LABEL, NAME, is_address
from kvstore.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Member:
    """One node: its id, the `host:port` it is reached at, and labels that keep replicas apart.

    `host` names the machine that it shares with other nodes; one without is on a machine of its own.
    """

    node: str
    address: str
    zone: str = ""
    host: str = ""
    weight: int = 1

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.node):
            raise ConfigError(f"node id {self.node!r} is not of the form {NAME.pattern}")
        if not is_address(self.address):
            raise ConfigError(f"address {self.address!r} of node {self.node} is not of the form host:port")
        for label, text in (("zone", self.zone), ("host", self.host)):
            if text and not LABEL.fullmatch(text):
                raise ConfigError(f"{label} {text!r} of node {self.node} is not of the form {LABEL.pattern}")
        if self.weight < 1:
            raise ConfigError(f"weight {self.weight} of node {self.node} must be at least 1")

    @property
    def labels(self) -> str:
        """As in the member list behind the address: `zone`, `zone/host`, `/host` without a zone, or empty."""
        return f"{self.zone}/{self.host}" if self.host else self.zone

    @property
    def host_key(self) -> tuple[str, str]:
        """Equal for nodes on one host, and for no others."""
        return (self.host, "") if self.host else ("", self.node)
