"""How a node's log is written."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import datetime

import pytest

from kvstore.server.log import JsonLines, RateLimit, TextLines


def record(text: str, *args: object, failed: bool = False) -> logging.LogRecord:
    try:
        1 / (not failed)
    except ZeroDivisionError:
        return logging.LogRecord("kvstore.x", logging.ERROR, __file__, 1, text, args, sys.exc_info())
    return logging.LogRecord("kvstore.x", logging.WARNING, __file__, 1, text, args, None)


def test_a_line_has_its_time_with_the_zone() -> None:
    line = TextLines().format(record("node %s is dead", "n2"))
    found = re.fullmatch(r"(\S+) WARNING kvstore\.x: node n2 is dead", line)
    assert found is not None
    assert datetime.fromisoformat(found[1]).utcoffset() is not None


def test_a_line_of_json_is_one_object_whatever_is_in_it() -> None:
    line = JsonLines("n1").format(record("a key: %s", 'x"\n\u2028', failed=True))
    assert "\n" not in line
    found = json.loads(line)
    assert datetime.fromisoformat(found.pop("time")).utcoffset() is not None
    assert "ZeroDivisionError" in found.pop("exception")
    assert found == {"level": "error", "node": "n1", "logger": "kvstore.x", "message": 'a key: x"\n\u2028'}


def test_of_one_kind_there_are_twenty_lines_a_minute_and_then_how_many_were_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr("kvstore.server.log.time.monotonic", lambda: now)
    limit = RateLimit()
    assert sum(bool(limit.filter(record("refused %d", i))) for i in range(500)) == 20
    assert limit.filter(record("another"))
    now = 61.0
    first = record("refused %d", 501)
    assert limit.filter(first)
    assert first.getMessage() == "refused 501 (480 more lines like this one were left out)"
    assert limit.filter(record("refused %d", 502))
