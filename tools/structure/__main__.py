"""`python -m tools.structure`: print the structure of kvstore/; exit code 1 when a bound is exceeded."""

from __future__ import annotations

import sys
from pathlib import Path

from tools.structure.report import sections
from tools.structure.source import read_package

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Print each section; what exceeds a bound is marked with `!`."""
    found = sections("kvstore", read_package(ROOT / "kvstore", without=("kvstore.v1",)))
    for section in found:
        print(f"{section.title}: {'exceeded' if section.exceeded else 'ok'}")
        for line in section.exceeded:
            print(f"  ! {line}")
        for line in section.figures:
            print(f"    {line}")
    sys.exit(any(section.exceeded for section in found))


if __name__ == "__main__":
    main()
