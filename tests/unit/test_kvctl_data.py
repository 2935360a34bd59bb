"""kvctl data on real files: good and damaged stores, exit codes, and that nothing is changed."""

from __future__ import annotations

import base64
import errno
import json
from pathlib import Path
from typing import Any

import pytest

from kvstore.kvctl.records import record
from kvstore.lsm import Compaction, Engine, Options
from kvstore.lsm.messages import TableInfo, table_name
from kvstore.lsm.sstable import FOOTER_BYTES
from kvstore.lsm.stopped import read_state
from kvstore.lsm.table_file import TableFile
from kvstore.quorum.context_keys import CONTEXT_KEYS
from kvstore.quorum.hints import hint_key
from kvstore.server.data_directory import IDENTITY, claim
from kvstore.server.identity import Identity
from kvstore.store import DiskFileSystem
from kvstore.versions import Dot, InternalKey, Sibling, Version, encode_version
from tests.plain import data_key, token
from tests.unit.kvctl_calls import Done, Kvctl

OPTIONS = Options(block_bytes=600, tier_tables=100, slow_tables=200, max_tables=300)
DOT = Dot("n1.0.abc", 7)
IDENTITY_OF_N1 = Identity("n1", "c1", 256, 1, {"n1": ""}, {})


def internal(bucket: str, key: bytes) -> bytes:
    return data_key(token(bucket, key), bucket, key)


def version(*values: bytes | None, expiry: int = 0) -> bytes:
    dots = [Dot(f"n{i}.0.abc", 7) for i, _ in enumerate(values, 1)]
    siblings = [
        Sibling(d, v, 1_700_000_000_000 << 16, expiry, "text/plain")
        for d, v in zip(dots, values, strict=True)
    ]
    return encode_version(Version(tuple(dots), tuple(siblings)))


def fill(directory: Path, options: Options = OPTIONS) -> Path:
    """A node's data directory as a stop leaves it: two tables, and a log."""
    engine = Engine.open(DiskFileSystem(), str(claim(directory, IDENTITY_OF_N1)), options)
    for half in (0, 1):
        engine.write([(internal("carts", b"user:%d" % i), version(b"%d" % i)) for i in range(half, 200, 2)])
        engine.flush()
    engine.write(
        [(internal("carts", b"user:1"), version(b"old", None)), (b"n/incarnation", b"\0" * 7 + b"\3")]
    )
    engine.write([(hint_key("n2", InternalKey(internal("other", b"\xff"))), version(b"\xfe", expiry=5))])
    engine.write([(internal("carts", b"user:%d" % i), None) for i in range(100, 200)])
    engine.close()
    return directory


@pytest.fixture
def node(tmp_path: Path) -> Path:
    return fill(tmp_path / "node")


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def table_of(node: Path) -> tuple[Path, TableInfo]:
    info = next(iter(read_state(DiskFileSystem(), str(node / "engine")).tables.values()))
    return node / "engine" / table_name(info.number), info


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 16
    path.write_bytes(data)


def segment(node: Path) -> Path:
    (path,) = (node / "engine").glob("*.wal")
    return path


# verify


def test_a_good_store_is_verified_and_left_alone(kvctl: Kvctl, node: Path) -> None:
    before = contents(node)
    done = kvctl("data", "verify", node)
    size = sum(map(len, before.values())) - len(before[str(node / IDENTITY)])
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("verified 5 files, ")
    assert done.out.endswith(f" blocks, {size:,} bytes, 303 entries: 0 problems, 0 notes\n")
    report = json.loads(kvctl("-o", "json", "data", "verify", node).out)
    assert (report["bytes"], report["entries"], report["problems"]) == (size, 303, [])
    assert contents(node) == before


