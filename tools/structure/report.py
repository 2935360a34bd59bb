"""What is measured, the bounds of it, and what exceeds them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from tools.structure.classes import classes
from tools.structure.cycles import cycles
from tools.structure.imports import Uses, users, uses
from tools.structure.sizes import Sizes, file_sizes, function_sizes
from tools.structure.source import Module

CORE = ("node", "membership", "quorum", "protocol", "ring", "gossip", "lsm", "versions", "contexts", "hlc")
CORE_SETTINGS = ("config", "bounds", "errors")
SHARED = ("errors", "config", "protocol", "versions", "lsm.config", "lsm.messages", "quorum.flow")
"""What the whole package, or the engine, speaks in: any number of modules may use it."""

USERS, ATTRIBUTES, METHODS = 10, 20, 25


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that the median, the p90 and the longest of a kind may be, in lines."""

    median: int
    p90: int
    longest: int


FILES, FUNCTIONS = Bound(91, 249, 488), Bound(5, 16, 44)


@dataclass(frozen=True, slots=True)
class Section:
    """One kind of figures: what is said of them, and what exceeds its bound."""

    title: str
    figures: tuple[str, ...]
    exceeded: tuple[str, ...]


def sections(package: str, modules: Mapping[str, Module]) -> list[Section]:
    """All that is measured of a package."""
    graph = uses(modules)
    return [
        Section("circles of imports", (), tuple(" -> ".join(circle) for circle in cycles(graph))),
        _used(package, graph),
        _classes(modules),
        _sizes("lines of files", file_sizes(modules.values()), FILES),
        _sizes("lines of functions", function_sizes(modules.values()), FUNCTIONS),
    ]


def _used(package: str, graph: Uses) -> Section:
    """The modules of the core by how many others use them, those without a bound left out."""
    found = users(graph)
    core = [f"{package}.{part}" for part in (*CORE, *CORE_SETTINGS)]
    shared = [f"{package}.{part}" for part in SHARED]
    counts = {name: len(by) for name, by in found.items() if _is_of(name, core) and not _is_of(name, shared)}
    most = sorted(counts, key=lambda name: (-counts[name], name))
    exceeded = [
        f"{name} is used by {counts[name]}, {sum(_is_of(user, core) for user in found[name])} of the core"
        for name in most
        if counts[name] > USERS
    ]
    figures = [f"{name} is used by {counts[name]}" for name in most if USERS // 2 < counts[name] <= USERS]
    return Section(f"modules of the core that more than {USERS} others use", tuple(figures), tuple(exceeded))


def _is_of(name: str, parts: Collection[str]) -> bool:
    """Whether a module is one of `parts`, or lies below one."""
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def _classes(modules: Mapping[str, Module]) -> Section:
    exceeded = [
        f"{found.module}.{found.name}: {len(found.attributes)} attributes, {len(found.methods)} methods"
        for module in modules.values()
        for found in classes(module)
        if len(found.attributes) > ATTRIBUTES or len(found.methods) > METHODS
    ]
    return Section(f"classes over {ATTRIBUTES} attributes or {METHODS} methods", (), tuple(exceeded))


def _sizes(title: str, sizes: Sizes, bound: Bound) -> Section:
    figures = f"{sizes.count}: median {sizes.median:g}, p90 {sizes.p90}, longest {sizes.longest}"
    return Section(title, (f"{figures} ({sizes.where})",), tuple(_larger(sizes, bound)))


def _larger(sizes: Sizes, bound: Bound) -> Iterator[str]:
    for name in ("median", "p90", "longest"):
        found, most = getattr(sizes, name), getattr(bound, name)
        if found > most:
            yield f"{name} {found:g} is over {most}"
