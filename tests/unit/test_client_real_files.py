"""Files that others made, of many shapes: imported, exported and imported again, each value is as it was."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from importlib.metadata import files
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pytest

from kvstore.client.synchronous import connect
from tests.patience import PATIENCE
from tests.unit.client_node import FakeCluster
from tests.unit.kvctl_calls import Kvctl

LINES = 300
"""Of a file that has more."""


class Shape(NamedTuple):
    """A file, how it is given to import, and where its keys are."""

    package: str
    ending: str
    form: str
    key: str


SHAPES = (
    Shape("airportsdata", "airports.csv", "csv", "icao"),
    Shape("airportsdata", "airports.csv", "lines", "icao"),
    Shape("airportsdata", "iata_macs.csv", "csv", "Airport Code"),
    Shape("matplotlib", "msft.csv", "csv", "Date"),
    Shape("matplotlib", "msft.csv", "semicolons", "Adj. Close*"),
    Shape("pycountry", "iso15924.json", "array", "alpha_4"),
    Shape("pycountry", "iso3166-1.json", "array", "numeric"),
    Shape("pycountry", "iso3166-2.json", "array", "code"),
    Shape("pycountry", "iso3166-3.json", "array", "alpha_4"),
    Shape("pycountry", "iso4217.json", "lines", "alpha_3"),
    Shape("pycountry", "iso639-3.json", "nested", "language.alpha_3"),
    Shape("pycountry", "iso639-5.json", "array", "name"),
    Shape("ruff", "ruff.cyclonedx.json", "lines", "bom-ref"),
)


def packaged(package: str, ending: str) -> str:
    found = [path for path in files(package) or () if path.name == ending]
    return Path(str(found[0].locate())).read_bytes().decode()


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))[:LINES]


def as_lines(objects: list[dict[str, str]]) -> str:
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in objects)


def given(shape: Shape) -> tuple[str, list[str]]:
    """The file to import, and the values that are to be there, in order."""
    text = packaged(shape.package, shape.ending)
    if shape.ending.endswith(".csv"):
        objects = rows(text)
        match shape.form:
            case "lines":
                text = as_lines(objects)
                return text, text.splitlines()
            case "semicolons":
                out = io.StringIO()
                writer = csv.DictWriter(out, list(objects[0]), delimiter=";", lineterminator="\n")
                writer.writeheader()
                writer.writerows(objects)
                text = "\ufeff" + out.getvalue()
            case _:
                text = "".join(text.splitlines(keepends=True)[: LINES + 1])
        return text, [json.dumps(each, ensure_ascii=False, separators=(",", ":")) for each in objects]
    found = json.loads(text)
    objects = next(value for value in found.values() if isinstance(value, list))[:LINES]
    match shape.form:
        case "array":
            # as it stands in the file, over several lines
            elements = list(islice(raw_elements(text), LINES))
            text = text[text.index("[") : text.index(elements[-1]) + len(elements[-1])] + "\n]\n"
            return text, elements
        case "nested":
            objects = [{"language": each} for each in objects]  # type: ignore[dict-item]
        case _:
            pass
    text = as_lines(objects)
    return text, text.split("\n")[:-1]


def raw_elements(text: str) -> Iterator[str]:
    """The elements of an array, as Python's decoder finds them."""
    decoder = json.JSONDecoder()
    at = text.index("[")
    while (at := text.find("{", at)) >= 0:
        _, end = decoder.raw_decode(text, at)
        yield text[at:end]
        at = end


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.ending}-{shape.form}")
def test_a_real_file_goes_in_and_out_byte_by_byte(
    shape: Shape, fake: Kvctl, fake_cluster: FakeCluster, tmp_path: Path
) -> None:
    text, values = given(shape)
    assert len(values) > 20
    source = tmp_path / f"in.{shape.form}"
    source.write_text(text, newline="")
    done = fake("import", source, "--key", shape.key, "--bucket", "one")
    twice = len(values) - len({key_of(value, shape.key) for value in values})
    assert f"imported {len(values) - twice:,}, unchanged 0, retried 0, failed 0" in done.out
    assert done.code == (5 if twice else 0)
    assert fake("export", "--bucket", "one", tmp_path / "backup").code == 0
    assert fake("import", tmp_path / "backup", "--bucket", "two").code == 0
    wanted = {key_of(value, shape.key): value.encode() for value in values}
    with connect(fake_cluster.endpoints, timeout=PATIENCE) as client:
        for name in ("one", "two"):
            found = client.bucket(name).get_many(list(wanted))
            assert {key: [s.value for s in result.siblings] for key, result in found.items()} == {
                key: [value] for key, value in wanted.items()
            }
    plain = fake("export", "--bucket", "two", "--plain", tmp_path / "plain")
    assert plain.code == 0
    assert sorted((tmp_path / "plain").read_bytes().split(b"\n")[:-1]) == sorted(
        value.replace(b"\n", b" ") for value in wanted.values()
    )


def key_of(value: str, path: str) -> str:
    found = json.loads(value)
    for name in [path] if path in found else path.split("."):
        found = found[name]
    return str(found)
