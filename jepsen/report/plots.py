"""The plots of a report: latency, throughput, availability, and every process over the whole run."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from jepsen.checkers import Result
from jepsen.history import History, Operation, Process

COLOURS = {"ok": "#2c6fbb", "info": "#e8a33d", "fail": "#c0397b"}
OFFENCE = "#d00000"
MOST_POINTS = 30_000
"""Operations that one plot shows; of more, every so many-th is drawn."""

_SHADES = ("#9aa5b1", "#b8a1c9", "#a3c9a8", "#d8b4a0", "#a0c4d8", "#d6ce93")
_SECOND = 1e9
_MARKS = ("-", "--", ":", "-.")


class Plot(NamedTuple):
    """A plot that has been drawn; `note` says what it leaves out."""

    title: str
    note: str
    path: Path


def draw_plots(
    directory: Path, history: History, results: Mapping[str, Result], offending: AbstractSet[int]
) -> list[Plot]:
    """Draw all plots into `directory`; operations whose index is `offending` are marked.

    Raises OSError.
    """
    if not history.operations:
        return []
    shown, note = _sample(history.operations, offending)
    plots = [
        _latency(directory, history, shown, offending, note),
        _quantiles(directory, history),
        _rate(directory, history),
        _processes(directory, history, shown, offending, note),
    ]
    with_series = [result for result in results.values() if "series" in result.data]
    return plots + [_availability(directory, history, result) for result in with_series]


def _sample(operations: Sequence[Operation], offending: AbstractSet[int]) -> tuple[list[Operation], str]:
    if len(operations) <= MOST_POINTS:
        return list(operations), ""
    chosen = random.Random(0).sample(range(len(operations)), MOST_POINTS)
    places = {*chosen, *(at for at, o in enumerate(operations) if _offends(o, offending))}
    note = f"{MOST_POINTS:,} of {len(operations):,} operations, chosen at random, and all offending ones."
    return [operations[at] for at in sorted(places)], note


def _offends(operation: Operation, offending: AbstractSet[int]) -> bool:
    return any(op is not None and op.index in offending for op in operation)


def _figure(rows: int, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(12, rows * height + 0.8), layout="constrained", dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 1, sharex=True, squeeze=False)
    return figure, list(axes[:, 0])


def _save(figure: Figure, axes: Sequence[Axes], history: History, path: Path, handles: list[Any]) -> None:
    """Shade the nemesis' periods, mark its momentary faults, add the legend, write the file."""
    names = sorted({period.name for period in history.periods})
    shades = {name: _SHADES[at % len(_SHADES)] for at, name in enumerate(names)}
    for ax in axes:
        for period in history.periods:
            start, stop = period.start / _SECOND, period.stop / _SECOND
            ax.axvspan(start, stop, color=shades[period.name], alpha=0.3, lw=0, zorder=0)
        for order, _ in history.faults:
            if not order.f.startswith(("start-", "stop-")):
                ax.axvline(order.time / _SECOND, color="#444444", lw=0.8, ls=":", zorder=1)
        ax.set_xlim(0, max(history.duration / _SECOND, 1e-9))
        ax.grid(True, color="#e5e5e5", lw=0.5, zorder=0)
        ax.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("seconds since the run began")
    handles = [*handles, *(Patch(color=shades[name], alpha=0.3, label=name) for name in names)]
    if handles:
        figure.legend(handles=handles, loc="outside upper right", ncols=min(len(handles), 9), frameon=False)
    figure.savefig(path)


def _latency(
    directory: Path, history: History, shown: list[Operation], offending: AbstractSet[int], note: str
) -> Plot:
    fs = sorted({operation.invocation.f for operation in history.operations})
    figure, axes = _figure(len(fs), 2.2)
    for ax, f in zip(axes, fs, strict=True):
        of_f = [o for o in shown if o.invocation.f == f and o.completion is not None]
        for type, colour in COLOURS.items():
            _points(ax, [o for o in of_f if o.type == type], colour, 3)
        _points(ax, [o for o in of_f if _offends(o, offending)], OFFENCE, 40, "x")
        _logarithmic(ax)
        ax.set_ylabel(f"{f}, ms")
    path = directory / "latency.png"
    _save(figure, axes, history, path, _outcome_handles())
    return Plot("Latency by function and outcome", note, path)


def _logarithmic(ax: Axes) -> None:
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _points(ax: Axes, operations: list[Operation], colour: str, size: float, marker: str = "o") -> None:
    done = [(o.invocation, o.completion) for o in operations if o.completion is not None]
    x = [i.time / _SECOND for i, _ in done]
    y = [max(c.time - i.time, 1) / 1e6 for i, c in done]
    ax.scatter(x, y, s=size, c=colour, marker=marker, linewidths=1.5 if marker == "x" else 0, zorder=3)


def _outcome_handles() -> list[Any]:
    dots = [Line2D([], [], color=c, marker="o", ls="", ms=5, label=type) for type, c in COLOURS.items()]
    return [*dots, Line2D([], [], color=OFFENCE, marker="x", ls="", ms=6, mew=1.5, label="offending")]


