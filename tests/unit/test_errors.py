"""Errors travel: by pickle between processes, as pools send them, and by copy."""

from __future__ import annotations

import copy
import inspect
import pickle
import pkgutil
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from typing import Any, get_args, get_origin, get_type_hints

import pytest

import kvstore
from kvstore.client.errors import PartialFailure
from kvstore.client.results import Result, Sibling, UnresolvedSiblings
from kvstore.errors import KVError, Outcome, ReadTimeout, StaleRing, Timeout, WriteTimeout

TWO = Result(b"k", (Sibling(b"1"), Sibling(b"2")), b"context", resolver=lambda siblings: siblings[0].value)
SAMPLES: dict[type, object] = {
    str: "a word",
    bytes: b"some bytes",
    int: 3,
    float: 0.5,
    Outcome: Outcome.UNKNOWN,
    Result: TWO,
    KVError: WriteTimeout(1, 2),
}
OWN_SAMPLES: dict[type[KVError], KVError] = {
    PartialFailure: PartialFailure({"a": TWO}, {"b": WriteTimeout(1, 2), "c": StaleRing(3)}),
    kvstore.NoNodeAvailable: kvstore.NoNodeAvailable({"h:1": "refused"}, Outcome.UNKNOWN),
}


def subclasses(kind: type[KVError]) -> Iterator[type[KVError]]:
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


def all_errors() -> list[type[KVError]]:
    for module in pkgutil.walk_packages(kvstore.__path__, "kvstore."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    return sorted({*subclasses(KVError)}, key=lambda kind: kind.__qualname__)


def sample(kind: type[KVError]) -> KVError:
    """One of this class, by what its `__init__` wants; a new kind of argument needs a sample above."""
    if kind in OWN_SAMPLES:
        return OWN_SAMPLES[kind]
    if kind.__init__ is Exception.__init__:
        return kind("what happened")
    hints = get_type_hints(kind.__init__, vars(import_module(kind.__module__)))
    names = [name for name in inspect.signature(kind.__init__).parameters if name != "self"]
    return kind(*(SAMPLES[_plain(hints[name])] for name in names))


def _plain(hint: Any) -> type:
    if isinstance(hint, types.UnionType):
        (hint,) = [each for each in get_args(hint) if each is not types.NoneType]
    hint = get_origin(hint) or hint
    assert isinstance(hint, type)
    return hint


def facts(error: KVError) -> tuple[object, ...]:
    nested = {name: facts(e) if isinstance(e, KVError) else str(e) for name, e in vars(error).items()}
    return type(error), str(error), error.args, error.outcome, error.retryable, nested


def through_pickle(error: KVError) -> Any:
    return pickle.loads(pickle.dumps(error))


@pytest.mark.parametrize("travel", [through_pickle, copy.copy, copy.deepcopy])
@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__qualname__)
def test_every_error_is_the_same_after_its_way(
    kind: type[KVError], travel: Callable[[KVError], KVError]
) -> None:
    error = sample(kind)
    error.__notes__ = ["said later"]
    assert facts(travel(error)) == facts(error)


def test_an_error_of_siblings_still_has_them() -> None:
    error = through_pickle(UnresolvedSiblings(TWO))
    assert error.result == TWO
    assert error.result.resolver is None
    assert copy.deepcopy(UnresolvedSiblings(TWO)).result.value == b"1"


def fail(number: int) -> None:
    raise StaleRing(number)


def test_a_pool_of_processes_hands_an_error_on() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        error = pool.submit(fail, 7).exception(timeout=60)
    assert isinstance(error, StaleRing)
    assert (error.epoch, str(error)) == (7, str(StaleRing(7)))


def test_both_timeouts_are_one_kind() -> None:
    for error in (ReadTimeout(1, 2), WriteTimeout(1, 2)):
        assert isinstance(error, kvstore.Timeout)
        assert (error.received, error.required) == (1, 2)
    assert kvstore.Timeout is Timeout
