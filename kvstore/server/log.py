"""How a node's log is written: lines for people or JSON, with the zone of the time, and never a flood."""

from __future__ import annotations

import logging
import sys
import time
from datetime import UTC, datetime
from typing import Literal

import msgspec

Format = Literal["text", "json"]

_WINDOW = 60.0
_MOST = 20
"""Lines of one kind that a window may have."""
_MOST_KINDS = 1000


def set_up(level: str, form: Format, node: str) -> None:
    """Let all loggers of this process write to stderr, from `level` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(node) if form == "json" else TextLines())
    handler.addFilter(RateLimit())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # it warns of each stream that a stopping node turns away
    logging.getLogger("grpc").setLevel(logging.ERROR)


def _written_at(record: logging.LogRecord) -> str:
    """The local time with its distance from UTC, as in ISO 8601."""
    moment = datetime.fromtimestamp(record.created, UTC).astimezone()
    return moment.isoformat(timespec="milliseconds")


class TextLines(logging.Formatter):
    """`2026-11-30T09:15:00.123+01:00 WARNING kvstore.server.driver: ...`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """See logging.Formatter."""
        return _written_at(record)


class JsonLines(logging.Formatter):
    """An object a line: time, level, node, logger, message, and exception where there is one."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        found = {
            "time": _written_at(record),
            "level": record.levelname.lower(),
            "node": self._node,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(found).decode()


class RateLimit(logging.Filter):
    """Lets through 20 lines of one kind a minute; the first one after that tells how many were left out.

    Lines are of one kind when they have one text before anything is put into it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[tuple[str, str], tuple[float, int]] = {}
        """When the window of a kind began, and how many lines it has had."""

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging.Filter."""
        now, kind = time.monotonic(), (record.name, str(record.msg))
        began, lines = self._kinds.get(kind, (now, 0))
        if now - began >= _WINDOW:
            if lines > _MOST:
                record.msg = f"{record.msg} ({lines - _MOST} more lines like this one were left out)"
            began, lines = now, 0
        elif len(self._kinds) >= _MOST_KINDS:
            self._kinds.clear()
        self._kinds[kind] = began, lines + 1
        return lines < _MOST