def test_a_flipped_bit_is_named_with_file_block_and_keys(kvctl: Kvctl, node: Path) -> None:
    path, info = table_of(node)
    table = TableFile(DiskFileSystem(), str(node / "engine"), info)
    places = list(table.read_index().places())
    regions = [(offset, length) for offset, length, _ in places[1:2]] + [*table.other_places()]
    table.close()
    for offset, length in regions:
        flip(path, offset + length // 2)
        before = contents(node)
        done = kvctl("data", "verify", node)
        assert done.code == 6
        problem, summary = done.out.splitlines()
        assert problem.startswith(
            f"{path.name}: block at {offset}: checksum does not match; keys from carts/user:"
        )
        assert summary.endswith("1 problems, 0 notes")
        (found,) = json.loads(kvctl("-o", "json", "data", "verify", node).out)["problems"]
        assert (found["file"], found["offset"], found["kind"]) == (path.name, offset, "damaged")
        first, last = found["keys"]
        assert {first["bucket"], last["bucket"]} == {"carts"}
        expected = (places[0][2], places[1][2]) if offset == places[1][0] else (info.smallest, info.largest)
        assert [bytes.fromhex(k["token"]) for k in (first, last)] == [key[1:9] for key in expected]
        assert contents(node) == before
        flip(path, offset + length // 2)
    assert kvctl("data", "verify", node).code == 0


@pytest.mark.parametrize(
    ("region", "what"),
    [
        ("footer", ".sst: its footer is damaged; keys from carts/"),
        ("record", ".wal: "),
        ("edit", "MANIFEST-00000001: the edit at byte 25 is damaged"),
        ("current", "CURRENT: names "),
    ],
)
def test_a_flipped_bit_elsewhere(kvctl: Kvctl, node: Path, region: str, what: str) -> None:
    path, _ = table_of(node)
    places = {
        "footer": (path, path.stat().st_size - FOOTER_BYTES + 3),
        "record": (segment(node), 50),
        "edit": (node / "engine" / "MANIFEST-00000001", 30),
        "current": (node / "engine" / "CURRENT", 3),
    }
    flip(*places[region])
    done = kvctl("data", "verify", node)
    assert done.code == 6
    assert what in done.out
    assert done.err == ""


def test_what_a_crash_leaves_is_a_note_and_no_problem(kvctl: Kvctl, node: Path) -> None:
    with segment(node).open("ab") as log:
        log.write(b"\0" * 40)
    (node / "engine" / "00000099.sst").write_bytes(b"half a table")
    done = kvctl("data", "verify", node)
    assert done.code == 0
    torn, leftover, summary = done.out.splitlines()
    assert torn.startswith(f"note: {segment(node).name}: 40 bytes at ")
    assert leftover == "note: 00000099.sst: is not part of the store: the next start removes it"
    assert summary.endswith("0 problems, 2 notes")
    (node / "engine" / "letter.txt").write_text("mine")
    assert kvctl("data", "verify", node).code == 6


def test_a_checkpoint_is_verified_where_it_lies(kvctl: Kvctl, node: Path, tmp_path: Path) -> None:
    engine = Engine.open(DiskFileSystem(), str(node / "engine"), OPTIONS)
    engine.checkpoint(str(tmp_path / "copy"))
    engine.close()
    assert kvctl("data", "verify", tmp_path / "copy").code == 0
    assert kvctl("data", "dump", tmp_path / "copy", "--limit", 3).out.count("\n") == 3


# dump


def dumped(done: Done) -> list[dict[str, Any]]:
    assert (done.code, done.err) == (0, "")
    records = [json.loads(line) for line in done.out.splitlines()]
    return [record for record in records if record.get("kind") not in ("identity", "end")]


def test_dump_shows_data_hints_and_the_nodes_own(kvctl: Kvctl, node: Path) -> None:
    before = contents(node)
    records = dumped(kvctl("data", "dump", node))
    assert contents(node) == before
    data = {r["key"]: r for r in records if r["kind"] == "data"}
    assert len(data) == 100
    assert [r["token"] for r in records[:100]] == sorted(r["token"] for r in data.values())
    assert json.loads(kvctl("data", "dump", node).out.splitlines()[-1]) == {"kind": "end", "records": 102}
    live, tombstone = data["user:1"]["siblings"]
    assert live == {
        "value": "old",
        "dot": ["n1.0.abc", 7],
        "content_type": "text/plain",
        "time_ms": 1_700_000_000_000,
        "expiry_ms": None,
    }
    assert tombstone["deleted"] is True
    assert data["user:1"]["context"] == {"n1.0.abc": 7, "n2.0.abc": 7}
    hint, own = records[100:]
    assert (hint["kind"], hint["target"], hint["bucket"], hint["key_base64"]) == (
        "hint",
        "n2",
        "other",
        "/w==",
    )
    assert hint["siblings"][0]["value_base64"] == "/g=="
    assert hint["siblings"][0]["expiry_ms"] == 5
    assert own == {"kind": "node", "name": "incarnation", "value_base64": "AAAAAAAAAAM="}


def test_dump_keeps_the_keys_that_contexts_are_signed_with_to_itself() -> None:
    own = record(CONTEXT_KEYS + b"01234567", b"secret of the cluster")
    assert own == {"kind": "node", "name": "context-key/01234567", "value": None}


def test_dump_can_be_narrowed(kvctl: Kvctl, node: Path) -> None:
    assert [r["kind"] for r in dumped(kvctl("data", "dump", node, "--bucket", "other"))] == ["hint"]
    assert len(dumped(kvctl("data", "dump", node, "--bucket", "carts", "--limit", 7))) == 7
    assert dumped(kvctl("data", "dump", node, "--limit", 0)) == []
    first = dumped(kvctl("data", "dump", node, "--raw", "--limit", 1))[0]
    assert set(first) == {"key_base64", "value_base64"}
    assert base64.b64decode(first["key_base64"])[:1] == b"d"
    assert kvctl("data", "dump", node, "--raw", "--bucket", "carts").code == 2


@pytest.mark.parametrize("raw", [(), ("--raw",)])
def test_what_is_dumped_can_be_loaded(kvctl: Kvctl, node: Path, tmp_path: Path, raw: tuple[str, ...]) -> None:
    engine = Engine.open(DiskFileSystem(), str(node / "engine"), OPTIONS)
    late = Sibling(DOT, b"late", (1_700_000_000_000 << 16) + 3, 1_700_000_000_000)
    engine.write([(internal("b", b"late"), encode_version(Version((DOT,), (late,))))])
    engine.write(
        [(CONTEXT_KEYS + b"01", b"secret"), (internal("b", b"damaged"), b"\x09x"), (b"odd", b"\xff")]
    )
    engine.close()
    dumped_before = kvctl("data", "dump", *raw, node)
    (tmp_path / "dump").write_text(dumped_before.out)
    (tmp_path / "new").mkdir()
    done = kvctl("data", "load", tmp_path / "new", tmp_path / "dump")
    secrets = "" if raw else "kvctl: 1 keys of contexts are not in the dump: the node takes those of others\n"
    assert done == Done(0, f"loaded {106 if raw else 105} records\n", secrets)
    assert kvctl("data", "verify", tmp_path / "new").code == 0
    without = [r for r in dumped(dumped_before) if "value" in r or r.get("value_base64") or "siblings" in r]
    again = dumped(kvctl("data", "dump", *raw, tmp_path / "new"))
    assert again == [r for r in without if not r.get("name", "").startswith("context-key/") or raw]
    claim(tmp_path / "new", IDENTITY_OF_N1)  # it is this node's, as before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dump", "new", "node"]


def test_a_store_of_no_node_is_loaded_as_one(kvctl: Kvctl, node: Path, tmp_path: Path) -> None:
    engine = Engine.open(DiskFileSystem(), str(node / "engine"), OPTIONS)
    engine.checkpoint(str(tmp_path / "copy"))
    engine.close()
    (tmp_path / "dump").write_text(kvctl("data", "dump", tmp_path / "copy").out)
    assert kvctl("data", "load", tmp_path / "new" / "below", tmp_path / "dump").code == 0
    assert kvctl("data", "dump", tmp_path / "new" / "below").out == (tmp_path / "dump").read_text()


TOKEN = b"%016x" % token("carts", b"user:1")
DUMPED = b'{"kind":"data","token":"' + TOKEN + b'","bucket":"carts","key":"user:1","context":{"a":1},'
OTHER = b"%016x" % token("CARTS", b"user:1")
HEAD = DUMPED + b'"siblings":[{"value":"v","dot":["a",1],"time_ms":1}]}\n'


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (b"", "line 1: is missing: the dump is cut off before its end"),
        (b'{"kind":"end","records":1}\n', "line 1: says that the dump has 1 records: it has 0"),
        (b'{"kind":"end","records":0}\n{"kind":"end","records":0}\n', "line 2: comes after the end"),
        (b"nonsense", "line 1: is no line of a dump"),
        (b"\xff", "line 1: is no line of a dump"),
        (b"[" * 100_000, "line 1: is no line of a dump"),
        (b'{"kind":"odd"}\n', "line 1: is of the kind 'odd', which no dump has"),
        (b'{"key_base64":"eA=="}\n', "line 1: needs key_base64 and value_base64"),
        (b'{"key_base64":"x","value_base64":""}\n', "line 1: is no line of a dump"),
        (b'{"kind":"data","token":"1","bucket":"b","key":"k"}\n', "has the token 1: that of its key is"),
        (
            HEAD.replace(TOKEN, OTHER).replace(b"carts", b"CARTS"),
            "has no key of the kind 'data'",
        ),
        (HEAD.replace(b'"key":"user:1"', b'"x":1'), "unknown field"),
        (HEAD.replace(b'"key":"user:1",', b""), "needs key or key_base64, one of them"),
        (HEAD.replace(b'["a",1]', b'["a",2]'), "its context does not cover one of its siblings"),
        (HEAD.replace(b'["a",1]', b'["a",0]'), "line 1: "),
        (HEAD.replace(b'"value":"v",', b""), "needs value or value_base64, one of them"),
        (HEAD.replace(b'"context":{"a":1},', b""), "needs a context"),
        (HEAD.replace(b'"time_ms":1', b'"time_ms":-1'), "line 1: "),
        (b'{"kind":"identity","identity":{"format":4}}\n{"kind":"end","records":0}\n', "is of format 4"),
    ],
)
def test_what_is_no_dump_makes_nothing(kvctl: Kvctl, tmp_path: Path, lines: bytes, reason: str) -> None:
    (tmp_path / "dump").write_bytes(lines)
    done = kvctl("data", "load", tmp_path / "new", tmp_path / "dump")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert reason in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["dump"]


