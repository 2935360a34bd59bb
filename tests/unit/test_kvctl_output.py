"""What kvctl shows: to terminals of any width, to programs, and of keys and values that are no text."""

from __future__ import annotations

import base64
import fcntl
import io
import json
import os
import pty
import re
import socket
import struct
import subprocess
import sys
import termios
import warnings
from pathlib import Path

import click
import pytest
from rich.console import Console

from kvstore.kvctl import failures, main, tables
from kvstore.kvctl.interrupts import Interrupts
from kvstore.kvctl.main import kvctl as command_line
from kvstore.kvctl.nodes import COLUMNS, KEPT_COLUMNS
from kvstore.kvctl.output import harmless
from kvstore.kvctl.progress import progress_bar
from kvstore.kvctl.tables import filled, fitting, show_lists, table
from kvstore.protocol.client import Delete, Get
from tests.patience import PATIENCE
from tests.unit.client_node import FakeCluster
from tests.unit.kvctl_calls import Done, Kvctl

ESCAPE = b"a\x1b[31mred\x1b[0m \xc2\x9b31m \xe2\x80\xae\tz"
SHOWN = "a\\u001b[31mred\\u001b[0m \\u009b31m \\u202e\tz"


# terminals and pipes


def test_what_would_steer_a_terminal_is_an_escape_of_json() -> None:
    text = ESCAPE.decode()
    assert harmless(text) == SHOWN
    assert json.loads(f'"{harmless(text)}"'.replace("\t", "\\t")) == text
    assert harmless("Grüße, 世界\n\t") == "Grüße, 世界\n\t"


@pytest.mark.parametrize("form", [(), ("-o", "json")])
def test_a_value_is_the_same_in_a_pipe_and_harmless_on_a_terminal(
    fake: Kvctl, fake_cluster: FakeCluster, tmp_path: Path, form: tuple[str, ...]
) -> None:
    (tmp_path / "value").write_bytes(ESCAPE)
    fake("put", "carts", "k", "--file", tmp_path / "value")
    command = [sys.executable, "-m", "kvstore.kvctl.main", "--endpoints", fake_cluster.endpoints]
    command += ["get", "carts", "k", *form]
    piped = subprocess.run(command, capture_output=True, timeout=5 * PATIENCE, check=True).stdout
    terminal, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=theirs) as child:
        os.close(theirs)
        shown = b""
        while chunk := _read(terminal):
            shown += chunk
        assert child.wait(5 * PATIENCE) == 0
    os.close(terminal)
    assert b"\x1b" not in shown
    assert b"\xc2\x9b" not in shown
    if form:
        assert json.loads(piped)["siblings"][0]["value"] == ESCAPE.decode()
        assert json.loads(shown) == json.loads(piped)
    else:
        assert piped == ESCAPE + b"\n"
        assert SHOWN.split("\t", maxsplit=1)[0] in shown.decode()


def on_terminal(columns: int, *arguments: object) -> list[str]:
    """What kvctl shows on a terminal of this width, line by line, as it was last drawn."""
    terminal, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-m", "kvstore.kvctl.main", *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    with subprocess.Popen(
        command, stdout=theirs, stderr=theirs, env={**environment, "TERM": "xterm"}
    ) as child:
        os.close(theirs)
        shown = b""
        while chunk := _read(terminal):
            shown += chunk
        child.wait(5 * PATIENCE)
    os.close(terminal)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode().replace("\r\n", "\n"))
    return [line.split("\r")[-1] for line in text.splitlines()]


@pytest.mark.parametrize("ends", [True, False])
def test_a_bar_is_one_line_on_a_narrow_terminal(ends: bool) -> None:
    bar = progress_bar(ends)
    bar.add_task("importing", total=10**9, completed=999_999_999)
    bar.tasks[0].finished_speed = 787_123.4
    console = Console(width=40, record=True, file=io.StringIO())
    console.print(bar.get_renderable())
    (line,) = console.export_text().splitlines()
    assert "787.1 kB/s" in line


