"""Refused connections and requests are logged, but at most once a minute for each kind."""

from __future__ import annotations

import logging
import time

_INTERVAL = 60.0

_log = logging.getLogger(__name__)


class Refusals:
    """Of one kind: a line at once, then one a minute that tells how many there were since the last one."""

    def __init__(self) -> None:
        self._next = float("-inf")
        self._untold = 0

    def tell(self, reason: str) -> None:
        """Something was refused for `reason`, which stands for others of its kind as well."""
        now = time.monotonic()
        if now < self._next:
            self._untold += 1
            return
        more = f" ({self._untold} more since the last such line)" if self._untold else ""
        _log.warning("refused: %s%s", reason, more)
        self._next, self._untold = now + _INTERVAL, 0
