"""Trying several addresses until one is good (as in RFC 8305, "Happy Eyeballs")."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from kvstore.frames.incoming import StreamLost
from kvstore.frames.stream import reason

T = TypeVar("T")

_NEXT_SECONDS = 0.25
"""Who has not answered within this time is not waited for any longer before the next is tried as well."""
_ALL_SECONDS = 1.0
"""All have been tried within this time, however many there are."""
_MOST_SHOWN = 5


async def first_good(
    addresses: Sequence[str],
    attempt: Callable[[str], Coroutine[Any, Any, T]],
    discard: Callable[[T], object],
) -> T:
    """What `attempt` gives at the first address where it succeeds; `discard` gets what is not needed.

    Raises the error of the attempt when they all fail alike, else StreamLost with the reasons.
    """
    if len(addresses) == 1:
        return await attempt(addresses[0])
    pause = min(_NEXT_SECONDS, _ALL_SECONDS / len(addresses))
    left = list(reversed(addresses))
    running: dict[asyncio.Task[T], str] = {}
    failed: dict[str, BaseException] = {}
    try:
        while left or running:
            if left:
                address = left.pop()
                running[asyncio.ensure_future(attempt(address))] = address
            done, _ = await asyncio.wait(
                running, timeout=pause if left else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                if (error := task.exception()) is None:
                    del running[task]
                    return task.result()
                failed[running.pop(task)] = error
    finally:
        await _leave(running, discard)
    raise _all_failed(failed)


async def _leave(running: dict[asyncio.Task[T], str], discard: Callable[[T], object]) -> None:
    for task in running:
        task.cancel()
    for ended in await asyncio.gather(*running, return_exceptions=True):
        if not isinstance(ended, BaseException):
            discard(ended)


def _all_failed(failed: dict[str, BaseException]) -> BaseException:
    first, *others = failed.values()
    if all(reason(other) == reason(first) for other in others):
        return first
    shown = [f"{address}: {reason(error)}" for address, error in failed.items()][:_MOST_SHOWN]
    more = f" (and {len(failed) - len(shown)} more)" if len(failed) > len(shown) else ""
    return StreamLost("; ".join(shown) + more)
