"""Exports that hold every key exactly: their lines, what is wrong with a file, and the way back."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kvstore.client.synchronous import Bucket
from kvstore.client.transfer import records
from kvstore.client.transfer.exporting import Exporter
from kvstore.client.transfer.importing import Importer, ImportReport
from kvstore.client.transfer.lines import ExportReader, ExportWriter
from kvstore.client.transfer.records import BadLine, Held, Record
from kvstore.client.transfer.source import Source
from kvstore.errors import ConfigError, KVError, TooManySiblings, Unavailable, VersionTooLarge
from kvstore.protocol.client import ClientRequest, Failed, Put, Reply
from tests.patience import PATIENCE
from tests.unit.client_node import FakeCluster

HOUR = 3600


def contents(bucket: Bucket) -> dict[bytes, list[tuple[bytes, str, bool]]]:
    """What all keys hold, but for when exactly they expire."""
    found = bucket.get_many(list(bucket.scan_keys()))
    return {
        key: sorted((s.value, s.content_type, s.expiry > 0) for s in r.siblings) for key, r in found.items()
    }


def lines_of(exporter: Exporter) -> list[bytes]:
    return b"".join(exporter.export()).splitlines(keepends=True)


def imported(bucket: Bucket, lines: list[bytes], skip_bad: bool = False) -> ImportReport:
    return Importer(bucket, PATIENCE).run(ExportReader().records(lines), skip_bad)


def fill(bucket: Bucket) -> None:
    """Keys and values of every kind."""
    bucket.put("text", "Grüße\r\n\u2028\x00\x1b[31m", content_type="text/plain")
    bucket.put("json", b'{"id": "other", "deep": ' + b"[" * 5000 + b"]" * 5000 + b"}")
    bucket.put("empty", b"")
    bucket.put(b"\xff\x00\n", bytes(range(256)), content_type="image/x")
    bucket.put("a key\nwith a line break", b"{}")
    for value in (b"one", b"two", b"two", b"\xfe"):
        bucket.put("siblings", value)
    bucket.put("siblings", b"with an end", ttl=HOUR)
    bucket.put("session", b"...", ttl=HOUR)
    bucket.put("other session", b"...", ttl=2 * HOUR, content_type="x/y")
    bucket.put("gone", b"x")
    bucket.delete("gone")


def test_what_is_exported_comes_back_as_it_was(fake_cluster: FakeCluster, bucket: Bucket) -> None:
    fill(bucket)
    before = contents(bucket)
    exporter = Exporter(bucket, PATIENCE)
    lines = lines_of(exporter)
    assert (exporter.report.exported, exporter.report.left_out.count) == (len(before), 0) == (8, 0)
    fake_cluster.store.versions.clear()
    report = imported(bucket, lines)
    assert (report.imported, report.unchanged, report.bad.count) == (8, 0, 0)
    assert contents(bucket) == before
    ends = bucket.get("session").siblings[0].expiry / 1000 - time.time()
    assert HOUR - 60 < ends <= HOUR + 1
    again = imported(bucket, lines)
    assert (again.imported, again.unchanged) == (0, 8)


def test_it_takes_the_place_of_what_a_key_holds(bucket: Bucket) -> None:
    fill(bucket)
    before = contents(bucket)
    lines = lines_of(Exporter(bucket, PATIENCE))
    bucket.put("siblings", b"later")
    bucket.put("session", b"...", context=bucket.get("session").context)  # without an end
    bucket.put(
        "text", bucket.get("text").value or b"", context=bucket.get("text").context
    )  # without its type
    report = imported(bucket, lines)
    assert (report.imported, report.unchanged) == (3, 5)
    assert contents(bucket) == before


def test_what_has_expired_meanwhile_is_counted_and_not_written(bucket: Bucket) -> None:
    writer = ExportWriter()
    past = Record(0, b"past", (Held(b"v", "", 1000),))
    half = Record(0, b"half", (Held(b"old", "", 1000), Held(b"new")))
    lines = writer.lines([past, half]).splitlines(keepends=True)
    report = imported(bucket, [writer.header("b"), *lines, writer.summary(0)])
    assert (report.imported, report.expired, report.bad.count) == (1, 1, 0)
    assert contents(bucket) == {b"half": [(b"new", "", False)]}


def test_siblings_that_a_bucket_does_not_keep_are_named(
    fake_cluster: FakeCluster, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an lww bucket: each write replaces what there is."""
    perform = fake_cluster.store.perform

    def performed(call: ClientRequest) -> Reply:
        if isinstance(call, Put):
            fake_cluster.store.versions.clear()
        return perform(call)

    monkeypatch.setattr(fake_cluster.store, "perform", performed)
    writer = ExportWriter()
    two = Record(0, b"two", (Held(b"a"), Held(b"b")))
    report = imported(bucket, [writer.header("b"), writer.lines([two]), writer.summary(0)], skip_bad=True)
    assert report.bad.first == ["line 2: has 2 siblings, and the bucket has kept 1 of them"]


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (None, "has 101 siblings, the limit is 100"),
        (TooManySiblings(101, 100), "key has 101 siblings and the limit is 100"),
        (VersionTooLarge(101, 100), "101 bytes"),
    ],
)
def test_siblings_that_no_key_may_have_are_a_bad_line(
    refusal: KVError | None,
    reason: str,
    fake_cluster: FakeCluster,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both sides of a split may have added so many: whoever exports them imports all other keys."""
    perform = fake_cluster.store.perform

    def performed(call: ClientRequest) -> Reply:
        refused = refusal is not None and isinstance(call, Put) and call.key == b"many"
        return Failed(refusal) if refused and refusal else perform(call)

    monkeypatch.setattr(fake_cluster.store, "perform", performed)
    many = Record(0, b"many", tuple(Held(b"%d" % i) for i in range(101 if refusal is None else 2)))
    writer = ExportWriter()
    written = writer.lines([many, Record(0, b"other", (Held(b"v"),))])
    report = imported(bucket, [writer.header("b"), *written.splitlines(True), writer.summary(0)], True)
    assert (report.imported, report.retried, report.bad.count) == (1, 0, 1)
    assert report.bad.first[0].startswith("line 2: ")
    assert reason in report.bad.first[0]
    assert contents(bucket)[b"other"]
    assert b"many" not in contents(bucket)


# files that are not as they should be


def export_of(*keys: bytes) -> list[bytes]:
    writer = ExportWriter()
    lines = [writer.lines([Record(0, key, (Held(b"v"),))]) for key in keys]
    return [writer.header("b"), *lines, writer.summary(0)]


def read(lines: list[bytes]) -> tuple[list[bytes], list[str]]:
    """The keys of a file, and what is wrong with it."""
    found = list(ExportReader().records(lines))
    keys = [each.key for each in found if isinstance(each, Record)]
    return keys, [str(each) for each in found if isinstance(each, BadLine)]


def test_a_file_that_is_cut_off_or_changed_is_noticed() -> None:
    whole = export_of(b"a", b"b", b"c")
    assert read(whole) == ([b"a", b"b", b"c"], [])
    assert read([b"\n", *whole, *export_of(b"d"), b"\r\n"]) == ([b"a", b"b", b"c", b"d"], [])
    assert read([line.replace(b"\n", b"\r\n") for line in whole])[1] == []
    keys, problems = read(whole[:-1])
    assert keys == [b"a", b"b", b"c"]
    assert problems == ["line 5: is missing: the file is cut off before the summary of its export"]
    _, problems = read([*whole[:2], *whole[3:]])
    assert problems == ["line 4: says that the export has 3 keys: it has 2"]
    _, problems = read([*whole[:2], whole[2].replace(b'"v"', b'"w"'), *whole[3:]])
    assert problems == ["line 5: does not agree with the lines before it: they were changed later"]
    _, problems = read([*whole[:-1], *whole])
    assert problems == ["line 5: begins an export, and the one before it has no summary: it is cut off"]
    _, problems = read([*whole, whole[1]])
    assert problems == ["line 6: comes after the summary of an export, and is no header"]
    keys, problems = read([*whole[:2], whole[2][:20] + b"\n", *whole[3:]])
    assert keys == [b"a", b"c"]
    assert problems[0].startswith("line 3: is not JSON: ")
    reader = ExportReader()
    list(reader.records([whole[0], ExportWriter().summary(7)]))
    assert reader.left_out == 7


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"nonsense", "is not JSON: "),
        (b"[" * 100_000, "is no line of an export: "),
        (b'{"kind":"key","key":"a","siblings":[' + b"[" * 100_000, "is no line of an export: "),
        (b'{"kind":"key","key":"\xff","siblings":[{"value":"v"}]}', "is not UTF-8"),
        (b'{"kind":"key","key":"a","siblings":[]}', "has no siblings"),
        (b'{"kind":"key","key":"","siblings":[{"value":"v"}]}', "key: has 0 bytes"),
        (b'{"kind":"key","siblings":[{"value":"v"}]}', "needs key or key_base64, one of them"),
        (b'{"kind":"key","key":"a","key_base64":"YQ==","siblings":[{"value":"v"}]}', "needs key or"),
        (b'{"kind":"key","key":"a","siblings":[{}]}', "needs value or value_base64, one of them"),
        (b'{"kind":"key","key":"a","siblings":[{"value":NaN}]}', "is not JSON: "),
        (b'{"kind":"key","key":"a","siblings":[{"value":{}}]}', "is no line of an export: "),
        (b'{"kind":"key","key":"a","siblings":[{"value_base64":"!"}]}', "is no line of an export: "),
        (b'{"kind":"key","key":"a","siblings":[{"value":"v","ttl":1}]}', "is no line of an export: "),
        (b'{"kind":"key","key":"a","siblings":[{"value":"v","expiry_ms":-1}]}', "has an expiry_ms that"),
        (
            b'{"kind":"key","key":"a","siblings":[{"value":"v","content_type":"%s"}]}' % (b"x" * 256),
            "content_",
        ),
        (b'{"kind":"later","key":"a"}', "is no line of an export: "),
        (b'{"kind":"end","keys":0,"left_out":-1,"crc32c":0}', "is no line of an export: "),
    ],
)
def test_a_line_of_an_export_that_cannot_be_imported_says_why(line: bytes, reason: str) -> None:
    _, problems = read([export_of()[0], line + b"\n"])
    assert problems[0].startswith(f"line 2: {reason}")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], "the file is empty"),
        ([b'{"id": "a"}\n'], "this is no export of kvctl: for JSON or CSV of other programs give --key"),
        ([b"\x00" * 10], "this is no export"),
        ([b'{"kind":"export","format":2,"bucket":"b"}\n'], "format 2 is of a later version"),
        ([b'{"kind":"export","format":0,"bucket":"b"}\n'], "this is no export"),
    ],
)
def test_what_is_no_export_is_refused_as_a_whole(lines: list[bytes], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        list(ExportReader().records(lines))


def test_lines_are_read_in_bounded_memory_and_without_a_byte_order_mark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(records, "LINE_BYTES", 10)
    file = io.BytesIO(b"\xef\xbb\xbf{}\n" + b"x" * 45 + b"\n\xef\xbb\xbf{}")
    assert list(Source(file).lines()) == [b"{}\n", b"x" * 11, b"\xef\xbb\xbf{}"]
    with pytest.raises(BadLine, match="line 2: has more than 10 bytes"):
        records.check_length(2, b"x" * 11)


HELD = st.builds(Held, st.binary(max_size=20), st.text(max_size=5), st.integers(0, 2**40))
RECORDS = st.builds(
    Record, st.just(0), st.binary(min_size=1, max_size=9), st.lists(HELD, min_size=1).map(tuple)
)


@given(st.lists(RECORDS, max_size=5))
def test_each_record_is_read_as_it_was_written(written: list[Record]) -> None:
    writer = ExportWriter()
    keys = writer.lines(written).splitlines(keepends=True)
    lines = [writer.header("b"), *keys, writer.summary(0)]
    assert len(keys) == len(written)
    assert all(line.count(b"\n") == 1 for line in lines)
    assert all(json.loads(line) for line in lines)
    found = list(ExportReader().records(lines))
    assert [(each.key, each.siblings) for each in found if isinstance(each, Record)] == [
        (each.key, each.siblings) for each in written
    ]
    assert len(found) == len(written)


def test_a_coordinator_that_has_not_seen_the_other_siblings_yet_condemns_no_line(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was down when they were written counts its own alone. Replicas have all of them."""
    put_many = bucket.put_many

    def alone(*args: Any, **options: Any) -> dict[Any, Any]:
        return {key: replace(stored, siblings=1) for key, stored in put_many(*args, **options).items()}

    monkeypatch.setattr(bucket, "put_many", alone)
    several = Record(1, b"k", (Held(b"one"), Held(b"two")))
    report = Importer(bucket, PATIENCE).run([several, Record(2, b"l", (Held(b"v"),))])
    assert (report.imported, report.bad.count) == (2, 0)
    assert contents(bucket)[b"k"] == [(b"one", "", False), (b"two", "", False)]


# reading a bucket


def test_an_export_waits_for_nodes_and_names_what_can_never_be_read(
    fake_cluster: FakeCluster, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put_many({f"k{i:02}": b"v" for i in range(30)})
    for node in fake_cluster.nodes:
        node.scan_refusals.extend([Unavailable(2, 1)] * 2)
        node.refusals.extend([Unavailable(2, 1)] * 5)
        node.large = {b"k07", b"k08"}
    perform = fake_cluster.store.perform

    def performed(call: ClientRequest) -> Reply:
        return Failed(VersionTooLarge(9, 8)) if call.key == b"k07" else perform(call)

    monkeypatch.setattr(fake_cluster.store, "perform", performed)
    exporter = Exporter(bucket, PATIENCE)
    lines = lines_of(exporter)
    keys, problems = read(lines)
    assert sorted(keys) == [b"k%02d" % i for i in range(30) if i != 7]
    assert problems == []
    assert exporter.report.retried > 0
    assert exporter.report.left_out.count == 1
    assert exporter.report.left_out.first[0].startswith("'k07' cannot be read: ")
    assert json.loads(lines[-1])["left_out"] == 1


@pytest.mark.parametrize("scan_fails", [False, True])
def test_an_export_gives_up_when_its_patience_is_over(
    fake_cluster: FakeCluster, bucket: Bucket, scan_fails: bool
) -> None:
    bucket.put("a", b"v")
    for node in fake_cluster.nodes:
        node.scan_fails, node.large = scan_fails, {b"a"}
        node.refusals.extend([] if scan_fails else [Unavailable(2, 1)] * 1000)
    with pytest.raises(KVError):
        lines_of(Exporter(bucket, 0.0))


def test_a_key_that_is_too_large_for_a_page_is_read_by_itself(
    fake_cluster: FakeCluster, bucket: Bucket
) -> None:
    bucket.put_many({f"k{i}": b"v" for i in range(5)})
    bucket.put("k3", b"w", blind=True)
    for node in fake_cluster.nodes:
        node.large = {b"k3", b"k4"}
    found, problems = read(lines_of(Exporter(bucket, PATIENCE)))
    assert problems == []
    assert sorted(found) == [b"k0", b"k1", b"k2", b"k3", b"k4"]
    assert contents(bucket)[b"k3"] == [(b"v", "", False), (b"w", "", False)]
