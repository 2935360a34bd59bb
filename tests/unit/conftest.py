"""The loop of the tests whose time is their own."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from tests.unit.stepped_loop import nothing_left


@pytest.fixture
def play() -> Iterator[Callable[[Coroutine[Any, Any, None]], None]]:
    """Runs scenarios on a SteppedLoop; whatever they leave behind fails the test."""
    with nothing_left() as played:
        yield played
