"""kvctl as scripts use it: what it prints, and its exit codes."""

from __future__ import annotations

import base64
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from kvstore.kvctl.main import main
from kvstore.local.cluster import DEFAULT_DIRECTORY, LocalCluster
from kvstore.local.ports import free_ports
from tests.patience import PATIENCE

Kvctl = Callable[..., subprocess.CompletedProcess[str]]


def run(*arguments: str, stdin: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kvstore.kvctl.main", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
        check=False,
        cwd=cwd,
    )


class Stdin(io.BytesIO):
    """What is typed, or comes from a pipe."""

    name = "<stdin>"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Kvctl:
    """kvctl in this process: one of its own takes longer to start than to do its work.

    What only a process shows is in test_kvctl_cases.py, and in what calls `run` below.
    """

    def call(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr("sys.argv", ["kvctl", *arguments])
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(Stdin(stdin.encode()), "utf-8"))
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), output.out, output.err)

    return call


@pytest.fixture
def kvctl(shared_cluster: LocalCluster, here: Kvctl) -> Kvctl:
    """kvctl connected to a cluster."""
    return partial(here, "--endpoints", shared_cluster.endpoints, "--timeout", str(PATIENCE))


@pytest.fixture
def bucket(request: pytest.FixtureRequest) -> str:
    """A bucket that no other test uses."""
    name: str = request.node.name
    return name.replace("_", "-")[:60]


def test_put_get_delete(kvctl: Kvctl) -> None:
    assert kvctl("put", "carts", "user:1", "one").stdout == "stored\n"
    assert kvctl("put", "carts", "user:1", "two").stdout == "stored\n"
    assert kvctl("get", "carts", "user:1").stdout == "two\n"
    assert (
        kvctl("put", "carts", "user:1", "three", "--blind").stdout
        == "stored; concurrent values that stay: 1\n"
    )
    both = kvctl("get", "carts", "user:1")
    assert "sibling 1 of 2: " in both.stdout
    assert "sibling 2 of 2: " in both.stdout
    found = json.loads(kvctl("-o", "json", "get", "carts", "user:1").stdout)
    assert sorted(sibling["value"] for sibling in found["siblings"]) == ["three", "two"]
    assert kvctl("put", "carts", "user:1", "four", "--context", found["context"]).returncode == 0
    assert kvctl("get", "carts", "user:1", "--raw").stdout == "four"
    assert kvctl("delete", "carts", "user:1").stdout == "deleted\n"
    gone = kvctl("get", "carts", "user:1")
    assert (gone.returncode, gone.stdout) == (1, "")
    assert gone.stderr == "kvctl: 'user:1' has no value in bucket 'carts'\n"


def test_values_that_are_no_text(kvctl: Kvctl, tmp_path: Path) -> None:
    value = bytes(range(256))
    (tmp_path / "value").write_bytes(value)
    kvctl("put", "carts", "bytes", "--file", str(tmp_path / "value"))
    encoded = base64.b64encode(value).decode()
    assert kvctl("get", "carts", "bytes").stdout == f"base64:{encoded}\n"
    found = json.loads(kvctl("-o", "json", "get", "carts", "bytes").stdout)
    assert found["siblings"][0]["value_base64"] == encoded
    kvctl("put", "carts", "text", "-", stdin="from standard input")
    assert kvctl("get", "carts", "text").stdout == "from standard input\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("get", "carts", ""), "key: has 0 bytes"),
        (("get", "carts", "k" * 4097), "key: has 4097 bytes"),
        (("get", "Bad Bucket", "k"), "bucket: 'Bad Bucket'"),
        (("get", "carts", "k", "-r", "9"), "r: is 9"),
        (("put", "carts", "k", "v", "--context", "%%%"), "context: is not base64"),
        (("put", "carts", "k", "v", "--context", "AAAA"), "context: is damaged"),
        (("put", "carts", "k"), "give the VALUE or --file"),
        (("put", "carts", "k", "v", "--context", "AAAA", "--blind"), "exclude each other"),
        (("import", "/nowhere", "--key", "k", "--bucket", "b"), "No such file"),
        (("frobnicate",), "No such command"),
        (("--timeout", "0", "status"), "--timeout"),
        (("ring", "--key", "carts"), "--key"),
    ],
)
def test_wrong_input_is_refused_in_one_go(kvctl: Kvctl, arguments: tuple[str, ...], complaint: str) -> None:
    done = kvctl(*arguments)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stdout == ""


