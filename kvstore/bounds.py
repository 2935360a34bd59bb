"""What the numbers of settings may be, declared with their types: `Annotated[float, Bounds(...)]`.

From these declarations settings are checked, read from a file and documented.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, get_args, get_type_hints

from kvstore.errors import ConfigError

YEARS = 100 * 365 * 86_400
"""The longest time that a setting may be, in seconds: far from what clocks and floats can hold."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """A number from `least` to `most`. `above`: more than `least`; `never`: infinity too."""

    least: float
    most: float
    above: bool = False
    never: bool = False

    def allow(self, value: float) -> bool:
        """Whether a number is within these bounds."""
        if value == math.inf:
            return self.never
        return value <= self.most and (value > self.least if self.above else value >= self.least)

    def __str__(self) -> str:
        least = f"{'more than' if self.above else 'at least'} {self.least:.16g}"
        return f"{least} and at most {self.most:.16g}{', or inf' if self.never else ''}"


Seconds = Annotated[float, Bounds(0, YEARS, above=True)]
SecondsOrNone = Annotated[float, Bounds(0, YEARS)]
SecondsOrNever = Annotated[float, Bounds(0, YEARS, above=True, never=True)]
Rate = Annotated[float, Bounds(0, 1e12, above=True)]
Count = Annotated[int, Bounds(1, 10**12)]
CountOrNone = Annotated[int, Bounds(0, 10**12)]


@dataclass(frozen=True, slots=True)
class Setting:
    """One field of a class of settings: a whole number, or any number."""

    name: str
    whole: bool
    bounds: Bounds
    default: float

    @property
    def label(self) -> str:
        """Its name in files and messages."""
        return self.name.replace("_", "-")

    def check(self, table: str, value: object) -> None:
        """Raise ConfigError unless this is a number of the right kind within the bounds."""
        kind = int if self.whole else int | float
        if isinstance(value, bool) or not isinstance(value, kind):
            wanted = "a whole number" if self.whole else "a number"
            raise ConfigError(f"{table}: {self.label}={value!r} must be {wanted}")
        if not self.bounds.allow(value):
            raise ConfigError(f"{table}: {self.label}={value} must be {self.bounds}")


def settings_of(kind: Any) -> tuple[Setting, ...]:
    """The fields of a dataclass whose types have bounds, in order."""
    return _declared(kind)


@cache  # each node that is made checks its settings
def _declared(kind: Any) -> tuple[Setting, ...]:
    hints = get_type_hints(kind, include_extras=True)
    found = []
    for field in fields(kind):
        number, bounds = get_args(hints[field.name])
        default: Any = field.default
        found.append(Setting(field.name, number is int, bounds, default))
    return tuple(found)


def check_bounds(table: str, settings: object) -> None:
    """Raise ConfigError, with the name of the table and the setting, for the first value that is wrong."""
    for setting in settings_of(type(settings)):
        setting.check(table, getattr(settings, setting.name))
