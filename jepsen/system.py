"""Programs of the system that a run needs: started, waited for, their failures in one line."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

_SECONDS = 30.0


class CommandFailed(Exception):
    """A program of the system failed; the message has what it wrote to standard error."""


def run(*command: str | Path, text: str = "") -> str:
    """Run a program to its end, with `text` as its input; returns what it printed. Raises CommandFailed."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode != 0:
        raise CommandFailed(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def missing(*programs: str) -> str:
    """Why these programs cannot be used as root: not root, or not installed; empty if they can."""
    if os.geteuid() != 0:
        return "not root"
    absent = [program for program in programs if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""
