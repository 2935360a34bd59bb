"""How questions of other nodes are answered: each part of a node has a table of those that it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import QuorumMessage
from kvstore.protocol.table import PeerMessage

Answer: TypeAlias = Callable[[str, Any, Instant], QuorumMessage]
"""Takes the sender and the question; returns the answer, or raises the KVError of a refusal."""


class Answering(NamedTuple):
    """How questions of one type are answered."""

    answer: Answer
    durable: bool = True
    """Whether the answer waits until all that it may tell of is on the disk.

    Otherwise that could be lost, and with it what the asker has been told. So it is False only for an answer
    that tells of nothing but what was on the disk before.
    """


AnsweredQuestions: TypeAlias = Mapping[type[PeerMessage], Answering]
"""By the type of a question."""
