"""How a message between nodes is declared: what is said here of a struct is said nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec


class Row(msgspec.Struct, frozen=True):
    """What the table of messages (kvstore.protocol.table) says of a struct, besides its fields."""

    frame_field: str
    """The list in `Frame` (peer.proto) in which it travels."""
    columns: str
    """Where in `Frame` those travel in columns that have their defaults in all fields without one."""
    question: bool
    """Whether an operation of the sender, that of its `number`, waits for an answer."""
    waits: Callable[[Any], bool] | None
    """Tells of a message whether it can wait, and so goes by the stream for bulk, however small it is."""
    time_left: Callable[[Any], float] | None
    """Seconds that its asker had left when it was sent (0: any); after that nobody wants the answer."""
    answers: type | None
    """The question that it answers, if it is an answer."""


ROWS: dict[type, Row] = {}
"""Of all structs that were declared."""

T = TypeVar("T")


def peer_message(
    frame_field: str,
    *,
    columns: str = "",
    question: bool = False,
    waits: Callable[[Any], bool] | None = None,
    time_left: Callable[[Any], float] | None = None,
    answers: type | None = None,
) -> Callable[[type[T]], type[T]]:
    """Declare a struct as a message between nodes: see Row; raises TypeError for the second of one name."""

    def declare(struct: type[T]) -> type[T]:
        if struct in ROWS:
            raise TypeError(f"{struct.__name__} is declared twice")
        if other := [each.__name__ for each, row in ROWS.items() if row.frame_field == frame_field]:
            raise TypeError(f"{frame_field} is the list of {other[0]}")
        ROWS[struct] = Row(frame_field, columns, question, waits, time_left, answers)
        return struct

    return declare
