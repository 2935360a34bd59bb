"""Feeds decoders with damaged bytes, and looks at what they do."""

from __future__ import annotations

import faulthandler
import random
import resource
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.fuzz.decoders import Decoder
from tests.fuzz.mutations import mutated

FREE_BYTES = 128 * 1024
"""What any input may cost; beyond that memory has to be justified by the input's length."""
MOST_MEMORY = 512 * 1024 * 1024
"""What the whole process may take beyond what it had at the start, libraries that Python cannot see into
included."""
_MEASURED = 1 / 32
_BATCH = 1000
_PATIENCE = 60.0


class Found(Exception):
    """A decoder has done what no decoder may."""

    def __init__(self, decoder: Decoder, data: bytes, what: str) -> None:
        super().__init__(f"{decoder.name}: {what}\n  --decoder {decoder.name!r} --input {data.hex()}")


@dataclass
class Tally:
    """What became of one decoder's executions."""

    executions: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    most_memory: int = 0
    """Bytes that one of the executions that were measured took."""

    def __str__(self) -> str:
        refused = ", ".join(f"{name} {count}" for name, count in self.refused.most_common())
        counts = f"{self.executions:9} executions {self.accepted:8} accepted"
        return f"{counts} {self.most_memory // 1024:6} KiB  {refused}"


def limit_memory() -> None:
    """From here on this process cannot take more than `MOST_MEMORY`: whoever asks gets a MemoryError."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    limit = pages * resource.getpagesize() + MOST_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def fuzz(decoders: Sequence[Decoder], executions: int, seed: str) -> dict[str, Tally]:
    """Run all decoders, each in its share; raises Found."""
    shares = sum(decoder.share for decoder in decoders)
    return {
        decoder.name: fuzz_one(decoder, -(-executions * decoder.share // shares), seed)
        for decoder in decoders
    }


def fuzz_one(decoder: Decoder, executions: int, seed: str) -> Tally:
    """Run one decoder; the same inputs for the same seed. Raises Found."""
    rng = random.Random(f"{seed}/{decoder.name}")
    tally = Tally()
    try:
        for i in range(executions):
            if i % _BATCH == 0:
                # one that does not come to an end, ends the process and says where it was
                faulthandler.dump_traceback_later(_PATIENCE, exit=True)
            # each seed once as it is: it has to be accepted
            data = decoder.seeds[i] if i < len(decoder.seeds) else mutated(rng, decoder.seeds)
            execute(decoder, decoder.wrap(data), tally, rng.random() < _MEASURED)
    finally:
        faulthandler.cancel_dump_traceback_later()
    return tally


def execute(decoder: Decoder, data: bytes, tally: Tally, measured: bool) -> None:
    """Decode once; raises Found."""
    tally.executions += 1
    if measured:
        tracemalloc.start()
    try:
        decoder.decode(data)
    except decoder.refusals as error:
        tally.refused[type(error).__name__] += 1
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # Rust's panics are no Exceptions
        raise Found(decoder, data, f"raised {error!r}") from error
    else:
        tally.accepted += 1
    finally:
        if measured:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    if measured:
        _judge(decoder, data, peak, tally)


def _judge(decoder: Decoder, data: bytes, peak: int, tally: Tally) -> None:
    tally.most_memory = max(tally.most_memory, peak)
    if peak > FREE_BYTES + decoder.memory * len(data):
        raise Found(decoder, data, f"took {peak} bytes of memory for {len(data)} bytes of input")
