"""Histories in the forms of other checkers, each with a verdict that is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from jepsen.__main__ import main
from jepsen.checkers.linearizability import Linearizability
from jepsen.checkers.models import AppendList, AppendRegister, GrowSet, Model, Register, Transactions
from jepsen.formats import elle, knossos, porcupine
from jepsen.history import History

HERE = Path(__file__).parent / "jepsen"
VERDICTS: dict[str, tuple[str, str, bool]] = json.loads((HERE / "verdicts.json").read_text())
READERS: dict[str, Callable[[str], History]] = {
    "knossos": knossos.loads,
    "independent": partial(knossos.loads, independent=True),
    "elle": elle.loads,
    "log": porcupine.loads_log,
    "kv": porcupine.loads_kv,
}
MODELS: dict[str, Model] = {
    "register": Register(),
    "append": AppendRegister(),
    "set": GrowSet(),
    "list": AppendList(),
    "transactions": Transactions(),
}


@pytest.mark.parametrize("name", sorted(VERDICTS))
def test_the_verdict_is_the_known_one(name: str) -> None:
    form, model, expected = VERDICTS[name]
    history = READERS[form]((HERE / name).read_text())
    result = Linearizability(MODELS[model]).check(history)
    assert result.valid is expected, result.line()


@pytest.mark.parametrize("name", sorted(VERDICTS))
def test_check_finds_form_and_model_and_gives_the_known_verdict(name: str) -> None:
    done = CliRunner().invoke(main, ["check", str(HERE / name)])
    expected = VERDICTS[name][2]
    assert done.output.startswith(f"linearizability: {'valid' if expected else 'INVALID'} "), done.output
    assert done.exit_code == (0 if expected else 1)


def test_every_history_has_a_verdict() -> None:
    assert {p.name for p in HERE.iterdir()} - {"README.md", "verdicts.json"} == VERDICTS.keys()
