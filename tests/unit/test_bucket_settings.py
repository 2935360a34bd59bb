"""A setting of a bucket reaches every place where there are such settings: who forgets one is told which."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from dataclasses import Field, fields
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

import kvstore
from kvstore.config import BucketSettings, bucket_from_settings, parse_bucket
from kvstore.errors import ConfigError
from kvstore.kvctl.invocation import Invocation
from kvstore.kvctl.listing import buckets
from kvstore.ring import decode_state, encode_state, initial_state, parse_members
from kvstore.server.configuration import Configuration
from kvstore.server.main import kvnode
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.codec import UNITS
from kvstore.wire.ring import state_from_wire, state_to_wire

USUAL = BucketSettings("carts", n=4, r=3, w=3)
SETTINGS = [field for field in fields(BucketSettings) if field.name != "name"]

each_setting = pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)


def other_value(setting: Field[Any]) -> Any:
    """One that is not the default, and that nothing else stands for."""
    usual = getattr(USUAL, setting.name)
    if isinstance(usual, Enum):
        return next(member for member in type(usual) if member is not usual)
    return {"n": 5, "r": 4, "w": 4}.get(setting.name, 70 + SETTINGS.index(setting))


def written(value: Any) -> str:
    return str(value.value if isinstance(value, Enum) else value)


def unusual() -> BucketSettings:
    return BucketSettings("carts", **{setting.name: other_value(setting) for setting in SETTINGS})


@each_setting
def test_it_can_be_given_as_text(setting: Field[Any]) -> None:
    """To kvnode and kvctl, in the environment and in a file."""
    value = other_value(setting)
    assert getattr(parse_bucket(f"carts:{setting.name}={written(value)}", 4), setting.name) == value
    assert getattr(bucket_from_settings("carts", {setting.name: written(value)}, 4), setting.name) == value


@each_setting
def test_the_help_names_it(setting: Field[Any]) -> None:
    text = "".join(CliRunner().invoke(kvnode, ["--help"]).output.split())
    assert f"{setting.name}=" in text[text.index("Settingsofabucket:") :]


@each_setting
def test_its_meaning_is_told(setting: Field[Any]) -> None:
    assert f"`{setting.name}`" in (BucketSettings.__doc__ or "")


def test_clients_and_a_restart_find_it_again() -> None:
    members = parse_members(",".join(f"n{i}=h:{i}" for i in range(1, 6)))
    state = initial_state("", members, 4, 5, [unusual()])
    message = pb.GetRingResponse.FromString(state_to_wire(state).SerializeToString())
    assert state_from_wire(message) == state
    assert decode_state(encode_state(state)) == state


def test_the_message_has_no_field_that_is_no_setting() -> None:
    units = {name.removesuffix("_s") for name in pb.BucketConfig.DESCRIPTOR.fields_by_name}
    assert units == {"name", *USUAL.values}


@each_setting
def test_nodes_compare_it_and_kvctl_shows_it(
    setting: Field[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = initial_state("", parse_members(",".join(f"n{i}=h:{i}" for i in range(1, 6))), 4, 5, [unusual()])
    text = written(other_value(setting))
    assert f"{setting.name}={text}" in Configuration().texts(state)["bucket carts"].split(",")

    client = SimpleNamespace(ring=lambda: state)
    monkeypatch.setattr(Invocation, "connect", lambda _: nullcontext(client))
    buckets.main([], standalone_mode=False, obj=Invocation(None, 1.0, "json"))
    (shown, _) = json.loads(capsys.readouterr().out)
    assert text in {str(shown.get(setting.name + unit)) for unit in UNITS}


@each_setting
def test_it_is_acted_by(setting: Field[Any]) -> None:
    """Something in the core reads it from a bucket's settings."""
    core = [
        path
        for part in ("protocol", "quorum", "node")
        for path in (Path(kvstore.__file__).parent / part).rglob("*.py")
    ]
    use = re.compile(rf"\bbucket(?:\([a-z.]+\))?\.{setting.name}\b")
    assert [path for path in core if use.search(path.read_text())]


@each_setting
def test_what_it_cannot_be_is_refused(setting: Field[Any]) -> None:
    with pytest.raises(ConfigError, match=setting.name):
        parse_bucket(f"carts:{setting.name}=-1")
