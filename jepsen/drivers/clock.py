"""The wall clocks of nodes, wrong for one process at a time by libfaketime. Monotonic time stays right."""

from __future__ import annotations

from pathlib import Path

_LIBRARIES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib*/faketime/libfaketime.so.1")


def library() -> Path | None:
    """Where libfaketime is, None if it is not installed."""
    return next((path for pattern in _LIBRARIES for path in sorted(Path("/").glob(pattern[1:]))), None)


class Clock:
    """The clock of one node: the machine's, and so many seconds on top."""

    def __init__(self, directory: Path) -> None:
        self._library = library()
        self._file = directory / "clock"
        self.set(0.0)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a program that lives by this clock."""
        if self._library is None:
            return {}
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file.absolute()),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # else every wait for a lock with a time limit takes up to tenths of a second
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }

    def set(self, offset: float) -> None:
        """Jump to so many seconds before or after the machine's clock; the node sees it within a second."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset:+.3f}s\n")
        new.rename(self._file)
