"""Files of other programs: JSON arrays and CSV, read in pieces; what is wrong with them; which is which."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import sqlite3
import tracemalloc
from itertools import chain, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.client.transfer.arrays import array_records
from kvstore.client.transfer.duplicates import KeysOfFile
from kvstore.client.transfer.foreign import foreign_records
from kvstore.client.transfer.lines import ExportWriter
from kvstore.client.transfer.objects import CONTENT_TYPE, parse_object
from kvstore.client.transfer.records import BadLine, Held, Record
from kvstore.client.transfer.source import Source
from kvstore.config import Limits
from kvstore.errors import ConfigError

TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
"""With quotes, backslashes, brackets and commas more often than chance has them."""
TRICKY = st.one_of(TEXT, st.text(st.sampled_from('"\\[]{},:\n'), max_size=6))
ANY_JSON = st.one_of(
    st.none(),
    st.integers(),
    TRICKY,
    st.lists(TRICKY, max_size=2),
    st.dictionaries(TRICKY, TRICKY, max_size=2),
)


def read(data: bytes, key: str = "id", name: str = "-") -> list[Record | BadLine]:
    return list(foreign_records(Source(io.BytesIO(data)), name, key))


def values(found: list[Record | BadLine]) -> dict[bytes, bytes]:
    return {each.key: each.siblings[0].value for each in found if isinstance(each, Record)}


def problems(found: list[Record | BadLine]) -> list[str]:
    return [str(each) for each in found if isinstance(each, BadLine)]


# arrays


@given(
    st.lists(st.dictionaries(TRICKY, ANY_JSON, max_size=2), max_size=4),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.integers(1, 9),
)
def test_elements_are_what_json_says_in_whatever_pieces_they_come(
    given_objects: list[dict[str, object]], indent: int | None, ascii_only: bool, size: int
) -> None:
    objects = [{**each, "id": i} for i, each in enumerate(given_objects)]
    texts = [json.dumps(each, indent=indent, ensure_ascii=ascii_only) for each in objects]
    data = f" [ {' , '.join(texts)} ] \n".encode()
    found = list(array_records((data[i : i + size] for i in range(0, len(data), size)), "id"))
    assert found == [
        Record(i, str(i - 1).encode(), (Held(text.encode(), CONTENT_TYPE),), unit="element")
        for i, text in enumerate(texts, 1)
    ]


@pytest.mark.parametrize(
    ("data", "keys", "said"),
    [
        (b"[]", 0, []),
        (b'\xef\xbb\xbf \n\n [{"id":1}]', 1, []),
        (b'[{"id":1},]', 1, ["element 2: is empty"]),
        (b'[,{"id":1}]', 1, ["element 1: is empty"]),
        (b'[{"id":1},7,{"id":2}]', 2, ["element 2: is not a JSON object"]),
        (b'[{"id":1},{"x":2}]', 1, ["element 2: has no field 'id'"]),
        (b'[{"id":NaN}]', 0, ["element 1: is not JSON: NaN is no JSON value"]),
        (b'[{"id":1}', 0, ["element 1: is cut off, or missing: the array has no end"]),
        (b'[{"id":1},"x]', 1, ["element 2: is cut off, or missing: the array has no end"]),
        (b'[{"id":1}] {"id":2}', 1, ["element 2: comes after the end of the array"]),
    ],
)
def test_what_is_wrong_with_an_array_is_said_by_element(data: bytes, keys: int, said: list[str]) -> None:
    found = read(data)
    assert (len(values(found)), problems(found)) == (keys, said)


def test_an_element_that_no_cluster_takes_is_not_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limits, "MAX_VALUE", 100)
    found = read(b'[{"id":1,"v":"%s"},{"id":2}]' % (b"v" * 1000))
    assert problems(found) == ["element 1: has more than 100 bytes"]
    assert values(found) == {b"2": b'{"id":2}'}


def test_an_element_without_an_end_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limits, "MAX_VALUE", 100)
    pieces = chain([b'[{"id":1,"v":"'], repeat(b"v" * 10_000, 1000))
    tracemalloc.start()
    try:
        found = list(array_records(pieces, "id"))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert problems(found) == ["element 1: is cut off, or missing: the array has no end"]
    assert most < 1_000_000


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"id":1,"v":[%s0]}\n{"id":2}\n' % (b"0," * 1000), "line 1: value: has more than 100 bytes"),
        (b'{"id":1}%s!\n{"id":2}\n' % (b" " * 1000), "line 1: value: has more than 100 bytes"),
        (b"id\n1%s\n2\n" % (b"," * 1000), "line 2: is not CSV: has more than 100 bytes"),
        (b'id\n1%s\n"\n2\n' % (b',"\n"' * 50), "line 2: is not CSV: has more than 100 bytes"),
    ],
    ids=["json", "what is behind json", "csv", "csv of many lines"],
)
def test_a_line_that_no_cluster_takes_is_not_parsed(
    data: bytes, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a list of Python it would take many times its bytes."""
    monkeypatch.setattr(Limits, "MAX_VALUE", 100)
    found = read(data)
    assert problems(found)[0] == said
    assert b"2" in values(found)