def _quantiles(directory: Path, history: History) -> Plot:
    """Of what was ok, in buckets of time."""
    fs = sorted({operation.invocation.f for operation in history.operations})
    bucket = max(1.0, history.duration / _SECOND / 120)
    figure, axes = _figure(len(fs), 1.8)
    names = (
        (0.5, "median", "#2c6fbb"),
        (0.95, "p95", "#3f9b5f"),
        (0.99, "p99", "#e8a33d"),
        (1, "max", "#c0397b"),
    )
    for ax, f in zip(axes, fs, strict=True):
        buckets: dict[int, list[float]] = defaultdict(list)
        for invocation, completion in history.operations:
            if completion is not None and completion.type == "ok" and invocation.f == f:
                latency = (completion.time - invocation.time) / 1e6
                buckets[int(invocation.time / _SECOND / bucket)].append(latency)
        at = sorted(buckets)
        ordered = [sorted(buckets[b]) for b in at]
        for q, _, colour in names:
            y = [max(values[round(q * (len(values) - 1))], 1e-6) for values in ordered]
            ax.plot([(b + 0.5) * bucket for b in at], y, color=colour, lw=1.2, marker=".", ms=3, zorder=3)
        _logarithmic(ax)
        ax.set_ylabel(f"{f}, ms")
    path = directory / "latency-quantiles.png"
    _save(figure, axes, history, path, [Line2D([], [], color=c, label=name) for _, name, c in names])
    return Plot("Latency of what was ok", f"Buckets of {bucket:.3g} s.", path)


def _rate(directory: Path, history: History) -> Plot:
    """Completions per second, by function and outcome; what never completed is not there."""
    bucket = max(1.0, history.duration / _SECOND / 240)
    last = int(history.duration / _SECOND / bucket)
    counts: Counter[tuple[str, str, int]] = Counter()
    for operation in history.operations:
        if operation.completion is not None:
            at = int(operation.completion.time / _SECOND / bucket)
            counts[operation.invocation.f, operation.type, at] += 1
    figure, axes = _figure(1, 3.2)
    handles: list[Any] = []
    x = [(b + 0.5) * bucket for b in range(last + 1)]
    for number, f in enumerate(sorted({f for f, _, _ in counts})):
        for type, colour in COLOURS.items():
            y = [counts[f, type, b] / bucket for b in range(last + 1)]
            if any(y):
                style = _MARKS[number % len(_MARKS)]
                axes[0].plot(x, y, color=colour, ls=style, lw=1.2, zorder=3)
                handles.append(Line2D([], [], color=colour, ls=style, label=f"{f} {type}"))
    axes[0].set_ylabel("operations per second")
    axes[0].set_ylim(bottom=0)
    path = directory / "rate.png"
    _save(figure, axes, history, path, handles)
    return Plot("Throughput", f"Buckets of {bucket:.3g} s.", path)


def _processes(
    directory: Path, history: History, shown: list[Operation], offending: AbstractSet[int], note: str
) -> Plot:
    """Each process a row, each operation a line from its invocation to its completion."""
    ids = {o.invocation.process for o in history.operations if isinstance(o.invocation.process, int)}
    rows: dict[Process, int] = {process: at for at, process in enumerate(sorted(ids))}
    figure, axes = _figure(1, min(1.5 + 0.16 * len(rows), 12))
    ax = axes[0]
    for type, colour in COLOURS.items():
        ops = [o for o in shown if o.type == type]
        ends = [o.completion.time if o.completion else history.duration for o in ops]
        x = [o.invocation.time / _SECOND for o in ops]
        y = [rows[o.invocation.process] for o in ops]
        ax.hlines(y, x, [end / _SECOND for end in ends], colors=colour, lw=2.5, zorder=2)
        ax.scatter(x, y, s=4, c=colour, linewidths=0, zorder=3)
    bad = [o for o in shown if _offends(o, offending)]
    x = [(o.completion or o.invocation).time / _SECOND for o in bad]
    ax.scatter(x, [rows[o.invocation.process] for o in bad], s=50, c=OFFENCE, marker="x", zorder=4)
    ax.set_yticks(range(0, len(rows), max(1, len(rows) // 20)))
    ax.set_yticklabels([str(p) for p in list(rows)[:: max(1, len(rows) // 20)]])
    ax.set_ylabel("process")
    path = directory / "processes.png"
    _save(figure, axes, history, path, _outcome_handles())
    return Plot("What each process did", note, path)


def _availability(directory: Path, history: History, result: Result) -> Plot:
    groups = sorted(result.data["series"])
    figure, axes = _figure(max(1, len(groups)), 1.6)
    for ax, group in zip(axes, groups, strict=False):
        seconds = [(s + 0.5, ok, all_) for s, ok, all_ in result.data["series"][group]]
        ax.bar(
            [s for s, _, _ in seconds],
            [all_ for _, _, all_ in seconds],
            color=COLOURS["fail"],
            width=0.9,
            zorder=2,
        )
        ax.bar(
            [s for s, _, _ in seconds], [ok for _, ok, _ in seconds], color=COLOURS["ok"], width=0.9, zorder=3
        )
        ax.set_ylabel(f"{group}\nper second")
    path = directory / f"{re.sub(r'[^A-Za-z0-9]+', '-', result.name)}.png"
    handles: list[Any] = [
        Patch(color=COLOURS["ok"], label="ok"),
        Patch(color=COLOURS["fail"], label="not ok"),
    ]
    _save(figure, axes, history, path, handles)
    return Plot(f"{result.name.capitalize()} while faults lasted", "Only what counts.", path)
