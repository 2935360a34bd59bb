"""How questions of other nodes are answered: each part of a node has a table of those that it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from kvstore.instant import Instant
from kvstore.protocol.table import PeerMessage


class Answering(NamedTuple):
    """How questions of one type are answered."""

    answer: Callable[[str, Any, Instant], Any]
    """Takes the sender and the question; returns the answer, or raises the KVError of a refusal."""
    durable: bool
    """Whether the answer waits until all that it may tell of is on the disk.

    Else that could be lost, and with it what the asker has been told.
    """


AnsweredQuestions: TypeAlias = Mapping[type[PeerMessage], Answering]
"""By the type of a question."""
