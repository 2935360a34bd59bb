"""How long anti-entropy pauses between two steps: longer under load, not at all for an operator who waits."""

from __future__ import annotations

from kvstore.config import AntiEntropySettings
from kvstore.protocol.instant import Instant
from kvstore.quorum.admission import Admission
from kvstore.quorum.deadlines import NEVER


class Pacing:
    """Of one node."""

    def __init__(self, admission: Admission, settings: AntiEntropySettings) -> None:
        self._admission = admission
        self._settings = settings
        self._hurried_until = -NEVER

    def hurry(self, now: Instant) -> None:
        """An operator wants a repair now."""
        self._hurried_until = now.mono + self._settings.interval

    def pause(self, now: Instant) -> float:
        """Seconds between two steps."""
        if now.mono < self._hurried_until:
            return 0.0
        return min(self._settings.pause * (1 + self._admission.load), self._settings.longest_pause)
