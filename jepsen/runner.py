"""One run from its options to its verdicts, which are printed and reported."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import shutil
import signal
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import click

from jepsen.checkers import Result, valid
from jepsen.cluster import ClusterFailed
from jepsen.judge import judge
from jepsen.run import Options, Outcome, run, save_outcome
from jepsen.schedule import BadChoice
from jepsen.system import CommandFailed

OUT = Path("build/jepsen")
"""Where runs are written, if nothing else is said."""
_AVAILABLE = 0.99


def run_apart(options: Options) -> tuple[int, Mapping[str, Result]]:
    """As `run_here`, in a process of its own.

    This process may be in a network namespace of one run only: gRPC's threads stay where they were started.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(options, sender))
    process.start()
    sender.close()
    try:
        told: tuple[int, Mapping[str, Result]] = receiver.recv()
    except EOFError:
        told = 2, {}  # it has said why
    except KeyboardInterrupt:
        process.terminate()
        raise
    finally:
        process.join()
        receiver.close()
    return told


def run_here(options: Options) -> tuple[int, Mapping[str, Result]]:
    """Run once; returns the exit code, and what each checker says."""
    # asked to stop, it still takes away all that it has made
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = replace(options, directory=_directory(options))
    began = time.monotonic()
    click.echo(
        f"== {','.join(options.workloads)} under {options.nemesis}, {options.quorum}, "
        f"driver {options.driver}, "
        f"{f'planted {options.plant}, ' if options.plant else ''}"
        f"{options.nodes} nodes, {options.seconds:g} s, seed {options.seed}: {options.directory}"
    )
    try:
        outcome = asyncio.run(run(options))
    except (ClusterFailed, CommandFailed, BadChoice) as error:
        click.echo(f"the run came to nothing: {error}")
        return 2, {}
    save_outcome(options, outcome)
    results = judge(
        outcome.history,
        options.workloads,
        options.strict,
        {fault.nemesis for fault in outcome.schedule},
        outcome.replicas or None,
        _due(options),
    )
    from jepsen.report import write_report  # what draws it takes a second to load

    report = write_report(
        options.directory / "report", outcome.history, results, _planned(outcome), _settings(options)
    )
    show(results)
    _print_exercised(options, outcome)
    judged = valid(results)
    good = judged is True and not outcome.problem
    if outcome.problem:
        click.echo(f"INVALID: {outcome.problem}")
    verdict = "all held" if good else "NOT ALL HELD"
    click.echo(f"{verdict}, in {time.monotonic() - began:.0f} s: {report}\n")
    if good:
        return 0, results
    return 1 if judged is False or outcome.problem else 2, results


def show(results: Mapping[str, Result]) -> None:
    """Print the verdicts."""
    for name, result in results.items():
        # what was counted is summed up below, and is in the report
        plain = name.split()[-1] in ("counts", "latency") or not result.counts
        if result.valid is not True or not plain:
            click.echo(result.line())


def _tell(options: Options, teller: Connection) -> None:
    with suppress(KeyboardInterrupt):  # the other process says so
        teller.send(run_here(options))


def _print_exercised(options: Options, outcome: Outcome) -> None:
    operations = outcome.history.operations
    ends = {kind: sum(1 for each in operations if each.type == kind) for kind in ("ok", "fail", "info")}
    rate = ends["ok"] / max(options.seconds, 1e-9)
    click.echo(f"operations: {len(operations):,}, {json.dumps(ends)}, {rate:,.0f} ok a second")
    click.echo(f"faults: {sum(outcome.faults.values())}: {_counted(outcome.faults.items())}")
    for name, reason in outcome.skipped.items():
        click.echo(f"skipped: {name}: {reason}")
    click.echo(f"nodes: {_counted(outcome.coverage.items())}")
    if outcome.converged_seconds is not None:
        click.echo(f"all replicas proven equal {outcome.converged_seconds:.1f} s after the healing")


def _due(options: Options) -> dict[str, float]:
    """What share of operations must succeed where one node is isolated and nothing else is wrong."""
    if options.nemesis != "isolate-one":
        return {}
    return {"majority": _AVAILABLE} | ({"minority": _AVAILABLE} if options.quorum == "sloppy" else {})


def _planned(outcome: Outcome) -> list[dict[str, Any]]:
    """The schedule as the report wants it."""
    begins = [{"at": f.begin, "f": f"start-{f.nemesis}", "value": f.value} for f in outcome.schedule]
    ends = [{"at": f.end, "f": f"stop-{f.nemesis}", "value": f.value} for f in outcome.schedule]
    return sorted(begins + ends, key=lambda each: each["at"])


def _settings(options: Options) -> dict[str, Any]:
    """What a run was started with, for the heading of its report."""
    return {"workload": ",".join(options.workloads)} | {
        name: value for name, value in asdict(options).items() if name not in ("workloads", "directory")
    }


def _counted(items: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(items) if count)


def _directory(options: Options) -> Path:
    """A new directory for a run."""
    directory = options.directory
    if directory == Path():
        directory = OUT / f"{time.strftime('%Y%m%d-%H%M%S')}-{options.driver}-{options.seed}"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory
