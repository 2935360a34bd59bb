"""No argument of any command ends in a traceback, or in an exit code that is not documented."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kvstore.kvctl import failures
from kvstore.kvctl.main import kvctl as command_line
from tests.patience import PATIENCE
from tests.unit.client_node import FakeCluster
from tests.unit.kvctl_calls import Done, Kvctl

ODD = (
    "",
    " ",
    "-",
    "--",
    "-1",
    "0",
    "1",
    "4294967296",
    "1" * 5000,
    "1e400",
    "nan",
    "inf",
    "x",
    "x=y",
    "a:b",
    "a:n=9",
    "a:w=1,r=",
    "127.0.0.1:1",
    "[::1]:7001",
    "..",
    "/",
    "/dev/null/x",
    "/proc/self/mem",
    "missing/x",
    "x" * 300,
    "k" * 5000,
    "user:1\n",
    "\x1b[31m",
    "\u202e",
    "\U0001f600",
    "\udcff\udcfe",
    "{}",
    "%s%n",
    "[red]",
)
"""Values that nobody expects of any option."""

USUAL = {
    "bucket": "carts",
    "key": "user:1",
    "value": "v",
    "file": "in",
    "directory": "store",
    "node": "n1",
    "names": "n1",
    "nodes": "n1",
}
"""What the other arguments are, by their name."""

LASTING = {
    ("cluster", "run"): "--nodes=0",
    ("cluster", "start"): "--nodes=0",
    ("watch", "status"): "--count=x",
}
"""Commands that would start processes or never end, and what keeps them from it."""

DOCUMENTED = {int(code) for codes in failures.EXIT_CODES for code in re.findall(r"\d+", codes)}


def each_command(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from each_command(command, (*path, name))
        else:
            yield (*path, name), command


def arguments_of(command: click.Command) -> list[click.Argument]:
    return [each for each in command.params if isinstance(each, click.Argument)]


def lines_of(words: tuple[str, ...], command: click.Command) -> Iterator[list[str]]:
    """Each argument and option of a command with each odd value, the others as usual."""
    usual = [USUAL[each.name or ""] for each in arguments_of(command) if each.required]
    kept = [LASTING[words]] if words in LASTING else []
    for odd in ODD:
        for place in range(len(usual) + 1):
            yield [*words, *kept, "--", *usual[:place], odd, *usual[place + 1 :]]
    for option in command.params:
        if not isinstance(option, click.Option) or option.name == "output":
            continue
        name = option.opts[-1]
        if option.is_flag:
            yield [*words, *usual, name, *kept]
        for odd in ODD if not option.is_flag else ():
            yield [*words, *usual, name, *([odd] * option.nargs), *kept]


COMMANDS = dict(each_command(command_line))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_argument_of_a_command_is_a_traceback(
    fake: Kvctl, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").write_text('{"id": "a"}\n')
    for line in lines_of(words, COMMANDS[words]):
        with open(os.devnull, encoding="utf-8") as nothing:
            monkeypatch.setattr("sys.stdin", nothing)
            sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # as a process has it
            done = fake(*line)
        shown = [word[:40] for word in line]
        assert done.code in DOCUMENTED, (shown, done)
        assert "Traceback" not in done.err, (shown, done)
        assert done.code == 0 or done.err, f"{shown} says nothing"
        assert done.code != failures.NOT_FOUND or words == ("get",), (shown, done)


@pytest.mark.parametrize("option", ["--endpoints", "--timeout", "-o", "--nonsense"])
def test_no_option_of_all_commands_is_a_traceback(
    kvctl: Kvctl, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for odd in (each for each in ODD if option != "--timeout" or each != "4294967296"):
        sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        done = kvctl("--endpoints", "127.0.0.1:1", "--timeout", "0.01", option, odd, "get", "carts", "user:1")
        assert done.code in DOCUMENTED - {failures.OK, failures.NOT_FOUND}, (odd[:40], done)


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONOPTIMIZE": "2"},
        {"PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1"},
        {"TERM": "dumb", "COLUMNS": "0"},
        {"COLUMNS": "x", "LINES": "-1"},
        {"HOME": "/missing", "TMPDIR": "/missing"},
        {"PATH": "", "HOME": "", "TERM": ""},
    ],
    ids=str,
)
def test_what_is_around_kvctl_changes_nothing_of_what_it_prints(
    fake: Kvctl, fake_cluster: FakeCluster, environment: dict[str, str]
) -> None:
    fake("put", "carts", "grün", "世")
    call = [sys.executable, "-m", "kvstore.kvctl.main", "--endpoints", fake_cluster.endpoints]
    for words, shown in ((("get", "carts", "grün"), "世\n"), (("scan", "carts"), "grün\n"), (("-h",), "")):
        done = subprocess.run(
            [*call, *words],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=5 * PATIENCE,
            check=True,
        )
        assert done.stderr == b""
        assert done.stdout.decode() == shown if shown else b"Commands:" in done.stdout


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"addresses":{},"buckets":[]}',
        '{"addresses":{"n1":5},"buckets":[]}',
        '{"addresses":{"n1":"zzz"},"buckets":[]}',
        '{"addresses":{"n1":"127.0.0.1:1"},"buckets":["a:n=x"]}',
        '{"addresses":{"n1":"127.0.0.1:1"},"buckets":"a"}',
        "\udcff",
    ],
)
def test_a_local_cluster_that_cannot_be_read_is_one_line_and_no_other_cluster(
    kvctl: Kvctl, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a put would go to whatever else serves on the usual port."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KVCTL_ENDPOINTS", raising=False)
    (tmp_path / ".kvstore/local").mkdir(parents=True)
    (tmp_path / ".kvstore/local/cluster.json").write_text(text, errors="surrogateescape")
    said = "kvctl: .kvstore/local/cluster.json cannot be read as a local cluster\n"
    commands = (("put", "carts", "k", "v"), *(("cluster", each) for each in ("status", "start", "stop")))
    for words in (*commands, ("cluster", "kill", "n1"), ("cluster", "restart", "n1")):
        assert kvctl(*words) == Done(failures.USAGE, "", said), words
