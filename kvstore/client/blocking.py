"""Methods of a sync class, made of those of the asyncio class: same signature, docstring and types.

A sync object stands before an asyncio one. Its methods run the other's coroutines on the event loop behind it
and wait; what calls its caller back runs in the calling thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

from kvstore.client.guidance import refuse_to_travel
from kvstore.client.ports import Runner

A = TypeVar("A")
A_co = TypeVar("A_co", covariant=True)
B = TypeVar("B")
P = ParamSpec("P")
T = TypeVar("T")

_COROUTINE = "Coroutine[Any, Any, "


class Facade(Generic[A_co]):
    """A sync object before `inner`, whose coroutines `background` runs."""

    def __init__(self, inner: A_co, background: Runner) -> None:
        self._inner = inner
        self._background = background

    __reduce__ = refuse_to_travel


def blocking(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Facade[A], P], T]:
    """The method that waits for what this one gives."""

    @wraps(method)
    def call(self: Facade[A], *args: P.args, **kwargs: P.kwargs) -> T:
        return self._background.run(method(self._inner, *args, **kwargs))

    return cast(Callable[Concatenate[Facade[A], P], T], call)


def standing_before(
    method: Callable[Concatenate[A, P], B], kind: Callable[[B, Runner], T]
) -> Callable[Concatenate[Facade[A], P], T]:
    """The method that puts a sync object of this kind before what the other gives at once."""

    @wraps(method)
    def call(self: Facade[A], *args: P.args, **kwargs: P.kwargs) -> T:
        return kind(method(self._inner, *args, **kwargs), self._background)

    call.__annotations__ = {**method.__annotations__, "return": kind}
    return cast(Callable[Concatenate[Facade[A], P], T], call)


def in_calling_thread(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Facade[A], P], T]:
    """The same method, run in the calling thread: what it awaits blocks (see ThreadBucket), and is there."""

    @wraps(method)
    def call(self: Facade[A], *args: P.args, **kwargs: P.kwargs) -> T:
        return _result(method(self._inner, *args, **kwargs))

    call.__annotations__ = {**method.__annotations__, "return": _awaited(method.__annotations__["return"])}
    return cast(Callable[Concatenate[Facade[A], P], T], call)


def iterating(
    method: Callable[Concatenate[A, P], AsyncIterator[T]],
) -> Callable[Concatenate[Facade[A], P], Iterator[T]]:
    """As `in_calling_thread`, of an async iterator."""

    @wraps(method)
    def call(self: Facade[A], *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        # called at once, so that wrong arguments are an error here, and not where the first item is taken
        return _items(method(self._inner, *args, **kwargs))

    return cast(Callable[Concatenate[Facade[A], P], Iterator[T]], call)


def _items(items: AsyncIterator[T]) -> Iterator[T]:
    while True:
        try:
            yield _result(cast(Coroutine[Any, Any, T], anext(items)))
        except StopAsyncIteration:
            return


def _awaited(annotation: str) -> str:
    """The type that one has who awaits what a method gives, be it `async` or not."""
    return annotation.removeprefix(_COROUTINE)[:-1] if annotation.startswith(_COROUTINE) else annotation


def _result(coroutine: Coroutine[Any, Any, T]) -> T:
    """What it returns; it waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return cast(T, stop.value)
    raise AssertionError("it waits for something")