# nested keys


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (b'{"a":{"b":"x"}}', b"x"),
        (b'{"a":{"b":7}}', b"7"),
        (b'{"a.b":"whole","a":{"b":"x"}}', b"whole"),
        (b'{"a":{"b":{}}}', None),
        (b'{"a":["b"]}', None),
        (b'{"a":7}', None),
        (b'{"b":"x"}', None),
    ],
)
def test_a_key_may_stand_in_an_object_of_the_object(line: bytes, key: bytes | None) -> None:
    if key is None:
        with pytest.raises(BadLine, match=r"'a\.b'"):
            parse_object(1, line, "a.b")
    else:
        found = parse_object(1, line, "a.b")
        assert found is not None
        assert found.key == key


# tables


@given(
    st.lists(st.tuples(TRICKY.filter(bool), TRICKY), unique_by=lambda row: row[0].encode()),
    st.sampled_from(",;\t"),
    st.booleans(),
)
def test_rows_are_what_the_csv_module_says(rows: list[tuple[str, str]], delimiter: str, mark: bool) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(("id", "ä"))
    writer.writerows(rows)
    found = read(b"\xef\xbb\xbf" * mark + text.getvalue().encode())
    assert problems(found) == []
    assert {key.decode(): json.loads(value) for key, value in values(found).items()} == {
        key: {"id": key, "ä": value} for key, value in rows
    }


