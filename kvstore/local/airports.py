"""`make airports`: airports.jsonl, the file of the examples, made of the package airportsdata."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import airportsdata


def write_airports(file: Path) -> int:
    """Write the world's airports as JSON Lines, each with its `icao`; returns how many they are."""
    airports = airportsdata.load("ICAO")
    with file.open("w", encoding="utf-8") as out:
        for airport in airports.values():
            out.write(json.dumps(airport, ensure_ascii=False) + "\n")
    return len(airports)


if __name__ == "__main__":
    print(f"{write_airports(Path(sys.argv[1])):,} airports are in {sys.argv[1]}")
