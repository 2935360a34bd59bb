"""Shell scripts of users that once lost data, or ended in a traceback or with a misleading code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvstore.local.cluster import LocalCluster
from tests.patience import PATIENCE

CASES = {
    "an export can be imported again": r"""
        kvctl put c6 user:1 '{"items":3}'; kvctl put c6 user:2 '{"items":4}'
        kvctl export --bucket c6 out.jsonl && grep -q user:1 out.jsonl && grep -q user:2 out.jsonl
        kvctl import out.jsonl --bucket c6b && test "$(kvctl get c6b user:2)" = '{"items":4}'""",
    "a byte order mark is no part of a value": r"""
        printf '\357\273\277{"id":"a"}\r\n{"id":"b"}\r\n' > bom.jsonl
        kvctl import bom.jsonl --key id --bucket c8; test "$(kvctl get c8 a --raw | head -c1)" = '{'""",
    "a value too deep for JSON is named": r"""
        python3 -c "print('{\"id\":\"deep\",\"v\":'+'['*100000+']'*100000+'}')" > deep.json
        kvctl put c9 deep --file deep.json; kvctl put c9 other '{"id":"other"}'
        kvctl export --bucket c9 - > out 2> said; test $? -eq 5
        grep -q "'deep'" said && grep -q other out
        kvctl import out --bucket c9b; kvctl get c9b deep --raw | cmp - deep.json""",
    "a value too deep for JSON is no JSON line": r"""
        python3 -c "print('{\"id\":\"deep\",\"v\":'+'['*100000+']'*100000+'}')" > deep.json
        kvctl put c9p deep --file deep.json; kvctl put c9p other '{"id":"other"}'
        kvctl export --plain --bucket c9p - > out; test $? -eq 5
        test "$(cat out)" = '{"id":"other"}'""",
    "1 means that there is no value": r"""
        kvctl put c13 k v
        kvctl get c13 k > /dev/full; test $? -eq 7
        kvctl get c13 none; test $? -eq 1
        kvctl import - --key id --bucket c13 <&- ; test $? -eq 2""",
    "bytes are the same in a pipe": r"""
        kvctl put c14 k "$(printf 'a\033[31mred\033[0m')"; kvctl get c14 k | od -c | grep -q 033""",
    "1 and '1' are one key": r"""
        printf '{"id":1,"v":"a"}\n{"id":"1","v":"b"}\n' > two
        kvctl import two --key id --bucket c15 > o; test $? -eq 5
        ! grep -q 'imported 2,' o && grep -q 'duplicates 1' o""",
    "a key that is not UTF-8 has a name": r"""
        kvctl ring --key c18 "$(printf '\377\376')"; test $? -eq 2
        kvctl put c18 --key-hex fffe value && test "$(kvctl get c18 --key-hex fffe)" = value
        kvctl ring --key-hex --key c18 fffe""",
    "NaN is no JSON": r"""
        printf '{"id":"n","v":NaN}\n' | kvctl import - --key id --bucket c20 2> said; test $? -eq 5
        grep -q NaN said""",
}
"""What is to hold, and how a user finds out; a line that does not end with 0 ends the script."""


def run(script: str, cluster: LocalCluster, directory: Path) -> subprocess.CompletedProcess[str]:
    commands = directory / "kvctl"
    commands.write_text(f'#!/bin/sh\nexec {sys.executable} -m kvstore.kvctl.main "$@"\n')
    commands.chmod(0o700)
    environment = {
        **os.environ,
        "PATH": f"{directory}:{os.environ['PATH']}",
        "KVCTL_ENDPOINTS": cluster.endpoints,
        "PYTHONPATH": os.getcwd(),
    }
    return subprocess.run(
        ["sh", "-c", script],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=5 * PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("case", CASES)
def test_a_users_script_ends_as_it_should(case: str, shared_cluster: LocalCluster, tmp_path: Path) -> None:
    lines = [line.strip() for line in CASES[case].strip().splitlines()]
    script = "\n".join(f"{line} || {{ echo failed: line {i}; exit 99; }}" for i, line in enumerate(lines, 1))
    done = run(script, shared_cluster, tmp_path)
    assert done.returncode == 0, (done.stdout[-300:], done.stderr[-300:])
    assert "Traceback" not in done.stderr
