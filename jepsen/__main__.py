"""`python -m jepsen`: runs partition tests, and judges histories."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click

from jepsen.checkers import Result, valid
from jepsen.formats import read
from jepsen.history import HistoryError
from jepsen.hunts import HUNTS
from jepsen.judge import judge, judge_foreign, workloads_in
from jepsen.nemeses import GROUPS, NEMESES
from jepsen.planted import DEFECTS
from jepsen.run import Options, drivers
from jepsen.runner import OUT, run_apart, run_here, show
from jepsen.workloads import WORKLOADS

_MIXED = "network+hosts"
_MORE_TIME = (1, 2, 4)
"""How much longer a run of the suite may become."""


@click.group(context_settings={"max_content_width": 110})
def main() -> None:
    """Partition tests in the manner of Jepsen: real nodes, real faults, and checkers of what clients saw."""


@main.command("run")
@click.option(
    "--workload", default="all", show_default=True, help="One or more of those that `list` shows, by commas."
)
@click.option(
    "--nemesis", default=_MIXED, show_default=True, help="By commas: in turn. With +: side by side."
)
@click.option(
    "--driver", default="auto", show_default=True, help="namespaces, proxy, or whichever is possible here."
)
@click.option("--time", "seconds", default=60.0, show_default=True, help="Seconds of operations and faults.")
@click.option("--nodes", default=5, show_default=True)
@click.option("--clients", default=2, show_default=True, help="Hosts of clients, a process each.")
@click.option("--threads", default=20, show_default=True, help="Operations under way at a time.")
@click.option(
    "--rate", default=300.0, show_default=True, help="Operations a second that all clients aim for."
)
@click.option(
    "--keys", default=0, help="Keys of each workload in use at a time; by default it follows from the rate."
)
@click.option("--fault-time", default=10.0, show_default=True, help="Seconds that a fault lasts, about.")
@click.option("--timeout", default=3.0, show_default=True, help="Seconds of a client's call.")
@click.option("--quorum", type=click.Choice(["strict", "sloppy"]), default="strict", show_default=True)
@click.option("--r", default=2, show_default=True, help="Replicas that a read waits for, of 3.")
@click.option("--w", default=2, show_default=True, help="Replicas that a write waits for, of 3.")
@click.option("--seed", type=int, help="Of schedule and operations; by default a new one.")
@click.option(
    "--node-flag", "node_flags", multiple=True, help="A further flag of every kvnode: --hint-count=0."
)
@click.option("--plant", default="", help="A defect of jepsen.planted in every node.")
@click.option("--out", type=click.Path(path_type=Path), help=f"Where to write; by default a place in {OUT}.")
def run_command(workload: str, nemesis: str, driver: str, seconds: float, fault_time: float, seed: int | None,
                out: Path | None, **others: object) -> None:  # fmt: skip
    """Run once: exit code 0 if all held, 1 if something did not, 2 if too little was done to tell."""
    plant = str(others["plant"])
    if plant and plant not in DEFECTS:
        raise click.UsageError(f"there is no defect {plant!r} (known: {', '.join(DEFECTS)})")
    options = Options(
        workloads=_workloads(workload),
        nemesis=nemesis,
        driver=_driver(driver),
        seconds=seconds,
        fault_seconds=fault_time,
        seed=random.SystemRandom().randrange(1 << 31) if seed is None else seed,
        directory=out or Path(),
        **others,  # type: ignore[arg-type]  # click has checked them
    )
    sys.exit(run_here(options)[0])


@main.command()
@click.option("--seed", default=1, show_default=True)
@click.option("--time", "seconds", default=52.0, show_default=True, help="Seconds of each run.")
def suite(seed: int, seconds: float) -> None:
    """Run every workload on every driver that is possible here: `make jepsen`.

    A run that is unknown, as a busy machine did not get round to every fault, is done again with more time.
    """
    worst = 0
    for place, (driver, reason) in enumerate(drivers().items()):
        if reason:
            click.echo(f"skipped: driver {driver}: {reason}")
            continue
        options = Options(
            workloads=tuple(WORKLOADS),
            nemesis="network+hosts",
            driver=driver,
            seconds=seconds,
            fault_seconds=1.7,
            timeout=2.0,
            seed=seed + place,
            directory=Path(),
        )
        worst = max(worst, _with_enough_time(options))
    sys.exit(worst)


def _with_enough_time(options: Options) -> int:
    for factor in _MORE_TIME:
        code, results = run_apart(replace(options, seconds=options.seconds * factor))
        if not results or valid(results) != "unknown":
            break
    return code


@main.command()
@click.argument("defects", nargs=-1)
def hunt(defects: tuple[str, ...]) -> None:
    """Plant defects in the nodes (all, if none are named), and see that each is found. Takes root."""
    if reason := drivers()["namespaces"]:
        raise click.ClickException(f"namespaces cannot be used here: {reason}")
    missed = []
    for defect in defects or HUNTS:
        if defect not in HUNTS:
            raise click.UsageError(f"there is no defect {defect!r} (known: {', '.join(HUNTS)})")
        found_by = _found_by(run_apart(replace(HUNTS[defect], plant=defect))[1])
        click.echo(f"{defect}: found by {', '.join(found_by) or 'nobody'}\n")
        if not found_by:
            missed.append(defect)
    click.echo(f"not found: {', '.join(missed)}" if missed else "all were found")
    sys.exit(bool(missed))


@main.command("list")
def list_command() -> None:
    """List drivers, workloads and nemeses."""
    click.echo("drivers")
    for name, reason in drivers().items():
        click.echo(f"  {name:24}{f'not here: {reason}' if reason else ''}")
    click.echo("workloads")
    for name, workload in WORKLOADS.items():
        click.echo(f"  {name:24}{_first_line(workload)}")
    click.echo("nemeses")
    for name, nemesis in NEMESES.items():
        click.echo(f"  {name:24}{_first_line(nemesis)}")
    click.echo("groups of nemeses")
    for name, names in GROUPS.items():
        click.echo(f"  {name:24}{', '.join(names)}")


@main.command("check")
@click.argument("history", type=click.Path(path_type=Path, exists=True))
@click.option("--quorum", type=click.Choice(["strict", "sloppy"]), default="strict", show_default=True)
@click.option("--report", type=click.Path(path_type=Path), help="A directory for the report of it.")
def check_command(history: Path, quorum: str, report: Path | None) -> None:
    """Judge a history that an earlier run has written, or one in the form of Knossos, Porcupine or Elle.

    Histories of other forms must be linearizable, transactions strictly serializable, whatever the quorum.
    The exit code is 0 only if all is valid, and nothing is unknown.
    """
    try:
        found, form = read(history)
    except (HistoryError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if form == "own":
        results = judge(found, workloads_in(found), quorum == "strict", (), None)
    else:
        results = judge_foreign(found, form)
    if report is not None:
        from jepsen.report import write_report  # what draws it takes a second to load

        write_report(report, found, results, (), {"history": str(history)})
    show(results)
    sys.exit(0 if valid(results) is True else 1)


def _found_by(results: Mapping[str, Result]) -> list[str]:
    """The checkers that say no; that too little was done finds nothing."""
    return [name for name, each in results.items() if each.valid is False and name.split()[-1] != "counts"]


def _driver(name: str) -> str:
    possible = drivers()
    if name == "auto":
        return next(driver for driver, reason in possible.items() if not reason)
    if name not in possible:
        raise click.UsageError(f"there is no driver {name!r} (known: {', '.join(possible)})")
    if possible[name]:
        raise click.UsageError(f"driver {name} cannot be used here: {possible[name]}")
    return name


def _workloads(text: str) -> tuple[str, ...]:
    names = tuple(WORKLOADS) if text == "all" else tuple(text.split(","))
    for name in names:
        if name not in WORKLOADS:
            raise click.UsageError(f"there is no workload {name!r} (known: all, {', '.join(WORKLOADS)})")
    return names


def _first_line(documented: object) -> str:
    return (documented.__doc__ or "").strip().splitlines()[0]


if __name__ == "__main__":
    main()
