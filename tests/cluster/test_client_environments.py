"""The client in the programs around it: docs/client-environments.md, line by line."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvstore.local.cluster import LocalCluster
from tests.cluster.clusters import serving
from tests.patience import PATIENCE

PAGE = (Path(__file__).parents[2] / "docs" / "client-environments.md").read_text()
BLOCKS = dict(re.findall(r"```python\n# (\w+\.py)[^\n]*\n(.*?)```", PAGE, re.DOTALL))
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "no_proxy", "no_grpc_proxy")
NOWHERE = "http://user:secret@127.0.0.1:9"


def environment(**variables: str) -> dict[str, str]:
    """That of this process, without what it may have of proxies."""
    return {name: text for name, text in os.environ.items() if name.lower() not in PROXIES} | variables


def said_by(cluster: LocalCluster, code: str, **variables: str) -> list[str]:
    """The lines that this code prints; it ends well, and complains of nothing."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, cluster.endpoints],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=10 * PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr + done.stdout
    return done.stdout.splitlines()


def written(cluster: LocalCluster, directory: Path, name: str) -> Path:
    """A program of the page, with these nodes and a bucket of its own."""
    path = directory / name
    code = BLOCKS[name].replace("127.0.0.1:7001", cluster.endpoints.partition(",")[0])
    path.write_text(code.replace('bucket("carts")', f'bucket("{path.stem}")'))
    return path


CONNECTED = """
import asyncio, os, sys, time
import kvstore
db = kvstore.connect(sys.argv[1])
carts = db.bucket("environments")
carts.get("k")

def outcome(work):
    try:
        return repr(work())
    except kvstore.KVError as error:
        return type(error).__name__ + ": " + str(error)

def in_child(work):
    began = time.monotonic()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        print(outcome(work), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert time.monotonic() - began < 5
"""