@pytest.mark.parametrize("columns", [80, 40])
def test_what_is_said_fits_on_the_terminal(fake_cluster: FakeCluster, tmp_path: Path, columns: int) -> None:
    """The bar becomes shorter, sentences are broken between words, and the summary has lines of its own."""
    given = [json.dumps({"id": f"key number {i}", "text": "x" * 200}) for i in range(300)]
    (tmp_path / "in").write_text("\n".join([*given, given[7].replace("x", "y"), ""]))
    connected = ("--endpoints", fake_cluster.endpoints)
    lines = on_terminal(columns, *connected, "import", tmp_path / "in", "--key", "id", "--bucket", "carts")
    lines += on_terminal(columns, *connected, "get", "carts", "a key that nobody has ever written")
    lines += on_terminal(columns, *connected, "export", "--bucket", "carts", tmp_path / "out")
    lines += on_terminal(columns, "import", tmp_path.name, "--key", "id", "--bucket", "carts")
    lines += on_terminal(columns, "get", "carts", "-key")
    assert max(map(len, lines)) <= columns, lines
    said = " ".join(lines)
    assert "imported 300, unchanged 0, retried 0, failed 0, duplicates 1" in said
    assert "kvctl: line 301: has the key 'key number 7' of line 8, and takes its place" in said
    assert "has no value in bucket 'carts'" in said
    assert f"Invalid value for 'FILE': '{tmp_path.name}': No such file or directory" in said
    assert "No such option '-k'. Words that begin with - and are no option come after --." in said
    assert [line for line in lines if line.startswith("imported 300")], "it stands beside the bar"


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # so Linux says that the other side has ended
        return b""


def rows(count: int = 5) -> list[dict[str, object]]:
    node = {"address": "127.0.0.1:7001", "state": "alive", "entries": 234_567, "mb": 12.5}
    more = {"hints": 1, "unproven": 2, "proof_s": 3, "damaged": 0}
    return [{"node": f"n{i}", **node, **more} for i in range(count)]


def on_width(width: int) -> int | None:
    """How many columns of the nodes' table are shown."""
    shown = fitting(rows(), COLUMNS, KEPT_COLUMNS, Console(width=width, file=io.StringIO()))
    assert shown is None or shown == filled(rows(), COLUMNS)[: len(shown)]
    return len(shown) if shown is not None else None


def test_a_table_has_the_columns_that_fit_and_is_a_list_where_too_few_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (on_width(80), on_width(60), on_width(40), on_width(30)) == (9, 6, 4, None)
    for width in (80, 60, 40):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(table(rows(), filled(rows(), COLUMNS)[: on_width(width)]))
        lines = console.export_text().splitlines()
        assert max(map(len, lines)) <= width
        assert sum(line.strip().startswith("n") for line in lines) == 6  # nothing goes on in the next line
    show_lists(rows(2), COLUMNS)
    out = capsys.readouterr().out
    assert [line.split() for line in out.split("\n\n")[0].splitlines()[:3]] == [
        ["node:", "n0"],
        ["state:", "alive"],
        ["address:", "127.0.0.1:7001"],
    ]
    monkeypatch.setattr(tables, "_PIPE_WIDTH", 60)
    tables.show(rows(), COLUMNS, KEPT_COLUMNS)
    assert capsys.readouterr().err == "not shown for want of room: entries, MB, proof s; -o json has all\n"
    monkeypatch.setattr(tables, "_PIPE_WIDTH", 30)
    tables.show(rows(1), COLUMNS, KEPT_COLUMNS)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 30


def test_cells_are_no_markup_and_steer_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show([{"a": "[red]x[/red]", "b": "\x1b[31m"}], ("a", "b"), 2)
    shown = capsys.readouterr().out
    assert "[red]x[/red]" in shown
    assert "\\u001b[31m" in shown


# JSON


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """All commands, by their words."""
    context = click.Context(group)
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        words = (*path, name)
        found += commands(command, words) if isinstance(command, click.Group) else [words]
    return found


def test_each_command_takes_the_form_of_its_output_behind_its_name(kvctl: Kvctl) -> None:
    assert isinstance(command_line, click.Group)
    found = commands(command_line)
    assert len(found) > 20
    for words in found:
        assert "-o, --output [table|json]" in kvctl(*words, "--help").out, words


@pytest.mark.parametrize("words", [(), ("cluster",), ("data",)])
def test_no_line_of_help_is_cut_off(kvctl: Kvctl, words: tuple[str, ...]) -> None:
    listed = kvctl(*words, "--help").out.partition("Commands:")[2].splitlines()
    assert not any(line.endswith("...") for line in listed)


def test_json_may_be_asked_for_before_and_after_the_command(fake: Kvctl) -> None:
    fake("put", "carts", "a", "v")
    before = json.loads(fake("-o", "json", "get", "carts", "a").out)
    assert json.loads(fake("get", "carts", "a", "-o", "json").out) == before
    assert fake("-o", "json", "get", "carts", "a", "-o", "table").out == "v\n"
    assert fake("get", "carts", "a").out == "v\n"


def test_the_version_is_told_without_loading_what_only_commands_need() -> None:
    script = "import sys; from kvstore.kvctl.main import main; sys.argv[1:] = ['--version']\ntry: main()\n"
    script += "finally: print([m for m in ('grpc', 'rich', 'msgspec', 'asyncio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=PATIENCE, check=True)
    version, loaded = done.stdout.decode().splitlines()
    assert version.startswith("kvctl, version ")
    assert loaded == "[]"


