"""The report of a run: one HTML file that needs nothing else, and its plots as PNG beside it.

    page = write_report(directory, history, results, schedule, settings)

`results` are those of jepsen.checkers.check. `schedule` are the faults as they were planned, a mapping each
with the same names (`{"at": 12.5, "f": "start-partition", "value": [["n1"], ["n2", "n3"]]}`). `settings` are
what the run was started with; `seed`, `workload` and `nemesis` among them are in the heading.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from jepsen.checkers import Result, valid
from jepsen.checkers.latency import Latency
from jepsen.checkers.values import shown
from jepsen.history import History
from jepsen.report.plots import draw_plots
from jepsen.report.timeline import windows

__all__ = ["write_report"]

MOST_OFFENCES = 20
"""Offences of one checker that are listed."""

_VERDICTS = {True: ("valid", "good"), False: ("invalid", "bad"), "unknown": ("unknown", "unsure")}


def write_report(
    directory: Path,
    history: History,
    results: Mapping[str, Result],
    schedule: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> Path:
    """Write `index.html` and the plots into `directory`, which is made; gives the path of the page.

    Of long histories only a part is drawn, and the page says which. Raises OSError.
    """
    directory.mkdir(parents=True, exist_ok=True)
    offences = {o.index: o.reason for r in results.values() for o in r.offences if o.index is not None}
    plots = draw_plots(directory, history, results, frozenset(offences))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["shown"] = shown
    environment.filters["number"] = lambda value: f"{value:,}"
    page = directory / "index.html"
    page.write_text(
        environment.get_template("page.html.jinja").render(
            title=" / ".join(str(settings[name]) for name in ("workload", "nemesis") if name in settings)
            or "run",
            verdict=_VERDICTS[valid(results)],
            verdicts=_VERDICTS,
            results=list(results.values()),
            most=MOST_OFFENCES,
            outcomes=_outcomes(history),
            history=history,
            faults=_faults(history),
            plots=[(plot.title, plot.note, _embedded(plot.path)) for plot in plots],
            timeline=windows(history, offences),
            schedule=schedule,
            settings=settings,
        ),
        encoding="utf-8",
    )
    return page


def _embedded(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def _outcomes(history: History) -> list[dict[str, Any]]:
    """For each function its outcomes and the latency of those that were ok."""
    counts = Counter((o.invocation.f, o.type) for o in history.operations)
    latency = Latency().check(history).data
    return [
        {
            "f": f,
            **{type: counts[f, type] for type in ("ok", "fail", "info")},
            "ms": latency.get(f"{f} ok", {}),
        }
        for f in sorted({f for f, _ in counts})
    ]


def _faults(history: History) -> list[dict[str, Any]]:
    return [
        {
            "time": order.time / 1e9,
            "f": order.f,
            "value": shown(order.value),
            "effect": "none heard of" if effect is None else effect.error or shown(effect.value),
        }
        for order, effect in history.faults
    ]
