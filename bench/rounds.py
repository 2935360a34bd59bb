"""What several rounds of one measurement say together: the median, and the lowest and highest."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def spread(values: Sequence[float], digits: int = 0) -> str:
    """`median (lowest-highest)`, with so many digits after the point."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})"


def ratios(values: Sequence[float], references: Sequence[float]) -> list[float]:
    """Each value to the reference of the same round, so that a machine that drifts does not matter."""
    return [value / reference for value, reference in zip(values, references, strict=True)]