# keys


KEY = b"\xff\x00k"
ENCODED = base64.b64encode(KEY).decode()


def test_keys_that_are_no_text_are_given_in_base64_or_hexadecimal(fake: Kvctl) -> None:
    assert fake("put", "carts", ENCODED, "v", "--key-base64").out == "stored\n"
    assert fake("get", "carts", KEY.hex(), "--key-hex").out == "v\n"
    found = json.loads(fake("get", "carts", ENCODED, "--key-base64", "-o", "json").out)
    assert (found["key_base64"], "key" in found) == (ENCODED, False)
    place = json.loads(fake("ring", "--key", "carts", ENCODED, "--key-base64", "-o", "json").out)
    assert place["key_base64"] == ENCODED
    assert place == json.loads(fake("ring", "--key", "carts", KEY.hex(), "--key-hex", "-o", "json").out)
    assert fake("delete", "carts", KEY.hex(), "--key-hex").out == "deleted\n"
    gone = fake("get", "carts", ENCODED, "--key-base64")
    assert gone == Done(1, "", "kvctl: '\\\\xff\\x00k' has no value in bucket 'carts'\n")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("get", "b", "\udcff\udcfe"), "key: is not UTF-8: give it with --key-base64 or --key-hex"),
        (("put", "b", "\udcff", "v"), "key: is not UTF-8"),
        (("delete", "b", "\udcff"), "key: is not UTF-8"),
        (("ring", "--key", "b", "\udcff\udcfe"), "key: is not UTF-8"),
        (("ring", "--key", "b", "zz", "--key-hex"), "key: 'zz' is not hex"),
        (("get", "b", "%%", "--key-base64"), "key: '%%' is not base64"),
        (("get", "b", "\udcff", "--key-base64"), "is not base64"),
        (("get", "\udcff", "k"), "bucket"),
        (("scan", "NO"), "bucket"),
        (("scan", "b", "--prefix", "\udcff"), "prefix: is not UTF-8: give it with --key-base64 or --key-hex"),
        (("count", "b", "--prefix", "zz", "--key-hex"), "prefix: 'zz' is not hex"),
        (("ring", "--key", "\udcff", "k"), "bucket"),
        (("ring", "--key", "b", ""), "key: has 0 bytes"),
        (("--endpoints", "\udcff:1", "get", "b", "k"), "is not of the form host:port"),
    ],
)
def test_a_key_or_bucket_that_is_none_is_one_line(
    fake: Kvctl, fake_cluster: FakeCluster, arguments: tuple[str, ...], complaint: str
) -> None:
    done = fake(*arguments)
    assert (done.code, done.out, done.err.count("\n")) == (failures.USAGE, "", 1)
    assert complaint in done.err
    assert fake_cluster.store.calls == []


@pytest.mark.parametrize(("given", "asked"), [((), 0), (("-w", "1"), 1), (("-w", "1", "-r", "3"), 3)])
def test_a_write_reads_with_what_it_was_given(
    fake: Kvctl, fake_cluster: FakeCluster, given: tuple[str, ...], asked: int
) -> None:
    """What needs one live node must not fail for want of a second one to read from."""
    fake("put", "carts", "a", "v", "--quorum", "sloppy", *given)
    (read,) = (call for call in fake_cluster.store.calls if isinstance(call, Get))
    assert (read.r, read.quorum is not None) == (asked, True)
    fake("delete", "carts", "a", "--quorum", "sloppy", *given)
    (deletion,) = (call for call in fake_cluster.store.calls if isinstance(call, Delete))
    assert (deletion.r, deletion.quorum is not None) == (asked, True)


def test_a_key_is_read_as_it_was_given_whatever_the_locale_is(fake: Kvctl) -> None:
    """Where Python takes the command line for ASCII, what is not is handed on byte by byte."""
    fake("put", "carts", "\udcc3\udcbc", "v")
    assert fake("get", "carts", "ü").out == "v\n"


# what there is