@pytest.mark.parametrize(
    ("name", "lines"), [("threads.py", ["100"]), ("loops.py", ["done"]), ("pool.py", ["20", "20", "20"])]
)
def test_a_program_of_the_page_runs_as_printed(
    shared_cluster: LocalCluster, tmp_path: Path, name: str, lines: list[str]
) -> None:
    path = written(shared_cluster, tmp_path, name)
    done = subprocess.run(
        [sys.executable, str(path)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=10 * PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout.splitlines()) == (0, "", lines)


def test_every_program_of_the_page_is_known_here() -> None:
    assert set(BLOCKS) == {"threads.py", "loops.py", "pool.py", "web.py", "asgi.py"}
    assert PAGE.count("```python") == len(BLOCKS)


# forks


def test_children_that_do_not_use_it_are_not_harmed(shared_cluster: LocalCluster) -> None:
    code = """
ended = set()
for _ in range(60):
    child = os.fork()
    if child == 0:
        os._exit(0)
    ended.add(os.waitpid(child, 0)[1])
    time.sleep(0.02)
print(ended)
carts.get("k")
"""
    assert said_by(shared_cluster, CONNECTED + code) == ["{0}"]


def test_a_child_of_a_connected_process_connects_and_may_not_use_its_parents_client(
    shared_cluster: LocalCluster,
) -> None:
    code = """
def work():
    with kvstore.connect(sys.argv[1], timeout=60) as db:
        return db.bucket("environments").exists("k")

async def connect():
    async with kvstore.aio.connect(sys.argv[1], timeout=60) as db:
        return await db.bucket("environments").exists("k")

in_child(lambda: carts.get("k"))
in_child(work)
in_child(lambda: asyncio.run(connect()))
in_child(lambda: in_child(work))
if os.fork() == 0:
    sys.exit()  # as an ordinary program ends
assert os.wait()[1] == 0
print(carts.exists("k"))
"""
    inherited, *others = said_by(shared_cluster, CONNECTED + code)
    assert inherited.startswith("ClientClosed: the client was made before this process was forked")
    assert others == ["False", "False", "False", "None", "False"]


def test_a_child_on_the_loop_of_its_parent_is_told_at_once(shared_cluster: LocalCluster) -> None:
    code = """
import asyncio, os, sys
import kvstore

async def main():
    async with kvstore.aio.connect(sys.argv[1]) as db:
        child = os.fork()
        if child == 0:
            try:
                await db.bucket("environments").get("k")
            except kvstore.ClientClosed as error:
                print(error, flush=True)
            os._exit(0)
        os.waitpid(child, 0)

asyncio.run(main())
"""
    (line,) = said_by(shared_cluster, code)
    assert "forked" in line


# event loops


def test_another_event_loop_is_refused(shared_cluster: LocalCluster) -> None:
    code = """
import asyncio, sys
import kvstore

async def connect():
    db = await kvstore.aio.connect(sys.argv[1])
    await db.bucket("environments").get("k")
    return db

async def use(call, *arguments):
    try:
        await call(*arguments)
    except kvstore.WrongEnvironment as error:
        print(error)

db = asyncio.run(connect())
carts = db.bucket("environments")
asyncio.run(use(carts.get, "k"))
asyncio.run(use(carts.get_many, ["k"]))
asyncio.run(use(db.status))
asyncio.run(use(db.close))
"""
    lines = said_by(shared_cluster, code)
    assert len(lines) == 4
    assert all("connected on another event loop" in line for line in lines)


def test_both_kinds_of_client_may_be_used_side_by_side(shared_cluster: LocalCluster) -> None:
    code = """
import threading

async def read():
    async with kvstore.aio.connect(sys.argv[1]) as db:
        await asyncio.gather(*(db.bucket("environments").get(f"k{i}") for i in range(500)))

thread = threading.Thread(target=lambda: [carts.get("k") for _ in range(500)])
thread.start()
for _ in range(5):
    asyncio.run(read())
thread.join()
print("done")
"""
    assert said_by(shared_cluster, CONNECTED + code) == ["done"]


def test_a_loop_that_ends_before_its_client_prints_nothing(shared_cluster: LocalCluster) -> None:
    code = """
import asyncio, sys
import kvstore

async def main():
    db = await kvstore.aio.connect(sys.argv[1])
    await db.bucket("environments").get("k")

asyncio.run(main())
"""
    assert said_by(shared_cluster, code) == []


def test_half_of_the_callers_leave_and_no_answer_goes_to_another(shared_cluster: LocalCluster) -> None:
    code = """
import asyncio, sys
import kvstore

async def main():
    async with kvstore.aio.connect(sys.argv[1]) as db:
        b = db.bucket("leaving")
        await b.put_many({f"k{i}": f"v{i}" for i in range(20)})
        for turn in range(300):
            tasks = [asyncio.create_task(b.get(f"k{i}")) for i in range(20)]
            await asyncio.sleep(0.0005 * (turn % 7))
            for task in tasks[::2]:
                task.cancel()
            for i, task in enumerate(tasks):
                try:
                    assert (await task).value == b"v%d" % i
                except asyncio.CancelledError:
                    pass

asyncio.run(main())
"""
    assert said_by(shared_cluster, code) == []


# gevent


def test_under_half_patched_threads_connect_says_so_at_once(shared_cluster: LocalCluster) -> None:
    code = """
import sys
import kvstore

try:
    kvstore.connect(sys.argv[1], timeout=60)
except kvstore.WrongEnvironment as error:
    print(error)
"""
    for options in ("thread=False", "select=False"):
        (line,) = said_by(shared_cluster, f"from gevent import monkey\nmonkey.patch_all({options})\n" + code)
        assert "patch_all(thread=False, select=False)" in line


def test_greenlets_wait_side_by_side(shared_cluster: LocalCluster) -> None:
    code = """
import gevent

waiting = most = 0

def read(number):
    global waiting, most
    waiting += 1
    most = max(most, waiting)
    found = carts.exists(f"k{number}")
    waiting -= 1
    return found

print({each.value for each in gevent.joinall([gevent.spawn(read, i) for i in range(50)])}, most)
db.close()
"""
    patched = "from gevent import monkey\nmonkey.patch_all()\n" + CONNECTED
    assert said_by(shared_cluster, patched + code) == ["{False} 50"]


def test_under_gevent_with_real_threads_it_works(shared_cluster: LocalCluster) -> None:
    code = "from gevent import monkey\nmonkey.patch_all(thread=False, select=False)\n"
    assert said_by(shared_cluster, code + CONNECTED + "print(carts.exists('k'))\n") == ["False"]


# proxies


def test_neither_clients_nor_nodes_take_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, NOWHERE)
    with contextmanager(serving)(tmp_path) as cluster:
        command = [sys.executable, "-m", "kvstore.kvctl.main", "--endpoints", cluster.endpoints]
        done = subprocess.run([*command, "get", "c16", "k"], capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stderr
        assert said_by(cluster, CONNECTED + "print(carts.put('k', 'v', w=3).siblings)") == ["1"]


@contextmanager
def refusing_proxy() -> Iterator[tuple[int, list[bytes]]]:
    """Its port, and the first line of each request."""
    lines: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                lines.append(connection.recv(4096).partition(b"\r\n")[0])
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1], lines
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_proxy_named_for_kvstore_is_used_and_its_refusal_named() -> None:
    code = """
import kvstore
try:
    kvstore.connect("192.0.2.1:7001", timeout=5)
except kvstore.NoNodeAvailable as error:
    print(error)
"""
    with refusing_proxy() as (port, lines):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment(KVSTORE_PROXY=f"127.0.0.1:{port}"),
            capture_output=True,
            text=True,
            check=True,
        )
    assert f"the proxy 127.0.0.1:{port} refuses: 403 Forbidden" in done.stdout
    assert lines[0] == b"CONNECT 192.0.2.1:7001 HTTP/1.1"


