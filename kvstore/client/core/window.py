"""Many requests of one caller, of which only so many are under way at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from kvstore.client.core.waiter import Answer, Waiter
from kvstore.errors import KVError
from kvstore.protocol.client import ClientRequest, Success

BATCH_CALLS = 512
"""Calls that one `get_many` or `put_many` has under way at a time."""

Begin: TypeAlias = Callable[[ClientRequest, Waiter], None]


class Window:
    """Begins the requests of a batch, the next when one has ended; `ended` is called when all have.

    `left` says whether the caller has left: then no other is begun, and what is not sent yet never is.
    """

    def __init__(
        self,
        requests: Sequence[ClientRequest],
        begin: Begin,
        ended: Callable[[], None],
        left: Callable[[], bool],
    ) -> None:
        self.left = left
        self._answers: list[Answer | None] = [None] * len(requests)
        self._unanswered = len(requests)
        self._numbered = iter(enumerate(requests))
        self._begin = begin
        self._ended = ended
        self._free = BATCH_CALLS
        self._filling = False

    def open(self) -> None:
        """Begin as many as may be under way."""
        if self._unanswered:
            self._fill()
        else:
            self._ended()

    @property
    def answers(self) -> list[Answer]:
        """The reply to each request, or the error it ended with, in their order."""
        return [answer for answer in self._answers if answer is not None]

    def on_answer(self, number: int, answer: Answer) -> None:
        """One request has ended."""
        self._answers[number] = answer
        self._unanswered -= 1
        if not self._unanswered:
            self._ended()
        elif not self.left():
            self._free += 1
            self._fill()

    def _fill(self) -> None:
        if self._filling:  # a request has ended while it was begun
            return
        self._filling = True
        while self._free and (following := next(self._numbered, None)):
            self._free -= 1
            number, request = following
            self._begin(request, _Slot(self, number))
        self._filling = False


class _Slot:
    """Waits for one reply: see Waiter."""

    __slots__ = ("_number", "_window")

    def __init__(self, window: Window, number: int) -> None:
        self._window = window
        self._number = number

    def done(self) -> bool:
        return self._window.left()

    def set_result(self, result: Success, /) -> None:
        self._window.on_answer(self._number, result)

    def set_exception(self, exception: KVError, /) -> None:
        self._window.on_answer(self._number, exception)
