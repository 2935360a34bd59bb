"""How many replicas each node is to hold: by weight, as far as keeping replicas apart allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvstore.protocol.member import Member
from kvstore.ring.apart import place_key

_HALVINGS = 100
"""More than the bits of a float's mantissa: after them the level does not change any more."""
_ROUNDING = 1e-6
"""Below this a share is taken for the whole number beside it."""


@dataclass(frozen=True, slots=True)
class _Unit:
    """A node, a host, a zone, or the cluster: it holds `low` to `high` replicas, shared by its parts."""

    name: str
    weight: int
    low: int
    high: int
    parts: tuple[_Unit, ...] = ()

    def share(self, level: float) -> float:
        """What it holds where a unit of weight holds `level`, within its bounds."""
        free = sum(part.share(level) for part in self.parts) if self.parts else level * self.weight
        return min(max(free, self.low), self.high)


def shares(
    members: Sequence[Member], partitions: int, replicas: int, held: Mapping[str, int]
) -> dict[str, int]:
    """Replicas for each node, in all `partitions` * `replicas`; there are as many members as `replicas`.

    What cannot be divided is left with those that hold it: `held` says how many replicas each node has now.
    """
    found: dict[str, int] = {}
    _divide(_tree(members, partitions, replicas), partitions * replicas, held, found)
    return found


def _tree(members: Sequence[Member], partitions: int, replicas: int) -> _Unit:
    """Zones of hosts of nodes; each holds one replica of a partition at most if there are enough such."""
    ordered = sorted(members, key=lambda member: member.node)
    nodes = {m.node: _Unit(m.node, m.weight, *_bounds(len(ordered), partitions, replicas)) for m in ordered}
    by_host: dict[tuple[str, str], list[_Unit]] = {}
    for member in ordered:
        by_host.setdefault(member.host_key, []).append(nodes[member.node])
    hosts = {key: _union(units, len(by_host), partitions, replicas) for key, units in by_host.items()}
    by_place: dict[tuple[str, ...], dict[tuple[str, str], _Unit]] = {}
    for member in ordered:
        by_place.setdefault(place_key(member), {})[member.host_key] = hosts[member.host_key]
    places = [_union([*units.values()], len(by_place), partitions, replicas) for units in by_place.values()]
    return _Unit("", 0, 0, partitions * replicas, tuple(places))


def _bounds(count: int, partitions: int, replicas: int) -> tuple[int, int]:
    """Of one of `count` units: with too few for all replicas each has one of each partition at least."""
    low = partitions if count <= replicas else 0
    high = partitions if count >= replicas else partitions * replicas
    return low, high


def _union(parts: list[_Unit], count: int, partitions: int, replicas: int) -> _Unit:
    low, high = _bounds(count, partitions, replicas)
    low = max(low, sum(part.low for part in parts))
    high = min(high, sum(part.high for part in parts))
    return _Unit(parts[0].name, sum(part.weight for part in parts), low, high, tuple(parts))


def _divide(unit: _Unit, total: int, held: Mapping[str, int], found: dict[str, int]) -> None:
    if not unit.parts:
        found[unit.name] = total
        return
    level = _level(unit.parts, total)
    exact = {part.name: part.share(level) for part in unit.parts}
    whole = {name: int(share + _ROUNDING) for name, share in exact.items()}

    def order(part: _Unit) -> tuple[bool, float, str]:
        name = part.name
        return _held(part, held) <= whole[name], whole[name] - exact[name], name

    left = total - sum(whole.values())
    for part in sorted(unit.parts, key=order):
        if left and whole[part.name] < part.high:
            whole[part.name] += 1
            left -= 1
    for part in unit.parts:
        _divide(part, whole[part.name], held, found)


def _level(parts: Sequence[_Unit], total: int) -> float:
    """What a unit of weight holds when the parts hold `total` together."""
    low, high = 0.0, float(total)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if sum(part.share(middle) for part in parts) < total:
            low = middle
        else:
            high = middle
    return high


def _held(unit: _Unit, held: Mapping[str, int]) -> int:
    return sum(_held(part, held) for part in unit.parts) if unit.parts else held.get(unit.name, 0)