def test_nobody_there() -> None:
    done = run("--endpoints", "127.0.0.1:1", "get", "carts", "user:1")
    assert done.returncode == 3
    assert done.stderr.startswith("kvctl: no node available (127.0.0.1:1: ")
    assert done.stderr.count("\n") == 1


def lines(*records: object) -> str:
    return "".join(r if isinstance(r, str) else json.dumps(r) + "\n" for r in records)


def test_import_and_export(kvctl: Kvctl, bucket: str, tmp_path: Path) -> None:
    records = [{"id": f"k{i}", "n": i, "name": "Zürich ✈"} for i in range(1200)]
    number = {"id": 7, "n": "a number as key"}
    (tmp_path / "in.jsonl").write_text(lines(*records, "\n", number))
    arguments = ("import", str(tmp_path / "in.jsonl"), "--key", "id", "--bucket", bucket)
    assert kvctl(*arguments).stdout == "imported 1,201, unchanged 0, retried 0, failed 0\n"
    assert kvctl(*arguments).stdout == "imported 0, unchanged 1,201, retried 0, failed 0\n"
    assert json.loads(kvctl("get", bucket, "7").stdout) == number
    done = kvctl("export", "--bucket", bucket, "--plain", str(tmp_path / "out.jsonl"))
    assert done.stderr == "exported 1,201 keys\n"
    exported = (tmp_path / "out.jsonl").read_text().splitlines()
    assert sorted(map(str, map(json.loads, exported))) == sorted(map(str, [*records, number]))


def test_a_bad_line_stops_the_import_and_what_went_before_stays(kvctl: Kvctl, bucket: str) -> None:
    text = lines({"id": "a"}, '{"id": bucket, "cut o\n', {"id": "c"})
    done = kvctl("import", "-", "--key", "id", "--bucket", bucket, stdin=text)
    assert done.returncode == 5
    assert done.stdout == "imported 1, unchanged 0, retried 0, failed 1\n"
    assert done.stderr.startswith("kvctl: line 2: is not JSON")
    assert [kvctl("get", bucket, key).returncode for key in ("a", "c")] == [0, 1]


def test_bad_lines_can_be_skipped(kvctl: Kvctl, bucket: str) -> None:
    bad = ("nonsense\n", "[1]\n", {"no": "id"}, {"id": None}, {"id": ["x"]}, {"id": ""}, {"id": "k" * 5000})
    text = lines({"id": "a"}, *bad, {"id": "b"})
    done = kvctl("import", "-", "--key", "id", "--bucket", bucket, "--on-error", "skip", stdin=text)
    assert done.returncode == 5
    assert done.stdout == "imported 2, unchanged 0, retried 0, failed 7\n"
    assert [line.split(":")[1] for line in done.stderr.splitlines()] == [f" line {n}" for n in range(2, 9)]


def test_an_empty_file_is_no_error(kvctl: Kvctl, bucket: str) -> None:
    done = kvctl("import", "-", "--key", "id", "--bucket", bucket)
    assert (done.returncode, done.stdout) == (0, "imported 0, unchanged 0, retried 0, failed 0\n")


def test_a_plain_export_names_what_it_leaves_out(kvctl: Kvctl, bucket: str) -> None:
    kvctl("put", bucket, "text", "no JSON")
    for value in ('{"a": 1}', '{"a": 2}'):
        kvctl("put", bucket, "twice", value, "--blind")
    kvctl("put", bucket, "good", '{"a": 3}')
    done = kvctl("export", "--bucket", bucket, "--plain")
    assert (done.returncode, done.stdout) == (5, '{"a": 3}\n')
    assert "'text' is no single JSON object" in done.stderr
    assert "'twice' is no single JSON object" in done.stderr


