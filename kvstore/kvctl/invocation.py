"""What every command shares: endpoints, timeout, form of output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvstore.kvctl.output import say

if TYPE_CHECKING:
    from kvstore.client.synchronous import Client
    from kvstore.kvctl.tables import Row

DEFAULT_ENDPOINTS = "127.0.0.1:7001"


@dataclass(slots=True)
class Invocation:
    """The global options of one call of kvctl; `output` may be given after the command as well."""

    endpoints: str | None
    timeout: float
    output: str

    def connect(self) -> Client:
        """A client of the cluster that was named, else of the local one here, else of the usual port."""
        from kvstore.client.synchronous import connect  # here: gRPC takes a third of a second

        return connect(self.endpoints or _local_endpoints() or DEFAULT_ENDPOINTS, timeout=self.timeout)

    @property
    def json(self) -> bool:
        """Whether JSON was asked for."""
        return self.output == "json"

    def show(self, rows: Sequence[Row], columns: Sequence[str], keep: int = 2) -> None:
        """Print rows as JSON, or as a table of these columns: of the first `keep` in any case."""
        from kvstore.kvctl.tables import show

        if self.json:
            self.show_json(list(rows))
        else:
            show(rows, columns, keep)

    def show_json(self, value: object) -> None:
        """Print a value as JSON."""
        say(json.dumps(value, indent=2, ensure_ascii=False))

    def show_json_line(self, value: object) -> None:
        """Print a value as a line of JSON, one of many."""
        say(json.dumps(value, ensure_ascii=False))


def _local_endpoints() -> str | None:
    """Of the local cluster, if there is one; raises ConfigError for one that cannot be read.

    For another cluster must not be taken in the place of one that is damaged.
    """
    from kvstore.local.cluster import LocalCluster, NoLocalCluster

    try:
        return LocalCluster.load().endpoints
    except NoLocalCluster:
        return None
