"""Fuzz every decoder: `python -m tests.fuzz --executions N --seed S`.

`--decoder NAME` (may be repeated) chooses; with `--input HEX` that one input is decoded, as a failure says.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.fuzz.decoders import named
from tests.fuzz.runner import Found, Tally, execute, fuzz, limit_memory


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--executions", type=int, default=2_000_000)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--decoder", action="append", default=[])
    parser.add_argument("--input", type=bytes.fromhex)
    given = parser.parse_args()
    decoders = named(given.decoder)
    limit_memory()
    try:
        if given.input is not None:
            execute(decoders[0], given.input, Tally(), measured=True)
            return 0
        return report(fuzz(decoders, given.executions, given.seed), given.seed)
    except Found as found:
        print(f"seed {given.seed}: {found}", file=sys.stderr)
        return 1


def report(tallies: dict[str, Tally], seed: str) -> int:
    for name, tally in tallies.items():
        print(f"{name:28} {tally}")
    total = sum(tally.executions for tally in tallies.values())
    print(f"{total} executions of {len(tallies)} decoders in {time.process_time():.0f} s of CPU, seed {seed}")
    # a decoder that nothing passes, or nothing fails, was not reached
    idle = [name for name, tally in tallies.items() if not tally.accepted or not tally.refused]
    idle = [name for name in idle if name not in NEVER_REFUSE or not tallies[name].accepted]
    if idle:
        print(f"never succeeded or never refused: {', '.join(idle)}", file=sys.stderr)
    return 1 if idle else 0


NEVER_REFUSE = {"frames of the worker", "table, filter repaired"}
"""What is cut off there counts as the end; a damaged filter costs only time."""


if __name__ == "__main__":
    sys.exit(main())