def test_keys_are_listed_and_counted(fake: Kvctl) -> None:
    for i in range(5):
        fake("put", "carts", f"k{i}", "v")
    fake("put", "carts", ENCODED, "v", "--key-base64")
    shown = sorted(fake("scan", "carts").out.splitlines())
    assert shown == [f"base64:{ENCODED}", *(f"k{i}" for i in range(5))]
    found = [json.loads(line) for line in fake("scan", "carts", "-o", "json").out.splitlines()]
    assert {"key_base64": ENCODED} in found
    assert sorted(str(each["key"]) for each in found if "key" in each) == [f"k{i}" for i in range(5)]
    assert len(fake("scan", "carts", "--limit", 2).out.splitlines()) == 2
    assert fake("scan", "carts", "--limit", 0).out == ""
    assert fake("count", "carts").out == "6\n"
    assert json.loads(fake("count", "empty", "-o", "json").out) == {"bucket": "empty", "keys": 0}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (("--prefix", "user:"), ["user:1", "user:2"]),
        (("--prefix", "user:1"), ["user:1"]),
        (("--prefix", "é"), ["é1"]),
        (("--prefix", ""), [f"base64:{ENCODED}", "cart:1", "user:1", "user:2", "é1"]),
        (("--prefix", "nobody:"), []),
        (("--prefix", KEY[:2].hex(), "--key-hex"), [f"base64:{ENCODED}"]),
        (("--prefix", base64.b64encode(KEY[:1]).decode(), "--key-base64"), [f"base64:{ENCODED}"]),
    ],
)
def test_keys_are_listed_and_counted_by_their_prefix(
    fake: Kvctl, given: tuple[str, ...], found: list[str]
) -> None:
    for key in ("user:1", "user:2", "cart:1", "é1"):
        fake("put", "carts", key, "v")
    fake("put", "carts", ENCODED, "v", "--key-base64")
    assert sorted(fake("scan", "carts", *given).out.splitlines()) == found
    assert fake("count", "carts", *given).out == f"{len(found)}\n"
    assert len(fake("scan", "carts", *given, "--limit", 1).out.splitlines()) == min(1, len(found))


def test_buckets_with_settings_are_shown_and_what_holds_for_others(fake: Kvctl) -> None:
    found = json.loads(fake("buckets", "-o", "json").out)
    assert [(each["bucket"], each["n"], each["r"], each["w"]) for each in found] == [
        ("single", 3, 1, 1),
        (None, 3, 2, 2),
    ]
    assert "(any other)" in fake("buckets").out


# clusters


def test_a_cluster_on_a_taken_port_leaves_nothing_behind(kvctl: Kvctl, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = kvctl("cluster", "start", "--nodes", 1, "--port", port, "--dir", tmp_path / "new")
    assert (done.code, done.out) == (failures.USAGE, "")
    assert done.err == f"kvctl: port {port} is taken; choose another with --port\n"
    assert list(tmp_path.iterdir()) == []


# completion


@pytest.mark.parametrize(
    ("words", "complete"),
    [
        ("kvctl --endpoints {} get s", ["plain,single"]),
        ("kvctl --endpoints {} export --bucket ", ["plain,single"]),
        ("kvctl --endpoints {} count x", []),
        ("kvctl --endpoints 127.0.0.1:1 count s", []),
        ("kvctl --endpoints nonsense count s", []),
        ("kvctl co", ["plain,count", "plain,counters"]),
        ("kvctl frobnicate pu", ["plain,put"]),
        ("kvctl data frobnicate ve", ["plain,verify"]),
    ],
)
def test_shells_complete_commands_and_buckets(
    fake_cluster: FakeCluster, words: str, complete: list[str]
) -> None:
    line = words.format(fake_cluster.endpoints)
    environment = {**os.environ, "_KVCTL_COMPLETE": "bash_complete", "COMP_WORDS": line}
    environment["COMP_CWORD"] = str(len(line.split()) - (not line.endswith(" ")))
    done = subprocess.run(
        [sys.executable, "-m", "kvstore.kvctl.main"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert (done.stdout.split(), done.stderr) == (complete, "")


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("arguments", [(), ("get",), ("import",), ("data", "load"), ("cluster",)])
def test_help_fits_into_its_terminal(
    kvctl: Kvctl, arguments: tuple[str, ...], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for what is to be copied, and names of options, which are not broken."""
    monkeypatch.setenv("COLUMNS", str(columns))
    text = kvctl(*arguments, "--help").out
    examples = re.compile(r"\n *(Examples?|Completion)[^\n]*:\n(  .*\n)+")
    assert examples.search(text) or arguments == ("cluster",)
    words = [line for line in examples.sub("\n", text).splitlines() if " " in line.strip()]
    assert [line for line in words if len(line) > columns] == []


def test_an_interrupt_says_nothing_of_a_coroutine_that_had_not_begun(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def step() -> None:
        pass

    def command() -> int:
        coroutine = step()
        assert coroutine is not None
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "_command", command)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert main._run(Interrupts()) == failures.INTERRUPTED
    assert not said
    assert capsys.readouterr().err == "kvctl: interrupted\n"


def test_a_closed_output_is_told_before_anything_is_done() -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m kvstore.kvctl.main explain >&-"],
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        failures.FILES,
        "kvctl: the output cannot be written: it is closed\n",
    )
