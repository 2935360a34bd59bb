"""What kvctl does with files and standard streams: whole or as they were, and an exit code for each end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kvstore.client.synchronous import connect
from kvstore.errors import Corruption, Unavailable
from kvstore.kvctl import failures
from kvstore.protocol.client import ClientRequest, Failed, Reply
from tests.patience import PATIENCE
from tests.unit.client_node import FakeCluster
from tests.unit.kvctl_calls import Kvctl


def fill(cluster: FakeCluster, count: int = 30, size: int = 1) -> None:
    with connect(cluster.endpoints, timeout=PATIENCE) as client:
        client.bucket("carts").put_many({f"k{i:04}": b"v" * size for i in range(count)})


@contextmanager
def process(*arguments: str, **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    """kvctl as a process of its own."""
    streams.setdefault("stderr", subprocess.PIPE)
    command = [sys.executable, "-m", "kvstore.kvctl.main", *arguments]
    with subprocess.Popen(command, **streams) as child:
        try:
            yield child
        finally:
            child.kill()


def ended(child: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Its exit code and what it says; never a traceback."""
    _, said = child.communicate(timeout=5 * PATIENCE)
    assert b"Traceback" not in said
    assert b"Exception" not in said
    return child.returncode, said.decode()


# export


def test_an_export_replaces_a_file_only_when_it_is_whole(
    fake: Kvctl, fake_cluster: FakeCluster, tmp_path: Path
) -> None:
    fill(fake_cluster)
    target = tmp_path / "backup"
    link = tmp_path / "link"
    link.symlink_to("backup")
    umask = os.umask(0o027)
    try:
        assert fake("export", "--bucket", "carts", link).code == 0
    finally:
        os.umask(umask)
    good = target.read_bytes()
    assert good.count(b"\n") == 32
    assert target.stat().st_mode & 0o777 == 0o640
    target.chmod(0o600)
    for node in fake_cluster.nodes:
        node.scan_refusals.extend([Unavailable(2, 1)] * 1000)
    failed = fake("export", "--bucket", "carts", "--patience", "0", link)
    assert failed.code == failures.UNAVAILABLE
    assert f"kvctl: the export ended after 0 keys; {link} is as it was\n" in failed.err
    assert target.read_bytes() == good
    for node in fake_cluster.nodes:
        node.scan_refusals.clear()
    assert fake("export", "--bucket", "carts", link).code == 0
    assert sorted(target.read_bytes().splitlines()) == sorted(good.splitlines())
    assert (target.stat().st_mode & 0o777, link.is_symlink()) == (0o600, True)
    assert sorted(os.listdir(tmp_path)) == ["backup", "link"]


