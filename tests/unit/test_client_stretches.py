"""Reading a bucket in several stretches at once: every key once, in order, whatever pages have room for."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.client.transfer.stretches import Stretches
from kvstore.errors import Unavailable
from kvstore.protocol.scan import Scanned, ScannedKey
from kvstore.ring import place_of, token_at
from kvstore.versions import UserKey
from tests.patience import PATIENCE

END = b"e"


class Pages:
    """A bucket whose keys are their places on the ring; `room` is how many keys the next page has."""

    def __init__(self, places: list[bytes], room: Callable[[], int]) -> None:
        self._places = sorted(places)
        self._room = room
        self.asked: list[tuple[bytes, bytes]] = []

    def page(self, start: bytes, until: bytes) -> Scanned:
        assert not until or start < until
        self.asked.append((start, until))
        found = [place for place in self._places if start <= place < (until or END)]
        room = self._room()
        rest = found[room] if len(found) > room else b""
        return Scanned(tuple(ScannedKey(UserKey(place)) for place in found[:room]), rest)


def read(pages: Pages, at_once: int) -> list[bytes]:
    return [each.key for page in Stretches(pages.page, at_once) for each in page.keys]


def spread(count: int) -> list[bytes]:
    chance = random.Random(count)
    return sorted(place_of(chance.getrandbits(64)) + b"carts\0k" for _ in range(count))


SEED = st.integers(0, 2**32)
TOKENS = st.integers(0, 2**64 - 1)


@given(st.lists(TOKENS | st.integers(0, 9) | st.integers(2**64 - 9, 2**64 - 1)), st.integers(1, 4), SEED)
def test_every_key_is_read_once_in_order(tokens: list[int], at_once: int, seed: int) -> None:
    """Also of several keys with one token, and with pages that end early for no reason."""
    places = sorted({place_of(each) + b"carts\0%d" % i for i, each in enumerate(tokens)})
    chance = random.Random(seed)
    pages = Pages(places, lambda: chance.choice((1, 2, 5, 1000)))
    assert read(pages, at_once) == places


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_hardly_more_pages_are_asked_for_than_are_full(at_once: int) -> None:
    pages = Pages(places := spread(20_000), lambda: 1000)
    assert read(pages, at_once) == places
    assert len(pages.asked) <= 20 + 1 + (at_once > 1) * 4


def test_so_many_are_under_way_at_once() -> None:
    """The second one waits here for the third: they come in any order, and are given in that of the ring."""
    pages = Pages(places := spread(2000), lambda: 100)
    third = threading.Event()

    def page(start: bytes, until: bytes) -> Scanned:
        found = pages.page(start, until)
        if len(pages.asked) > 2:
            third.set()
        assert len(pages.asked) == 1 or third.wait(PATIENCE)
        return found

    assert [each.key for page_ in Stretches(page, 2) for each in page_.keys] == places


def test_pages_become_wider_again_after_one_that_ended_early() -> None:
    rooms = iter([3])
    pages = Pages(places := spread(3000), lambda: next(rooms, 1000))
    assert read(pages, 2) == places
    assert len(pages.asked) < 50


def test_what_a_page_ends_with_is_raised_where_it_stands() -> None:
    pages = Pages(places := spread(1000), lambda: 100)

    def page(start: bytes, until: bytes) -> Scanned:
        if token_at(start) > 2**63:
            raise Unavailable(2, 1)
        return pages.page(start, until)

    found: list[bytes] = []
    with pytest.raises(Unavailable):
        found.extend(key.key for each in Stretches(page, 2) for key in each.keys)
    assert found == places[: len(found)]
    assert len(found) > 300
