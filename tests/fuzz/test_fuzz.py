"""A short run of the fuzzer; `make fuzz` is the long one."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.decoders import Decoder
from tests.fuzz.runner import Found, fuzz_one

ROOT = Path(__file__).resolve().parents[2]


def test_damaged_bytes_are_refused_by_every_decoder() -> None:
    """In a process of its own, whose memory is limited."""
    seed = "0" if os.environ.get("CI") else f"{random.SystemRandom().getrandbits(32)}"
    command = [sys.executable, "-m", "tests.fuzz", "--executions", "40000", "--seed", seed]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    print(done.stdout)
    assert done.returncode == 0, f"seed {seed}: {done.stdout}{done.stderr}"


def refuses_badly(data: bytes) -> None:
    raise IndexError(data[0])


def takes_too_much(data: bytes) -> object:
    return bytes(1 << 20) + data


@pytest.mark.parametrize("decode", [refuses_badly, takes_too_much])
def test_the_fuzzer_finds_what_no_decoder_may_do(decode: Callable[[bytes], object]) -> None:
    with pytest.raises(Found, match="bad decoder"):
        fuzz_one(Decoder("bad decoder", decode, [b"seed"]), 1000, "1")