def test_status_and_ring(kvctl: Kvctl) -> None:
    status = json.loads(kvctl("-o", "json", "status").stdout)
    assert [(row["node"], row["state"]) for row in status] == [
        ("n1", "alive"),
        ("n2", "alive"),
        ("n3", "alive"),
    ]
    engine = status[0]["engine"]
    assert engine["write_amplification"] >= 1.0
    assert {"space_amplification", "filter_useful", "cache_hits", "cache_bytes"} <= set(engine)
    ring = json.loads(kvctl("-o", "json", "ring", "--key", "carts", "user:1").stdout)
    assert sorted(ring["primaries"]) == ["n1", "n2", "n3"]
    assert "256 partitions" in kvctl("ring").stdout


def test_an_interrupt_while_a_cluster_starts_is_one_line_and_leaves_no_process(tmp_path: Path) -> None:
    port = str(min(free_ports(1)))
    command = [sys.executable, "-m", "kvstore.kvctl.main", "cluster", "start", "--nodes", "1", "--port", port]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        pid_file = tmp_path / DEFAULT_DIRECTORY / "n1" / "pid"
        deadline = time.monotonic() + PATIENCE
        while not pid_file.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        child.send_signal(signal.SIGINT)
        out, said = child.communicate(timeout=5 * PATIENCE)
    stopped = run("cluster", "stop", cwd=tmp_path).stdout
    assert (child.returncode, out, said) == (130, b"", b"kvctl: interrupted\n")
    assert stopped == "no node was running\n"


def test_a_cluster_from_the_command_line(
    tmp_path: Path, here: Kvctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is started and stopped by processes that know nothing of each other."""
    monkeypatch.chdir(tmp_path)
    (port,) = free_ports(1)
    data = f"{DEFAULT_DIRECTORY}/n1/data"
    start = ("cluster", "start", "--nodes", "1", "--port", str(port))
    try:
        assert "1 nodes serve on" in run(*start).stdout
        assert here("put", "b", "k", "v", "-w", "1").returncode == 0
        assert here("cluster", "kill", "n1").stdout == "killed n1\n"
        assert here("get", "b", "k").returncode == 3
        assert "not reachable" in here("cluster", "status").stdout
        assert here("data", "verify", data).returncode == 0
        assert here("data", "verify", f"{DEFAULT_DIRECTORY}/n1").returncode == 0
        dumped = map(json.loads, here("data", "dump", data, "--bucket", "b").stdout.splitlines())
        (stored,) = (line for line in dumped if "key" in line)
        assert (stored["key"], stored["siblings"][0]["value"]) == ("k", "v")
        assert here("data", "compact", data).returncode == 0
        assert here("cluster", "restart", "n1").returncode == 0
        assert here("get", "b", "k").stdout == "v\n"
        refused = here("data", "verify", data)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert "another process uses this directory" in refused.stderr
        for flags, said in (
            (("--nodes", "2"), "holds another cluster, "),
            (("--nodes", "1", "--bucket", "b:n=1,conflict=lww"), "not bucket b:n=1,conflict=lww"),
            (
                ("--nodes", "1", "--bucket", "b:n=1,ttl=60"),
                "runs with no --bucket, not --bucket b:n=1,ttl=60",
            ),
        ):
            again = here("cluster", "start", "--port", str(port), *flags)
            assert (again.returncode, again.stderr.count("\n")) == (2, 1)
            assert said in again.stderr
        assert here("cluster", "kill", "n7").returncode == 2
        assert run("cluster", "stop").returncode == 0
        again = here("cluster", "start")  # that which is there
        assert again.stdout.partition(" (")[0] == f"1 nodes serve on 127.0.0.1:{port}"
    finally:
        assert run("cluster", "stop").stdout == "stopped n1\n"
    assert run("cluster", "stop").stdout == "no node was running\n"
    assert here("cluster", "stop", "--dir", "elsewhere").returncode == 2
