"""Programs that tests run to their end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.patience import PATIENCE


def output_of(words: Sequence[str], directory: Path, **variables: str) -> str:
    """What a program prints that is run in a directory, with these variables set; it has to succeed."""
    # what `make test` tells its children is not for a `make` that a test runs
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    done = subprocess.run(
        words,
        cwd=directory,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=10 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout
