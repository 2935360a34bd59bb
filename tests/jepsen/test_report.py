"""The report of a run."""

from __future__ import annotations

import random
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec

from jepsen.checkers import check
from jepsen.checkers.errors import Errors
from jepsen.checkers.linearizability import Linearizability
from jepsen.checkers.models import Register
from jepsen.history import History, Op
from jepsen.report import write_report
from jepsen.report.timeline import AROUND, MOST_WINDOWS, windows
from tests.jepsen import mutations as m
from tests.jepsen.simulated import Simulated

SETTINGS = {"workload": "register <strict>", "nemesis": "partition", "seed": 42}


class Page(HTMLParser):
    """The tags that are open at the end, the sources of images, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.offending = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of = dict(attrs)
        if tag not in ("meta", "img", "rect", "line", "br"):
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        self.offending += "offends" in (of.get("class") or "").split()

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("rect", "line"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _with_nemesis(history: History) -> History:
    ops: list[Op] = []
    for op in history:
        if op.index in (20, 60):
            f = "start-partition" if op.index == 20 else "stop-partition"
            ops += [Op(len(ops), op.time, "nemesis", "info", f, [["n1"], ["n2"]])]
            ops += [Op(len(ops), op.time, "nemesis", "info", f)]
        ops.append(msgspec.structs.replace(op, index=len(ops)))
    return History(ops)


def test_the_report_needs_nothing_else_and_marks_what_offends(tmp_path: Path) -> None:
    bad = m.stale_read(Simulated(4, operations=200, keys=2).register(), random.Random(1))
    assert bad is not None
    bad = _with_nemesis(bad)
    results = check(bad, [Linearizability(Register()), Errors()])
    schedule = [{"at": 1.0, "f": "start-partition", "value": [["n1"], ["n2"]]}]
    path = write_report(tmp_path / "run", bad, results, schedule, SETTINGS)
    page = Page(path.read_text())
    assert page.open == []
    assert page.sources
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert page.offending == len(results["linearizability"].offences)
    for text in (
        "invalid",
        "register <strict>",
        "42",
        results["linearizability"].offences[0].reason,
        "start-partition",
    ):
        assert text in page.text
    pngs = {file.name for file in path.parent.glob("*.png")}
    assert pngs == {"latency.png", "latency-quantiles.png", "rate.png", "processes.png"}


def test_a_run_without_operations_has_a_report(tmp_path: Path) -> None:
    path = write_report(tmp_path, History([]), {}, [], {"seed": 1})
    assert "There was no operation." in Page(path.read_text()).text


def test_of_a_long_history_only_what_is_around_the_offences_is_drawn() -> None:
    history = Simulated(5, operations=3000, processes=5).register()
    ends = [o.completion.index for o in history.operations if o.completion][100::80]
    timeline = windows(history, dict.fromkeys(ends, "bad"))
    assert len(timeline.windows) == MOST_WINDOWS
    assert all(len(window.bars) <= 2 * AROUND + 1 for window in timeline.windows)
    assert all(any(bar.offends for bar in window.bars) for window in timeline.windows)
    shown = re.search(r"([\d,]+) of ([\d,]+) offending ones are shown", timeline.note)
    assert shown is not None
    assert int(shown[1]) == MOST_WINDOWS
    assert int(shown[2]) == len(ends)
    first = windows(history, {})
    assert len(first.windows[0].bars) == 2 * AROUND
    assert "first 40 of 3,000" in first.note