def test_nothing_is_loaded_over_what_is_there(kvctl: Kvctl, node: Path, tmp_path: Path) -> None:
    (tmp_path / "dump").write_text(kvctl("data", "dump", node).out)
    before = contents(node)
    for there in (node, tmp_path / "dump"):
        done = kvctl("data", "load", there, tmp_path / "dump")
        assert (done.code, "is there already" in done.err) == (2, True)
    assert contents(node) == before


def test_a_circle_of_links_is_one_line(kvctl: Kvctl, node: Path, tmp_path: Path) -> None:
    (tmp_path / "dump").write_text(kvctl("data", "dump", node).out)
    (tmp_path / "circle").symlink_to("circle")
    done = kvctl("data", "load", tmp_path / "circle", tmp_path / "dump")
    assert (done.code, done.out, done.err.count("\n")) == (6, "", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["circle", "dump", node.name]


def test_records_that_are_none_of_a_node() -> None:
    assert record(b"dog", b"v") == {"kind": "unknown", "key_base64": "ZG9n", "value_base64": "dg=="}
    for key in (b"", b"d" + b"\xff" * 9 + b"\0", b"h\xff\0x", b"hn2\0dog", internal("b", b"k")[:-1], b"n"):
        assert record(key, b"")["kind"] == "unknown"
    damaged = record(internal("b", b"k"), b"\x09rubbish")
    assert (damaged["key"], damaged["value_base64"]) == ("k", "CXJ1YmJpc2g=")
    assert "format" in str(damaged["damaged"])


# compact


def test_compact_keeps_the_content_and_frees_the_rest(kvctl: Kvctl, node: Path) -> None:
    content = kvctl("data", "dump", node).out
    done = kvctl("-o", "json", "data", "compact", node)
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert (found["before"]["tables"], found["after"]["tables"]) == (3, 1)
    assert found["after"]["bytes"] < found["before"]["bytes"]
    assert kvctl("data", "dump", node).out == content
    assert kvctl("data", "verify", node).code == 0
    again = kvctl("data", "compact", node)
    assert again.out.startswith("before 1 tables, ")
    assert kvctl("data", "dump", node).out == content


def test_compact_keeps_levels(kvctl: Kvctl, tmp_path: Path) -> None:
    options = Options(compaction=Compaction.LEVELED)
    node = fill(tmp_path / "node", options)
    engine = Engine.open(DiskFileSystem(), str(node / "engine"), options)
    engine.maintenance.compact()
    engine.write([(b"n/x", b"")])
    engine.close()
    assert kvctl("data", "compact", node).code == 0
    tables = read_state(DiskFileSystem(), str(node / "engine")).tables.values()
    assert [info.level for info in tables] == [1]


def test_compact_of_a_damaged_store_leaves_the_tables(kvctl: Kvctl, node: Path) -> None:
    path, _ = table_of(node)
    flip(path, 100)
    damaged = path.read_bytes()
    done = kvctl("data", "compact", node)
    assert (done.code, done.out) == (6, "")
    assert done.err == f"kvctl: {path}: block at 0: checksum does not match\n"
    assert path.read_bytes() == damaged
    assert kvctl("data", "dump", node).code == 6


# what is refused

VERBS = ["verify", "dump", "compact"]


def refused(kvctl: Kvctl, verb: str, directory: Path, code: int, reason: str) -> None:
    before = contents(directory)
    done = kvctl("data", verb, directory)
    said = done.err if verb != "verify" or code == 2 else done.out
    assert done.code == code, done
    assert reason in said
    assert said.count("\n") == (1 if said is done.err else 2)
    assert contents(directory) == before


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_no_store(kvctl: Kvctl, verb: str, tmp_path: Path) -> None:
    refused(kvctl, verb, tmp_path / "nowhere", 2, "is no directory")
    refused(kvctl, verb, tmp_path, 2, "is neither a node's data directory nor a store")
    (tmp_path / "engine").mkdir()
    refused(kvctl, verb, tmp_path, 6, "CURRENT: is missing: this is no store")


@pytest.mark.parametrize("verb", VERBS)
def test_a_running_node(kvctl: Kvctl, verb: str, node: Path) -> None:
    engine = Engine.open(DiskFileSystem(), str(node / "engine"))
    refused(kvctl, verb, node, 2, "LOCK is locked: another process uses this directory")
    engine.close()


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("file", ["table", "log", "manifest"])
def test_a_newer_format(kvctl: Kvctl, verb: str, file: str, node: Path) -> None:
    table, log, manifest = table_of(node)[0], segment(node), node / "engine" / "MANIFEST-00000001"
    path = {"table": table, "log": log, "manifest": manifest}[file]
    flip(path, -1 if file == "table" else 7)
    refused(kvctl, verb, node, 6, "of format 18, this program reads 2")


@pytest.mark.parametrize("verb", VERBS)
def test_a_manifest_that_is_damaged(kvctl: Kvctl, verb: str, node: Path) -> None:
    flip(node / "engine" / "MANIFEST-00000001", 30)
    refused(kvctl, verb, node, 6, "the edit at byte 25 is damaged")
    (node / IDENTITY).write_text('{"format": 4, "node": "n1", "cluster_id": "c1"}')
    refused(kvctl, verb, node, 2, "is of format 4, this program knows formats 1 to 3")


@pytest.mark.parametrize("verb", VERBS)
def test_a_directory_that_may_not_be_read(
    kvctl: Kvctl, verb: str, node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: DiskFileSystem, path: str) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied", path)  # as root nothing else would

    monkeypatch.setattr(DiskFileSystem, "list", refuse)
    done = kvctl("data", verb, node)
    assert done == (6, "", f"kvctl: {node}/engine: Permission denied\n")


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example(kvctl: Kvctl, verb: str) -> None:
    done = kvctl("data", verb, "--help")
    assert done.code == 0
    assert f"kvctl data {verb} /var/lib/kvstore" in done.out
