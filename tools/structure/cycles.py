"""Circles in a graph of imports."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from collections.abc import Set as AbstractSet


def cycles(graph: Mapping[str, AbstractSet[str]]) -> list[list[str]]:
    """For each module that reaches itself the shortest circle through it; one circle is named once.

    Each ends with the module that it begins with, the first by name; a graph without circles gives none.
    """
    found: dict[frozenset[str], list[str]] = {}
    for group in _groups(graph):
        within = {name: graph[name] & group for name in group}
        for start in sorted(group):
            way = _circle(start, within)
            first = way.index(min(way))
            found.setdefault(frozenset(way), [*way[first:], *way[:first], way[first]])
    return sorted(found.values())


def _groups(graph: Mapping[str, AbstractSet[str]]) -> list[set[str]]:
    """The modules that reach each other, where there are at least two."""
    reached = {name: _reached(name, graph) for name in graph}
    groups, left = [], set(graph)
    while left:
        name = min(left)
        group = {other for other in reached[name] if name in reached[other]}
        if group:
            groups.append(group)
        left -= group | {name}
    return groups


def _reached(start: str, graph: Mapping[str, AbstractSet[str]]) -> set[str]:
    """All to which a way of at least one step leads."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph[waiting.pop()] - seen
        seen |= new
        waiting += new
    return seen


def _circle(start: str, graph: Mapping[str, AbstractSet[str]]) -> list[str]:
    """The shortest way from `start` to a module that uses it."""
    waiting = deque([[start]])
    seen: set[str] = set()
    while True:
        way = waiting.popleft()
        for name in sorted(graph[way[-1]] - seen):
            if name == start:
                return way
            seen.add(name)
            waiting.append([*way, name])