def test_an_export_that_lacks_keys_does_not_replace_one_that_has_them(
    fake: Kvctl, fake_cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(fake_cluster)
    target = tmp_path / "backup"
    fake("export", "--bucket", "carts", target)
    good = target.read_bytes()
    for node in fake_cluster.nodes:
        node.large = {b"k0007"}
    perform = fake_cluster.store.perform

    def performed(call: ClientRequest) -> Reply:
        return Failed(Corruption("x.sst", "damaged")) if call.key == b"k0007" else perform(call)

    monkeypatch.setattr(fake_cluster.store, "perform", performed)
    done = fake("export", "--bucket", "carts", target)
    assert done.code == failures.INCOMPLETE
    aside = tmp_path / "backup.incomplete"
    assert done.err.splitlines() == [
        "exported 29 keys",
        "kvctl: left out: 'k0007' cannot be read: x.sst: damaged",
        f"kvctl: the export is in {aside}, and {target} is as it was",
    ]
    assert target.read_bytes() == good
    assert aside.read_bytes().count(b"\n") == 31
    told = fake("import", aside, "--bucket", "other")
    assert told.code == 0
    assert told.err == "kvctl: 1 keys had been left out of the export when it was made\n"


def test_a_round_trip_through_standard_streams(fake_cluster: FakeCluster) -> None:
    fill(fake_cluster)
    common = ("--endpoints", fake_cluster.endpoints, "--timeout", str(PATIENCE))
    with process(*common, "export", "--bucket", "carts", stdout=subprocess.PIPE) as export:
        with process(
            *common, "import", "-", "--bucket", "b2", stdin=export.stdout, stdout=subprocess.PIPE
        ) as to:
            out, said = to.communicate(timeout=5 * PATIENCE)
        assert (to.returncode, said) == (0, b"")
        assert out == b"imported 30, unchanged 0, retried 0, failed 0\n"
        assert ended(export) == (0, "exported 30 keys\n")


def test_an_export_into_a_pipe_that_has_a_path(fake_cluster: FakeCluster) -> None:
    """As a shell's `>(gzip > FILE)` is one."""
    fill(fake_cluster)
    common = ("--endpoints", fake_cluster.endpoints, "--timeout", str(PATIENCE))
    with process(*common, "export", "--bucket", "carts", "/dev/stdout", stdout=subprocess.PIPE) as child:
        out, said = child.communicate(timeout=5 * PATIENCE)
    assert (child.returncode, said) == (0, b"exported 30 keys\n")
    assert out.count(b"\n") == 32


@pytest.mark.parametrize(
    "arguments", [("get", "carts", "k0001"), ("export", "--bucket", "carts"), ("--help",), ("ring",)]
)
def test_output_that_cannot_be_written_has_an_exit_code_of_its_own(
    fake_cluster: FakeCluster, arguments: tuple[str, ...]
) -> None:
    fill(fake_cluster, 200, 500)
    with (
        open("/dev/full", "wb") as full,
        process("--endpoints", fake_cluster.endpoints, *arguments, stdout=full) as child,
    ):
        code, said = ended(child)
    assert code == failures.FILES
    assert said.endswith("kvctl: the output cannot be written: No space left on device\n")


def test_an_export_on_a_full_disk_or_into_no_directory_leaves_nothing(
    fake: Kvctl, fake_cluster: FakeCluster, tmp_path: Path
) -> None:
    fill(fake_cluster)
    done = fake("export", "--bucket", "carts", tmp_path / "none" / "file")
    assert (done.code, done.err.count("\n")) == (failures.FILES, 1)
    assert "cannot be written: No such file or directory" in done.err
    full = fake("export", "--bucket", "carts", "/dev/full")
    assert full.code == failures.FILES
    assert "/dev/full cannot be written: No space left on device" in full.err


def test_whoever_reads_may_go_away(fake_cluster: FakeCluster) -> None:
    fill(fake_cluster, 2000, 500)
    arguments = ("--endpoints", fake_cluster.endpoints, "export", "--bucket", "carts")
    with process(*arguments, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.stderr is not None
        said = child.stderr.read()
        assert child.wait(5 * PATIENCE) == failures.NOBODY_READS
    assert b"Traceback" not in said
    assert b"Exception" not in said


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, failures.INTERRUPTED, "interrupted"),
        (signal.SIGTERM, failures.TERMINATED, "terminated"),
    ],
)
@pytest.mark.parametrize("arguments", [("get", "carts", "k"), ("export", "--bucket", "carts", "FILE")])
def test_an_interrupt_has_an_exit_code_of_its_own_and_leaves_nothing(
    arguments: tuple[str, ...], number: int, code: int, word: str, tmp_path: Path
) -> None:
    """Against a port that accepts and never answers."""
    (tmp_path / "out").write_text("before")
    given = [str(tmp_path / "out") if each == "FILE" else each for each in arguments]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(5 * PATIENCE)
        port = silent.getsockname()[1]
        with process("--endpoints", f"127.0.0.1:{port}", "--timeout", "60", *given) as child:
            connection, _ = silent.accept()  # now it waits for an answer
            child.send_signal(number)
            found, said = ended(child)
            connection.close()
    assert (found, said.splitlines()[-1]) == (code, f"kvctl: {word}")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out", "before")]


@pytest.mark.parametrize("pages", [0, 1])
@pytest.mark.parametrize("piped", [False, True])
def test_an_interrupt_ends_the_reads_that_are_under_way(
    fake_cluster: FakeCluster, tmp_path: Path, pages: int, piped: bool
) -> None:
    """While the first page is waited for, and while the next ones are, which other threads do."""
    fill(fake_cluster)
    for node in fake_cluster.nodes:
        node.frames.clear()
    fake_cluster.store.pages_left = pages
    patient = ("--endpoints", fake_cluster.endpoints, "--timeout", "3600")
    target = "-" if piped else str(tmp_path / "out")
    with process(*patient, "export", "--bucket", "carts", target, stdout=subprocess.PIPE) as child:
        pause = threading.Event()
        while sum(len(node.frames) for node in fake_cluster.nodes) < 1 + pages:
            assert child.poll() is None
            pause.wait(0.01)
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(1 + 2 * pages)] if piped else []
        child.send_signal(signal.SIGINT)
        code, said = ended(child)
    assert all(line.endswith(b"\n") for line in lines)
    assert code == failures.INTERRUPTED
    told, interrupted = said.splitlines()
    assert interrupted == "kvctl: interrupted"
    # what was read a moment ago is perhaps not written yet: of a pipe it is known
    known = [2 * pages] if piped else [0, 2 * pages]
    assert told in [f"kvctl: the export ended after {keys} keys" for keys in known]
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_while_modules_are_loaded_or_when_all_is_done_is_no_traceback() -> None:
    program = """\
import atexit, os, signal, sys
when, sys.argv[1:] = sys.argv[1], ["--help"]
class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == when:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupts())
if when == "atexit":
    atexit.register(os.kill, os.getpid(), signal.SIGINT)
from kvstore.kvctl.entry import main
main()
"""
    for when, ignored in (("click", False), ("atexit", False), ("click", True)):
        heed = signal.SIG_IGN if ignored else signal.SIG_DFL
        done = subprocess.run(
            [sys.executable, "-c", program, when],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=5 * PATIENCE,
            check=False,
            preexec_fn=partial(signal.signal, signal.SIGINT, heed),
        )
        assert done.stderr == b"", when
        assert done.returncode == (0 if ignored else -signal.SIGINT)
        assert bool(done.stdout) is (ignored or when == "atexit")


