"""Import and export of JSON Lines, over nodes that refuse, break and hold siblings."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest

from kvstore.client.synchronous import Bucket, connect
from kvstore.client.transfer import importing
from kvstore.client.transfer.exporting import Exporter
from kvstore.client.transfer.importing import Importer, ImportReport
from kvstore.client.transfer.objects import object_records, parse_object
from kvstore.client.transfer.records import BadLine
from kvstore.config import Limits
from kvstore.errors import (
    InvalidRequest,
    KVError,
    TooManySiblings,
    Unavailable,
    WriteTimeout,
)
from kvstore.protocol.client import ClientRequest, Failed, Put, Reply
from kvstore.protocol.scan import Scanned, ScannedKey
from kvstore.versions import UserKey
from tests.patience import PATIENCE
from tests.unit.client_node import FakeCluster, run


def lines(*records: object) -> list[bytes]:
    return [json.dumps(record).encode() + b"\n" for record in records]


def imported(bucket: Bucket, given: Iterable[bytes], skip_bad: bool = False) -> ImportReport:
    return Importer(bucket, PATIENCE).run(object_records(given, "id"), skip_bad)


def counts(report: ImportReport) -> tuple[int, int, int]:
    return report.imported, report.unchanged, report.bad.count


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"nonsense", "is not JSON"),
        (b'{"id": "\xff"}', "is not UTF-8"),
        (b"[" * 100_000, "is nested too deeply"),
        (b"[1]", "is not a JSON object"),
        (b"7", "is not a JSON object"),
        (b'{"key": "a"}', "has no field 'id'"),
        (b'{"id": null}', "is neither text nor a whole number"),
        (b'{"id": true}', "is neither text nor a whole number"),
        (b'{"id": 1.5}', "is neither text nor a whole number"),
        (b'{"id": ""}', "key: has 0 bytes"),
        (b'{"id": "%s"}' % (b"k" * 4097), "key: has 4097 bytes"),
        (b'{"id": "\\ud800"}', "surrogates not allowed"),
        (b'{"id": "a", "v": "%s"}' % (b"v" * Limits.MAX_VALUE), "value: has "),
        (b'{"id": "a", "v": NaN}', "NaN is no JSON value"),
        (b'{"id": "a", "v": [-Infinity]}', "-Infinity is no JSON value"),
        (b'\xef\xbb\xbf{"id": "a"}', "is not JSON"),
    ],
)
def test_a_line_that_cannot_be_imported_says_why(line: bytes, reason: str) -> None:
    with pytest.raises(BadLine, match=r"^line 7: .*") as caught:
        parse_object(7, line, "id")
    assert reason in str(caught.value)
    assert caught.value.number == 7


def test_a_line_is_stored_as_it_is_without_the_space_around_it() -> None:
    record = parse_object(3, b'  {"id":  7, "n": "\xc3\xbc"}\r\n', "id")
    assert record is not None
    assert (record.number, record.key) == (3, b"7")
    assert [held.value for held in record.siblings] == [b'{"id":  7, "n": "\xc3\xbc"}']
    assert parse_object(4, b" \r\n", "id") is None


def test_what_is_there_already_is_not_written_again(fake_cluster: FakeCluster, bucket: Bucket) -> None:
    given = lines(*({"id": f"k{i}"} for i in range(7)))
    assert counts(imported(bucket, given)) == (7, 0, 0)
    told: list[str] = []
    importer = Importer(bucket, PATIENCE, lambda record: told.append(record.key.decode()))
    assert counts(importer.run(object_records([*given, *lines({"id": "new"})], "id"))) == (1, 7, 0)
    assert sorted(told) == sorted([*(f"k{i}" for i in range(7)), "new"])
    assert len(fake_cluster.store.applied) == 8
    found = bucket.get("k3")
    assert found.siblings[0].value == b'{"id": "k3"}'
    assert found.siblings[0].content_type == "application/json"


def test_a_key_twice_in_a_file_ends_with_the_last_line(bucket: Bucket) -> None:
    report = imported(bucket, lines({"id": "a", "n": 1}, {"id": "b"}, {"id": "a", "n": 2}))
    assert counts(report) == (2, 0, 0)
    assert report.duplicates.first == ["line 3: has the key 'a' of line 1, and takes its place"]
    assert [s.value for s in bucket.get("a").siblings] == [b'{"id": "a", "n": 2}']


def test_siblings_are_written_over(bucket: Bucket) -> None:
    bucket.put("a", b'{"id": "a"}')
    bucket.put("a", b'{"id": "a"}', blind=True)
    assert len(bucket.get("a").siblings) == 2
    assert counts(imported(bucket, lines({"id": "a"}))) == (1, 0, 0)
    assert len(bucket.get("a").siblings) == 1


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_bad_line_stops_the_import_or_is_skipped(bucket: Bucket, skip_bad: bool) -> None:
    importer = Importer(bucket, PATIENCE)
    given = [*lines({"id": "a"}), b"\n", b"{]\n", *lines({"id": "b"}), b"[]\n"]
    if skip_bad:
        importer.run(object_records(given, "id"), skip_bad)
        assert [bad.split(":")[0] for bad in importer.report.bad.first] == ["line 3", "line 5"]
    else:
        with pytest.raises(BadLine, match="line 3: is not JSON"):
            importer.run(object_records(given, "id"), skip_bad)
    assert bool(bucket.get("a")) is True  # what came before it is stored
    assert bool(bucket.get("b")) is skip_bad
    assert importer.report.imported == 1 + skip_bad


def test_batches_are_bounded_in_number_and_in_bytes(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "_BATCH", 10)
    asked: list[int] = []
    get_many = bucket.get_many

    def counted(keys: dict[str, object]) -> object:
        asked.append(len(keys))
        return get_many(keys)

    monkeypatch.setattr(bucket, "get_many", counted)
    imported(bucket, lines(*({"id": f"k{i}"} for i in range(25))))
    assert asked == [10, 10, 5]
    asked.clear()
    monkeypatch.setattr(importing, "_BATCH_BYTES", 300)
    imported(bucket, lines(*({"id": f"l{i}", "v": "x" * 100} for i in range(7))))
    assert asked == [3, 3, 1]


def test_what_fails_for_a_moment_is_tried_again(fake_cluster: FakeCluster, bucket: Bucket) -> None:
    """Each node refuses for longer than the client tries by itself; keys are told once each."""
    for node in fake_cluster.nodes:
        node.refusals.extend([Unavailable(2, 1)] * 20)
    told: list[tuple[str, bytes]] = []
    importer = Importer(bucket, PATIENCE, lambda r: told.append((r.key.decode(), r.siblings[0].value)))
    report = importer.run(object_records(lines(*({"id": f"k{i}"} for i in range(5))), "id"))
    assert report.imported + report.unchanged == 5
    assert report.retried > 0
    assert sorted(told) == [(f"k{i}", b'{"id": "k%d"}' % i) for i in range(5)]


def test_a_write_whose_outcome_is_unknown_is_read_before_it_is_written_again(
    fake_cluster: FakeCluster, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    perform = fake_cluster.store.perform
    lost: list[ClientRequest] = []

    def performed(call: ClientRequest) -> Reply:
        reply = perform(call)
        if isinstance(call, Put) and not lost:
            lost.append(call)
            return Failed(WriteTimeout(1, 2))
        return reply

    monkeypatch.setattr(fake_cluster.store, "perform", performed)
    report = imported(bucket, lines({"id": "a"}))
    assert counts(report) == (0, 1, 0)
    assert report.retried == 1
    assert len(fake_cluster.store.applied) == 1


@pytest.mark.parametrize(
    ("error", "patience"),
    [
        (InvalidRequest("value", "is refused"), PATIENCE),
        (Unavailable(2, 1), 0.0),
        (TooManySiblings(101, 100), 0.0),
    ],
)
def test_what_has_no_chance_or_fails_for_too_long_is_raised(
    fake_cluster: FakeCluster,
    bucket: Bucket,
    error: InvalidRequest | Unavailable | TooManySiblings,
    patience: float,
) -> None:
    for node in fake_cluster.nodes:
        node.refusals.extend([error] * 1000)
    importer = Importer(bucket, patience)
    with pytest.raises(type(error)):
        importer.run(object_records(lines({"id": "a"}), "id"))
    assert (importer.report.imported, importer.report.retried) == (0, 0)
    assert fake_cluster.store.applied == []


def test_without_a_node_it_goes_on_until_its_patience_ends(fake_cluster: FakeCluster) -> None:
    with connect(fake_cluster.endpoints, timeout=0.05) as client:
        bucket = client.bucket("carts")
        run(fake_cluster.stop())
        importer = Importer(bucket, 0.1)
        with pytest.raises(KVError):  # which one depends on what the client was at when the nodes went
            importer.run(object_records(lines({"id": "a"}), "id"))
        assert importer.report.retried > 0


def test_plain_lines_of_an_export_are_what_import_takes_and_the_rest_is_named(bucket: Bucket) -> None:
    records = [{"id": f"k{i}", "n": i} for i in range(10)]
    imported(bucket, lines(*records))
    bucket.put("pretty", b'{\n  "id": "pretty"\r\n}')
    bucket.put("text", b"no JSON")
    bucket.put("list", b"[1]")
    bucket.put("nan", b'{"id": NaN}')
    bucket.put("deep", b'{"id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    bucket.put("twice", b'{"id": "twice"}')
    bucket.put("twice", b'{"id": "twice"}', blind=True)
    bucket.put(b"\xff", b"\xfe")
    bucket.put("gone", b"{}")
    bucket.delete("gone")
    exporter = Exporter(bucket, PATIENCE)
    exported = b"".join(exporter.objects()).splitlines(keepends=True)
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 and b"\r" not in line for line in exported)
    found = sorted(map(json.loads, exported), key=lambda record: str(record["id"]))
    assert found == [*records, {"id": "pretty"}]
    assert exporter.report.exported == 11
    left_out = [name.removesuffix(" is no single JSON object") for name in exporter.report.left_out.first]
    assert sorted(left_out) == ["'\\\\xff'", "'deep'", "'list'", "'nan'", "'text'", "'twice'"]


def test_what_is_deleted_after_it_was_listed_is_left_out(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("a", b"{}")
    page = Scanned((ScannedKey(UserKey(b"a"), large=True), ScannedKey(UserKey(b"b"), large=True)), b"")
    monkeypatch.setattr(bucket, "scan_page", lambda *_, **__: page)
    exporter = Exporter(bucket, PATIENCE)
    assert b"".join(exporter.objects()) == b"{}\n"
    assert (exporter.report.exported, exporter.report.left_out.count) == (1, 0)


@pytest.mark.parametrize(
    ("policy", "values", "named"),
    [
        ("last", {"1": "b", "x": "x"}, "line 2: has the key '1' of line 1, and takes its place"),
        ("first", {"1": "a", "x": "x"}, "line 2: has the key '1' of line 1, and is left out"),
    ],
)
def test_lines_with_one_key_are_counted_and_named(
    bucket: Bucket, policy: importing.OnDuplicate, values: dict[str, str], named: str
) -> None:
    """Text and a number, and one line that is there a second time as it was, which loses nothing."""
    given = lines({"id": 1, "v": "a"}, {"id": "1", "v": "b"}, {"id": "x", "v": "x"}, {"id": "x", "v": "x"})
    report = Importer(bucket, PATIENCE).run(object_records(given, "id"), on_duplicate=policy)
    assert counts(report) == (2, 1, 0)
    assert (report.duplicates.count, report.duplicates.first) == (1, [named])
    assert {key: json.loads(bucket.get(key).value or b"")["v"] for key in values} == values


def test_a_second_line_with_one_key_can_stop_it(bucket: Bucket) -> None:
    given = lines({"id": "a", "v": 1}, {"id": "a", "v": 2}, {"id": "b"})
    importer = Importer(bucket, PATIENCE)
    with pytest.raises(BadLine, match="line 2: has the key 'a' of line 1"):
        importer.run(object_records(given, "id"), on_duplicate="stop")
    assert bucket.get("a").value == b'{"id": "a", "v": 1}'
    assert not bucket.get("b")


def test_what_the_cluster_refuses_for_good_is_a_bad_line(
    fake_cluster: FakeCluster, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    perform = fake_cluster.store.perform

    def performed(call: ClientRequest) -> Reply:
        if isinstance(call, Put) and call.key == b"large":
            return Failed(InvalidRequest("value", "has 2 bytes, the limit is 1"))
        return perform(call)

    monkeypatch.setattr(fake_cluster.store, "perform", performed)
    report = imported(bucket, lines({"id": "a"}, {"id": "large"}, {"id": "b"}), skip_bad=True)
    assert counts(report) == (2, 0, 1)
    assert report.bad.first == ["line 2: value: has 2 bytes, the limit is 1"]
