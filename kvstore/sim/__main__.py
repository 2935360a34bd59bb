"""`python -m kvstore.sim`: run seeds, print what they exercised, say how to replay one that fails."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor

import click

from kvstore.sim.nemesis import EFFECTS, kinds
from kvstore.sim.run import SAFETY_SECONDS, Plan, Report, transcribe, try_plan
from kvstore.sim.shape import nodes_of

_ENOUGH = 50
"""Of so many seeds every kind of fault must have been seen."""


@click.command()
@click.option("--seed", type=int, help="Run this one seed, exactly as it ran before.")
@click.option("--count", default=20, show_default=True, help="How many seeds to run.")
@click.option("--start", default=1, show_default=True, help="The first of them.")
@click.option("--nodes", type=click.IntRange(1, 15), help="By default 1, 2, 3, 5 or 9, as the seed says.")
@click.option(
    "--time", "seconds", default=SAFETY_SECONDS, show_default=True, help="Virtual seconds of faults."
)
@click.option("--trace", is_flag=True, help="With --seed: print what happens, one line per event.")
@click.option("--processes", default=2, show_default=True, help="How many seeds to run at once.")
def main(
    seed: int | None,
    count: int,
    start: int,
    nodes: int | None,
    seconds: float,
    trace: bool,
    processes: int,
) -> None:
    """Run whole clusters under virtual time, with faults, and check that they keep their promises."""
    began = time.monotonic()
    seeds = [seed] if seed is not None else range(start, start + count)
    plans = [Plan(each, nodes or nodes_of(each), seconds) for each in seeds]
    if trace and seed is not None:
        transcribe(plans[0], click.echo)
        return
    reports: list[Report] = []
    failures = 0
    for plan, result in zip(plans, _results(plans, processes), strict=True):
        if isinstance(result, Report):
            reports.append(result)
        else:
            failures += 1
            click.echo(f"seed {plan.seed} failed: {result}\n  replay: {plan.command}", err=True)
    if reports:
        _print_totals(reports, time.monotonic() - began)
    unseen = _unseen(reports)
    if unseen:
        click.echo(f"nothing exercised: {', '.join(unseen)}", err=True)
    sys.exit(1 if failures or unseen or not reports else 0)


def _results(plans: list[Plan], processes: int) -> Iterator[Report | str]:
    if len(plans) == 1 or processes == 1:
        yield from map(try_plan, plans)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        yield from pool.map(try_plan, plans)


def _unseen(reports: list[Report]) -> list[str]:
    """Kinds of faults, and effects of them, that many runs should have seen and did not."""
    if len(reports) < _ENOUGH:
        return []
    seen = _total(report.faults for report in reports)
    seen += _total(report.internals for report in reports)
    return [each for each in (*kinds(reports[0].plan.faults), *EFFECTS) if not seen[each]]


def _total(counters: Iterable[Counter[str]]) -> Counter[str]:
    return sum(counters, Counter())


def _print_totals(reports: list[Report], real: float) -> None:
    if len(reports) == 1:
        plan = reports[0].plan
        click.echo(f"seed {plan.seed}, {plan.nodes} nodes, {plan.seconds:g} s: trace {reports[0].trace}")
    virtual = sum(report.seconds for report in reports)
    inside = _total(report.internals for report in reports)
    click.echo(
        f"{len(reports)} seeds held: {virtual / 3600:.2f} virtual cluster-hours in {real:.1f} s, "
        f"{virtual / real:,.0f} times real time; {sum(report.events for report in reports):,} events, "
        f"{inside['crashes']:,} crashes, {sum(report.checked for report in reports):,} facts checked"
    )
    operations = _total(report.operations for report in reports)
    faults = _total(report.faults for report in reports)
    for title, counts in (("operations", operations), ("faults", faults), ("inside", inside)):
        click.echo(f"{title}: {counts.total():,}" if title != "inside" else f"{title}:")
        for name, number in sorted(counts.items()):
            click.echo(f"  {number:>9,}  {name}")


if __name__ == "__main__":
    main()
