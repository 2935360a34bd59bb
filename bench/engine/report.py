"""What is printed of the figures: a table of rates and ratios, costs, and the goals of the engine."""

from __future__ import annotations

from math import isnan, nan
from statistics import median

from rich.console import Console
from rich.table import Table

BATCHES = "durable put, batches beside"
MAINTENANCE = "durable put, batches and flush or compaction beside"

Results = dict[str, dict[str, list[dict[str, float]]]]
"""The figures of each round, by operation and engine."""

OURS = "kvstore"
_CONSOLE = Console(width=150)


def _middle(rounds: list[dict[str, float]], name: str) -> float:
    return median(figures.get(name, nan) for figures in rounds)


def _ratios(results: Results, row: str, other: str, name: str = "rate") -> list[float]:
    """Ours to theirs, of each round."""
    pairs = zip(results[row][OURS], results[row][other], strict=True)
    return [ours.get(name, nan) / theirs.get(name, nan) for ours, theirs in pairs]


def print_report(results: Results, small: int, large: int) -> None:
    """All of it."""
    engines = list(next(iter(results.values())))
    others = [engine for engine in engines if engine != OURS] if OURS in engines else []
    _print_rates(results, engines, others)
    _print_latencies(results, engines)
    _print_costs(results, engines)
    _print_lookups(results)
    _print_growth(results, engines, small, large)
    _print_goals(results, others, small, large)


def _print_rates(results: Results, engines: list[str], others: list[str]) -> None:
    shown = Table(*["operations/s", *engines, *(f"{OURS} / {other} (rounds)" for other in others)])
    for row, measured in results.items():
        if any("rate" in rounds[0] for rounds in measured.values()):
            rates = [_shown(_middle(measured[engine], "rate")) for engine in engines]
            shown.add_row(row, *rates, *(_spread(_ratios(results, row, other)) for other in others))
    _CONSOLE.print(shown)


def _shown(rate: float) -> str:
    return "-" if isnan(rate) else f"{rate:,.0f}"


def _spread(ratios: list[float]) -> str:
    if isnan(ratios[0]):
        return "-"
    if len(ratios) == 1:
        return f"{ratios[0]:.2f}"
    return f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def _print_latencies(results: Results, engines: list[str]) -> None:
    shown = Table("p99, us", *engines)
    for row, measured in results.items():
        if any("p99" in rounds[0] for rounds in measured.values()):
            shown.add_row(row, *(f"{_middle(measured[engine], 'p99') * 1e6:,.0f}" for engine in engines))
    _CONSOLE.print(shown)


def _print_costs(results: Results, engines: list[str]) -> None:
    shown = Table("", *engines)
    for row, measured in results.items():
        if "amplification" in measured[engines[0]][0]:
            for name, what in (
                ("amplification", "bytes written per byte"),
                ("space", "bytes on disk per byte"),
            ):
                figures = (f"{_middle(measured[engine], name):.2f}" for engine in engines)
                shown.add_row(f"{row}: {what}", *figures)
            rates = (f"{_middle(measured[engine], 'settled'):,.0f}" for engine in engines)
            shown.add_row(f"{row}: entries/s until all is in tables", *rates)
        if "rss" in measured[engines[0]][0]:
            for name, what in (("rss", "the process"), ("workers", "its workers")):
                figures = (f"{_middle(measured[engine], name) / 2**20:.0f}" for engine in engines)
                shown.add_row(f"{row} of {what}, MiB", *figures)
    _CONSOLE.print(shown)


def _print_lookups(results: Results) -> None:
    shown = Table(
        f"{OURS}, per lookup", "tables asked and spared by filter", "blocks read in vain", "cache misses"
    )
    for row, measured in results.items():
        if OURS in measured and "filter_useful" in measured[OURS][0]:
            names = "filter_useful", "filter_false", "cache_misses"
            shown.add_row(row, *(f"{_middle(measured[OURS], name):.4f}" for name in names))
    _CONSOLE.print(shown)


def _growth(results: Results, engine: str, row: str, small: int, large: int) -> list[float]:
    """What one operation costs at the larger size, to what it costs at the smaller, in each round.

    In CPU where that was measured, as the machine's other work changes.
    """
    rounds = zip(results[f"{small:,}{row}"][engine], results[f"{large:,}{row}"][engine], strict=True)
    return [
        after["cpu"] / before["cpu"] if "cpu" in before else before.get("rate", nan) / after.get("rate", nan)
        for before, after in rounds
    ]


def _print_growth(results: Results, engines: list[str], small: int, large: int) -> None:
    shown = Table(f"cost at {large:,} / at {small:,}", *engines)
    for row in results:
        if row.startswith(f"{small:,}") and "rate" in next(iter(results[row].values()))[0]:
            name = row.removeprefix(f"{small:,}")
            if f"{large:,}{name}" in results:
                growths = (_growth(results, engine, name, small, large) for engine in engines)
                figures = (f"{median(growth):.2f}" for growth in growths)
                shown.add_row(name.strip(": "), *figures)
    _CONSOLE.print(shown)


def _print_goals(results: Results, others: list[str], small: int, large: int) -> None:
    """Each with what was reached."""
    cold, scan = f"{large:,} as filled: get, cold", f"{large:,} as filled: scan of all"
    ratios = [
        ("one durable put at a time", "durable put, one at a time", "rocksdb", 0.8),
        ("durable batches of 100", "durable batch of 100", "rocksdb", 0.5),
        ("point reads beyond the cache", cold, "leveldb", 0.25),
        ("full scan", scan, "leveldb", 0.25),
    ]
    for what, row, other, goal in ratios:
        if other in others:
            print(f"{what}: {_spread(_ratios(results, row, other))} x {other}, goal at least {goal}")
    if OURS not in results[cold]:
        return
    absent = results[f"{large:,} as filled: get, absent"][OURS]
    print(
        f"absent keys that cost no block read: {1 - _middle(absent, 'filter_false'):.2%}, goal at least 99%"
    )
    for state in ("as filled", "compacted"):
        growth = _growth(results, OURS, f" {state}: get, cold", small, large)
        print(f"a point read at {large:,}, {state}: {_spread(growth)} x that at {small:,}, goal at most 1.5")
    for engine in (OURS, *others):
        rounds = zip(results[MAINTENANCE][engine], results[BATCHES][engine], strict=True)
        spread = _spread([busy["p99"] / quiet["p99"] for busy, quiet in rounds])
        ours = ", goal below 3" if engine == OURS else ""
        print(f"p99 of a {MAINTENANCE}: {spread} x that of a {BATCHES} ({engine}){ours}")
