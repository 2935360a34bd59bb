"""Ctrl-C and SIGTERM that come twice, as `timeout` sends them and impatient people do."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time

import pytest

from kvstore.kvctl import failures
from kvstore.kvctl.interrupts import Interrupts, Terminated
from tests.patience import PATIENCE

BOTH = [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]


@pytest.mark.parametrize(("number", "kind"), BOTH)
def test_a_signal_that_follows_at_once_belongs_to_the_one_before(
    number: int, kind: type[BaseException]
) -> None:
    now = 100.0
    interrupts = Interrupts(lambda: now)
    with pytest.raises(kind):
        interrupts(number)
    now += 0.9
    interrupts(number)
    interrupts(signal.SIGTERM)
    now += 0.2
    with pytest.raises(kind):
        interrupts(number)


def test_a_process_that_is_about_to_end_is_ended_by_one_that_comes_later() -> None:
    script = (
        "import os, signal, sys, time\n"
        "from kvstore.kvctl.interrupts import Interrupts\n"
        "interrupts = Interrupts(iter([1.0, 1.5, 2.5]).__next__)\n"
        "signal.signal(signal.SIGTERM, interrupts)\n"
        "try: signal.raise_signal(signal.SIGTERM)\n"
        "except KeyboardInterrupt: interrupts.ending = True\n"
        "signal.raise_signal(signal.SIGTERM); print('goes on', flush=True)\n"
        "signal.raise_signal(signal.SIGTERM); print('not reached', flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "goes on\n", "")


def test_what_was_half_made_at_an_interrupt_says_nothing_when_it_is_thrown_away() -> None:
    """The loop of asyncio said that it has no socket, in eleven lines, when one came while it was made."""
    script = (
        "import signal\n"
        "from kvstore.kvctl.interrupts import interrupts\n"
        "class HalfMade:\n"
        "    def __init__(self, interrupted):\n"
        "        if interrupted: signal.raise_signal(signal.SIGTERM)\n"
        "    def __del__(self): self.socket.close()\n"
        "with interrupts(until_the_end=True):\n"
        "    HalfMade(interrupted=False)\n"
        "    print('a defect is told', flush=True)\n"
        "    try: HalfMade(interrupted=True)\n"
        "    except KeyboardInterrupt: print('interrupted', flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stdout) == (0, "a defect is told\ninterrupted\n")
    assert done.stderr.count("AttributeError") == 1, done.stderr


@pytest.mark.parametrize(("number", "kind"), BOTH)
def test_one_that_comes_where_nothing_can_be_raised_is_heeded_a_moment_later(
    number: signal.Signals, kind: type[BaseException]
) -> None:
    """An import that was interrupted went on to its end, and said that all was well."""
    script = (
        "import signal, time\n"
        "from kvstore.kvctl.interrupts import interrupts\n"
        "class ThrownAway:\n"
        f"    def __del__(self): signal.raise_signal({int(number)})\n"
        "with interrupts(until_the_end=True):\n"
        "    try:\n"
        "        ThrownAway()\n"
        f"        time.sleep({PATIENCE})\n"
        "    except KeyboardInterrupt as error: print(type(error).__name__, flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{kind.__name__}\n", "")


def test_one_that_comes_while_the_last_is_put_off_is_put_off_as_well() -> None:
    """On a busy machine it was repeated before the hook that put it off had ended, and was lost."""
    script = (
        "import signal, threading, time\n"
        "from kvstore.kvctl.interrupts import interrupts\n"
        "class Slow(threading.Timer):\n"
        "    times = 0\n"
        "    def start(self):\n"
        "        super().start()\n"
        "        Slow.times += 1\n"
        "        if Slow.times == 1: time.sleep(0.5)\n"
        "threading.Timer = Slow\n"
        "class ThrownAway:\n"
        "    def __del__(self): signal.raise_signal(signal.SIGTERM)\n"
        "with interrupts(until_the_end=True):\n"
        "    try:\n"
        "        ThrownAway()\n"
        f"        time.sleep({PATIENCE})\n"
        "    except KeyboardInterrupt as error: print(type(error).__name__, flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "Terminated\n", "")


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, failures.INTERRUPTED, "interrupted"),
        (signal.SIGTERM, failures.TERMINATED, "terminated"),
    ],
)
def test_a_second_one_is_no_traceback(number: signal.Signals, code: int, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoints = f"127.0.0.1:{silent.getsockname()[1]}"
        script = "from kvstore.kvctl.entry import main; main()"
        call = [sys.executable, "-c", script, "--endpoints", endpoints, "--timeout", "60"]
        for pause in (0.0, 0.0, 0.001, 0.002, 0.005, 0.01):
            with subprocess.Popen([*call, "get", "c", "k"], stderr=subprocess.PIPE, text=True) as child:
                connection, _ = silent.accept()
                child.send_signal(number)
                time.sleep(pause)
                child.send_signal(number)
                _, err = child.communicate(timeout=PATIENCE)
                connection.close()
            assert err == f"kvctl: {said}\n", pause
            # the second one may come when all is done: to a shell that is the same code
            assert child.returncode in (code, -number), pause