@pytest.mark.parametrize(
    ("data", "keys", "said"),
    [
        (b"id,v\n", 0, []),
        (b"\nid,v\n1,a\n\n2,b", 2, []),
        (
            b'id,v\n1,"two\nlines"\n2\n3,a,b\n4,d\n',
            2,
            ["line 4: has 1 fields: the header has 2", "line 5: has 3"],
        ),
        (b'id,v\n1,"a"b\n2,b\n', 1, ["line 2: is not CSV: ',' expected after '\"'"]),
        (b'id,v\n1,a\n2,"b\n', 1, ["line 3: is not CSV: unexpected end of data"]),
        (b"id,v\n1,\xff\n2,b\n", 1, ["line 2: is not UTF-8"]),
        (b"id,v\n,a\n", 0, ["line 2: key: has 0 bytes"]),
    ],
)
def test_what_is_wrong_with_a_table_is_said_by_line(data: bytes, keys: int, said: list[str]) -> None:
    found = read(data)
    assert len(values(found)) == keys
    assert len(problems(found)) == len(said)
    assert all(one.startswith(start) for one, start in zip(problems(found), said, strict=True))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"a,b\n1,2\n", "the header has no column 'id': it has 'a', 'b'"),
        (b"", "the header has no column 'id'"),
        (b"id,a,a\n1,2,3\n", "the header has the column 'a' more than once"),
        (b'"id\n', "the header is not CSV"),
        (
            b"id,v\r1,2\r",
            "the header is not CSV: a carriage return ends a line, or is in a field without quotes",
        ),
        (b"\xfe,b\n1,2\n", r"no column 'id': it has '\\\\xfe', 'b'"),
        (b",".join(b"c%d" % i for i in range(30)), "'c19' and 10 more$"),
    ],
)
def test_a_table_without_a_usable_header_is_refused_as_a_whole(data: bytes, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        read(data, name="x.CSV")


def test_a_field_may_be_as_long_as_a_value() -> None:
    found = read(b"id,v\n1,%s\n" % (b"v" * (1 << 20)), name="x.csv")
    assert [len(value) for value in values(found).values()] == [len('{"id":"1","v":""}') + (1 << 20)]


@pytest.mark.parametrize(
    ("name", "data", "key"),
    [
        ("-", b'{"id":"lines"}\n', b"lines"),
        ("x.json", b' [{"id":"array"}]', b"array"),
        ("-", b"v,id\n1,comma\n", b"comma"),
        ("-", b"v;id\n1;semicolon\n", b"semicolon"),
        ("x.tsv", b"v\tid\n1\ttab\n", b"tab"),
        ("x.csv", b"v;id\n1;named\n", b"named"),
        ("x.csv", b"[v,id\n1,bracket\n", b"bracket"),
    ],
)
def test_the_form_of_a_file_shows(name: str, data: bytes, key: bytes) -> None:
    assert list(values(read(data, name=name))) == [key]


# the list of keys


def test_no_room_for_the_list_of_keys_is_an_error_of_the_disk() -> None:
    keys = KeysOfFile()
    keys._database.execute("PRAGMA max_page_count = 3")
    with pytest.raises(OSError, match="database or disk is full") as caught:
        list_many(keys)
    assert "the list of keys in" in caught.value.filename
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    keys.close()


def list_many(keys: KeysOfFile) -> None:
    for i in range(10_000):
        keys.earlier(Record(i, b"k%d" % i, (Held(b"v"),)), keep=False)


@pytest.mark.parametrize(
    ("data", "what", "command"),
    [
        ('{"id": 1}\n'.encode("utf-16"), "UTF-16, not UTF-8", "iconv -f UTF-16 "),
        (b"\xfe\xff" + "id,v\n1,2\n".encode("utf-16-be"), "UTF-16, not UTF-8", "iconv -f UTF-16 "),
        ('{"id": 1}\n'.encode("utf-32"), "UTF-32, not UTF-8", "iconv -f UTF-32 "),
        (gzip.compress(b'{"id": 1}\n', mtime=0), "compressed with gzip", "gzip -dc FILE"),
        (bz2.compress(b'{"id": 1}\n'), "compressed with bzip2", "bzip2 -dc FILE"),
        (lzma.compress(b'{"id": 1}\n'), "compressed with xz", "xz -dc FILE"),
        (b"\x28\xb5\x2f\xfd....", "compressed with zstd", "zstd -dc FILE"),
        (b"PK\x03\x04....", "a zip archive", "unzip -p FILE"),
    ],
)
@pytest.mark.parametrize("name", ["file.jsonl", "file.csv"])
def test_a_file_that_is_no_utf_8_is_named_and_what_makes_it_some(
    data: bytes, what: str, command: str, name: str
) -> None:
    with pytest.raises(ConfigError, match=f"the file is {what}: pipe it in, `{command}"):
        read(data, name=name)


def test_numbers_may_have_as_many_digits_as_they_like() -> None:
    """Python refuses to read those of more than 4,300."""
    value = b'{"id": "a", "n": %s}' % (b"7" * 5000)
    assert values(read(value + b"\n")) == {b"a": value}
    key = b"1" * 4096
    assert [*values(read(b'{"id": %s}' % key))] == [key]
    (said,) = problems(read(b'{"id": %s}' % (b"1" * 5000)))
    assert said == "line 1: key: has 5000 bytes, must have 1 to 4096"


@pytest.mark.parametrize("data", [b'{\n "id": 1\n}\n', b'{"id": 1,', b'{"id": '])
def test_an_object_of_several_lines_is_told_from_other_mistakes(data: bytes) -> None:
    assert problems(read(data))[0] == "line 1: is not JSON: ends too early; one line is one whole object"


def test_an_export_is_told_from_files_of_other_programs() -> None:
    with pytest.raises(ConfigError, match="this is an export of kvctl: leave out --key"):
        read(ExportWriter().header("b"), key="key")
    assert values(read(b'{"kind": "export", "id": "a"}')) == {b"a": b'{"kind": "export", "id": "a"}'}
