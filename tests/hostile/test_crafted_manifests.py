"""A manifest whose checksums are right and whose numbers are not: the store opens, or says what is wrong."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kvstore.errors import KVError, StorageError
from kvstore.lsm import Engine, MemoryFileSystem
from kvstore.lsm.manifest import MAGIC, Edit, StoreState, current_manifest, read_edits
from kvstore.lsm.messages import TableInfo
from kvstore.lsm.record import encode_record
from kvstore.lsm.verify import verify
from kvstore.lsm.whole_files import read_file

ENDS: tuple[Any, ...] = (
    0,
    1,
    -1,
    2**32,
    2**62 - 2**20,
    2**62 + 1,
    2**63 - 1,
    2**64 - 1,
    None,
    "",
    b"",
    [],
    float("nan"),
)
"""For every field in turn, whatever its type is: the file may hold anything."""

FIELDS = [
    *(pytest.param("edit", i, id=f"edit {name}") for i, name in enumerate(Edit.__struct_fields__)),
    *(pytest.param("table", i, id=f"table {name}") for i, name in enumerate(TableInfo.__struct_fields__)),
]


def stored() -> MemoryFileSystem:
    """A store with one table, and something in its log."""
    fs = MemoryFileSystem()
    for value in (b"1", b"2"):
        engine = Engine.open(fs, "data")
        engine.write([(b"key" + value, value)])
        engine.sync()
        engine.close()
    return fs


def crafted(record: str, position: int, value: Any) -> MemoryFileSystem:
    fs = stored()
    path = f"data/{current_manifest(fs, 'data')}"
    state = StoreState()
    for each in read_edits(fs, path):
        state.apply(each)
    edit = msgspec.to_builtins(state.everything(), builtin_types=(bytes,))
    edit[2] = list(map(list, edit[2]))
    (edit if record == "edit" else edit[2][0])[position] = value
    file = fs.create(path)
    file.append(MAGIC + encode_record(msgspec.msgpack.encode(edit)))
    file.sync()
    return fs


@pytest.mark.parametrize("value", ENDS, ids=repr)
@pytest.mark.parametrize(("record", "position"), FIELDS)
def test_every_field_of_a_manifest_at_its_ends_is_taken_or_refused_with_a_type(
    record: str, position: int, value: Any
) -> None:
    """An OverflowError escaped: a number that the next file, or a record of the log, has no room for."""
    fs = crafted(record, position, value)
    before = read_file(fs, "data/CURRENT")
    list(verify(fs, "data"))
    try:
        engine = Engine.open(fs, "data")
    except StorageError:
        assert read_file(fs, "data/CURRENT") == before, "what is refused is left as it is"
        return
    try:
        engine.write([(b"after", b"3")])
        engine.sync()
        for _ in range(2):
            for job in engine.take_jobs():
                engine.job_failed(job)
        assert engine.get(b"after") == b"3"
    except KVError:
        pass
    finally:
        engine.close()
    assert Engine.open(fs, "data").get(b"after") == b"3"