# servers


@contextmanager
def web_server(arguments: list[str], directory: Path) -> Iterator[str]:
    """Runs until the block ends, and then ends well; gives its URL."""
    log = directory / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=directory, env=environment(), stdout=output, stderr=output
        )
    try:
        found = None
        while found is None:
            assert process.poll() is None, log.read_text()
            found = re.search(r"http://127\.0\.0\.1:[1-9]\d*", log.read_text())
        yield found[0]
    finally:
        process.terminate()
        process.wait(10 * PATIENCE)
    assert "Traceback" not in log.read_text()


def answers(url: str, number: int) -> list[bytes]:
    """What it says so many times; it may name its port before it listens."""
    found: list[bytes] = []
    deadline = time.monotonic() + 10 * PATIENCE
    while len(found) < number:
        try:
            with urllib.request.urlopen(url, timeout=5 * PATIENCE) as response:
                found.append(response.read())
        except urllib.error.URLError:
            assert not found
            assert time.monotonic() < deadline
            time.sleep(0.01)
    return found


@pytest.mark.parametrize("options", [["--preload"], ["--threads", "4"]])
def test_gunicorn(shared_cluster: LocalCluster, tmp_path: Path, options: list[str]) -> None:
    written(shared_cluster, tmp_path, "web.py")
    command = ["gunicorn", "--workers", "2", "--bind", "127.0.0.1:0", *options, "web:app"]
    with web_server(command, tmp_path) as url:
        assert answers(url, 20) == [b"nothing"] * 20


def test_uvicorn(shared_cluster: LocalCluster, tmp_path: Path) -> None:
    written(shared_cluster, tmp_path, "asgi.py")
    command = ["uvicorn", "--workers", "2", "--port", "0", "asgi:app"]
    with web_server(command, tmp_path) as url:
        assert answers(url, 20) == [b"nothing"] * 20