# import


def test_an_interrupted_import_tells_how_far_it_came_and_goes_on_from_there(
    fake: Kvctl, fake_cluster: FakeCluster, tmp_path: Path
) -> None:
    lines = [json.dumps({"id": f"k{i}"}).encode() + b"\n" for i in range(1200)]
    arguments = ("import", "-", "--key", "id", "--bucket", "carts")
    with process(
        "--endpoints", fake_cluster.endpoints, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"".join(lines[:1000]))
        child.stdin.flush()
        enough = threading.Event()
        wait_for(fake_cluster, 500, enough)
        child.send_signal(signal.SIGINT)
        out, said = child.communicate(timeout=5 * PATIENCE)
    assert child.returncode == failures.INTERRUPTED
    told = re.fullmatch(rb"imported (\d+), unchanged 0, retried 0, failed 0\n", out)
    assert told
    assert int(told[1]) <= 500  # it tells of the replies that had come, and 500 were written
    assert said.endswith(b"kvctl: interrupted\n")
    (tmp_path / "in").write_bytes(b"".join(lines))
    again = fake("import", tmp_path / "in", "--key", "id", "--bucket", "carts")
    assert again.out == "imported 700, unchanged 500, retried 0, failed 0\n"


def wait_for(cluster: FakeCluster, count: int, pause: threading.Event) -> None:
    """Until so many writes were applied."""
    for _ in range(int(PATIENCE * 200)):
        if len(cluster.store.applied) >= count:
            return
        pause.wait(0.01)
    raise AssertionError(f"only {len(cluster.store.applied)} writes")


@pytest.mark.parametrize(
    "arguments", [("import", "-", "--key", "id", "--bucket", "b"), ("put", "b", "k", "-")]
)
def test_a_closed_standard_input_is_one_line(fake_cluster: FakeCluster, arguments: tuple[str, ...]) -> None:
    script = 'exec 0<&-; exec "$@"'
    command = [sys.executable, "-m", "kvstore.kvctl.main", "--endpoints", fake_cluster.endpoints, *arguments]
    done = subprocess.run(
        ["sh", "-c", script, "sh", *command], check=False, capture_output=True, timeout=5 * PATIENCE
    )
    assert done.returncode == failures.USAGE
    assert b"standard input is closed" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_byte_order_mark_is_no_part_of_a_value(fake: Kvctl, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b'\xef\xbb\xbf{"id":"a"}\r\n{"id":"b"}\r\n')
    assert fake("import", tmp_path / "in", "--key", "id", "--bucket", "c8").code == 0
    assert fake("get", "c8", "a", "--raw").out == '{"id":"a"}'


def test_duplicates_are_told_with_an_exit_code(fake: Kvctl, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b'{"id":1,"v":"a"}\n{"id":"1","v":"b"}\n')
    arguments = ("import", tmp_path / "in", "--key", "id", "--bucket", "c15")
    done = fake(*arguments)
    assert done.code == failures.INCOMPLETE
    assert done.out == "imported 1, unchanged 0, retried 0, failed 0, duplicates 1\n"
    assert done.err == "kvctl: line 2: has the key '1' of line 1, and takes its place\n"
    stopped = fake(*arguments, "--on-duplicate", "stop")
    assert (stopped.code, stopped.err) == (5, "kvctl: line 2: has the key '1' of line 1\n")


def test_what_is_no_export_says_what_to_give(fake: Kvctl, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b'{"id":"a"}\n')
    done = fake("import", tmp_path / "in", "--bucket", "b")
    assert done.code == failures.USAGE
    assert "for JSON or CSV of other programs give --key" in done.err


def test_progress_for_programs_is_a_json_object_a_line(
    fake: Kvctl, fake_cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvstore.kvctl.progress._JSON_SECONDS", 0.0)
    fill(fake_cluster, 3)
    done = fake("-o", "json", "export", "--bucket", "carts", tmp_path / "out")
    events = [json.loads(line) for line in done.err.splitlines()]
    assert [event.get("event") for event in events] == ["exporting"] * 4 + [None]
    assert events[-2]["bytes"] == (tmp_path / "out").stat().st_size
    assert events[-1] == {"exported": 3, "retried": 0, "left_out": 0}
    done = fake("-o", "json", "import", tmp_path / "out", "--bucket", "carts")
    events = [json.loads(line) for line in done.err.splitlines()]
    assert events[-1]["bytes"] == events[-1]["total_bytes"] == (tmp_path / "out").stat().st_size
    assert json.loads(done.out)["unchanged"] == 3
