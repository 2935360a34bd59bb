"""Functions of an engine that read it: for those that do nothing else with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

Get: TypeAlias = Callable[[bytes], bytes | None]
"""See `Engine.get`."""
Scan: TypeAlias = Callable[[bytes, bytes | None], Iterator[tuple[bytes, bytes]]]
"""See `Engine.scan`."""
ScanAround: TypeAlias = Callable[[bytes, bytes | None], Iterator[tuple[bytes, bytes | None]]]
"""See `Engine.scan_around`."""
