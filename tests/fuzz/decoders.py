"""The decoders of kvstore, each with valid encodings to begin from and the errors that it may raise.

Where a checksum stands before a decoder there is a second entry, "repaired": what is mutated there is what
the checksum covers, and the checksum is made to fit afterwards, so that the decoder behind it is reached.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import google_crc32c
import msgspec
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from kvstore.config import parse_bucket
from kvstore.contexts import Keyring, decode_context, decode_seen, encode_context, encode_seen
from kvstore.errors import KVError, Overloaded, WriteTimeout
from kvstore.lsm import (
    CompactionJob,
    FlushJob,
    Job,
    JobResult,
    MemoryFileSystem,
    Options,
    RemovalJob,
    decode_job,
    decode_result,
    encode_job,
    encode_result,
)
from kvstore.lsm.block import DamagedBlock, DataBlock, encode_entries, seal, unseal
from kvstore.lsm.bloom import BloomFilter, hash_key
from kvstore.lsm.manifest import MAGIC as MANIFEST_MAGIC
from kvstore.lsm.manifest import Edit, Manifest
from kvstore.lsm.messages import TableInfo
from kvstore.lsm.record import DamagedRecord, TornRecord, decode_record, encode_record
from kvstore.lsm.sstable import FOOTER, FOOTER_BYTES, Index, Properties
from kvstore.lsm.sstable import MAGIC as TABLE_MAGIC
from kvstore.lsm.sstable_writer import write_tables
from kvstore.lsm.table import Table
from kvstore.lsm.table_file import TableFile
from kvstore.lsm.wal import MAGIC as WAL_MAGIC
from kvstore.lsm.wal import encode_wal_record, read_segments
from kvstore.membership import stored_record, transitions
from kvstore.membership.acceptor import Record
from kvstore.protocol.client import Found, Reply, Value
from kvstore.protocol.paxos import Ballot, Vote
from kvstore.protocol.peer import Forward, ForwardReply
from kvstore.protocol.table import PEER_TABLE
from kvstore.quorum.hints import hint_key, split_hint_key
from kvstore.ring import decode_state, encode_state, initial_state, split_data_key
from kvstore.ring.initial_members import parse_members
from kvstore.store.worker import read_frame
from kvstore.store.worker_driver import frame
from kvstore.v1 import client_pb2 as pb
from kvstore.versions import (
    Dot,
    InternalKey,
    Sibling,
    SignedContext,
    Version,
    check_version,
    decode_version,
    encode_version,
)
from kvstore.wire.client import call_from_wire
from kvstore.wire.errors import error_from_status, error_to_status
from kvstore.wire.peer import decode_frame, encode_frame
from kvstore.wire.ring import state_from_wire, state_to_wire
from kvstore.wire.session import OpenCall, decode_calls, encode_calls, encode_replies, replies_from_wire
from tests.plain import Get, Put, data_key
from tests.wire_samples import client_samples, peer_samples, sample, without_options

PLAIN, DECOMPRESSES = 64, 64 * 255
"""How many bytes of memory one byte of input may cost: lz4 makes up to 255 of one."""


@dataclass(frozen=True)
class Decoder:
    """`wrap` makes of the bytes that were mutated the bytes that `decode` is given."""

    name: str
    decode: Callable[[Any], object]
    seeds: Sequence[bytes]
    refusals: tuple[type[Exception], ...] = (KVError,)
    wrap: Callable[[bytes], bytes] = bytes
    share: int = 10
    memory: int = PLAIN


def little(number: int) -> bytes:
    return number.to_bytes(4, "little")


def checksum(data: bytes) -> bytes:
    return little(int(google_crc32c.value(data)))


# the log and the manifest

_BATCHES = ([(b"key", b"value"), (b"other", None)], [(b"k" * 40, b"v" * 100)])
_RECORDS = [encode_wal_record(1, 0, _BATCHES), encode_wal_record(3, 2, _BATCHES[:1])]
_PAYLOADS = [decode_record(record, 0)[0] for record in _RECORDS]


def read_log(data: bytes) -> object:
    fs = MemoryFileSystem()
    fs.create("data/00000001.wal").append(data)
    return list(read_segments(fs, ["data/00000001.wal"], 0))


_INFOS = (
    TableInfo(3, 0, 900, 10, 2, b"a", b"m", 9),
    TableInfo(4, 1, 1900, 20, 0, b"b", b"zz", 7),
)
_EDITS = [msgspec.msgpack.encode(edit) for edit in (Edit(5, 9, _INFOS), Edit(6, 12, _INFOS[:1], (3,)))]


def read_manifest(data: bytes) -> object:
    fs = MemoryFileSystem()
    fs.create("data/MANIFEST-00000001").append(data)
    fs.create("data/CURRENT").append(b"MANIFEST-00000001\n")
    return Manifest(fs, "data", 1 << 20).tables


def read_current(data: bytes) -> object:
    fs = MemoryFileSystem()
    fs.create("data/MANIFEST-00000001").append(MANIFEST_MAGIC + encode_record(_EDITS[0]))
    fs.create("data/CURRENT").append(data)
    return Manifest(fs, "data", 1 << 20).tables


LOGS = [
    Decoder("record", lambda data: decode_record(data, 0), _RECORDS, (TornRecord, DamagedRecord)),
    Decoder("log segment", read_log, [WAL_MAGIC + b"".join(_RECORDS)], share=4),
    Decoder(
        "log segment, repaired",
        read_log,
        _PAYLOADS,
        wrap=lambda payload: WAL_MAGIC + encode_record(payload) + _RECORDS[1],
    ),
    Decoder("manifest", read_manifest, [MANIFEST_MAGIC + b"".join(map(encode_record, _EDITS))], share=4),
    Decoder(
        "manifest, repaired",
        read_manifest,
        _EDITS,
        wrap=lambda edit: MANIFEST_MAGIC + encode_record(_EDITS[0]) + encode_record(edit),
        share=4,
    ),
    Decoder("CURRENT", read_current, [b"MANIFEST-00000001\n"], share=2),
]


# tables

_KEYS = [b"key-%03d" % i for i in range(60)]
_VALUES: list[bytes | None] = [None if i % 7 == 0 else b"value %d " % i * (i % 5) for i in range(60)]
_PAYLOAD = encode_entries(_KEYS, _VALUES)
_BLOCKS = [seal(_PAYLOAD), seal(b"short"), seal(encode_entries([b"k"], [b"v" * 2000]))]
_EMPTY = bytes(8)
"""A block of no entries."""
# each key and each value from the beginning of the block to its end, or back
_OVERLAPPING = struct.pack("<602I", 300, 0, *[0, 10_000] * 150, *[0, 10_000] * 150) + bytes(20_000)


def read_block(data: bytes) -> object:
    block = DataBlock(data)
    found = block.get(b"key-001", None), block.get(b"key-030", None)
    return block.keys(), block.values(0, len(block)), block.memory, found


def _table() -> tuple[TableInfo, bytes]:
    fs = MemoryFileSystem()
    options = Options(block_bytes=300)
    (info,) = write_tables(fs, "data", [1], [(_KEYS, _VALUES)], 0, 9, 60, options)
    return info, fs.open("data/00000001.sst").read(0, info.size)


_INFO, _TABLE = _table()
_FILTER_AT, _FILTER_BYTES, _INDEX_AT, _INDEX_BYTES, _PROPERTIES_AT, _PROPERTIES_BYTES = FOOTER.unpack(
    _TABLE[-FOOTER_BYTES : -FOOTER_BYTES + FOOTER.size]
)
_FILTER = unseal(_TABLE[_FILTER_AT : _FILTER_AT + _FILTER_BYTES])
_INDEX = unseal(_TABLE[_INDEX_AT : _INDEX_AT + _INDEX_BYTES])
_PROPERTIES = unseal(_TABLE[_PROPERTIES_AT : _PROPERTIES_AT + _PROPERTIES_BYTES])


def read_table(data: bytes) -> object:
    fs = MemoryFileSystem()
    fs.create("data/00000001.sst").append(data)
    # of the size that it has: else only that would be refused
    table = Table(TableFile(fs, "data", msgspec.structs.replace(_INFO, size=len(data))), None)
    found = [table.get(key, hash_key(key), None) for key in (b"key-001", b"key-030", b"key-0300", b"zzz")]
    return found, list(table.chunks(b"", None)), list(table.chunks(b"key-02", b"key-04", True))


def read_damaged_table(data: bytes) -> object:
    """Behind its checksums a table is refused or it is right, also when only its filter is damaged."""
    content = read_table(data)
    assert content == _CONTENT, "a wrong answer"
    return content


_CONTENT = read_table(_TABLE)


def with_parts(data: bytes, bloom: bytes, index: bytes, properties: bytes) -> bytes:
    """A table of these blocks, data blocks sealed already, with checksums and footer that fit."""
    parts = [data, seal(bloom), seal(index), seal(properties)]
    offsets = [sum(map(len, parts[:i])) for i in range(5)]
    footer = FOOTER.pack(*(n for i in (1, 2, 3) for n in (offsets[i], len(parts[i]))))
    return b"".join(parts) + footer + checksum(footer) + TABLE_MAGIC


def with_block(payload: bytes) -> bytes:
    """A table whose only data block is this."""
    block = seal(payload)
    index = msgspec.msgpack.encode(Index([_INFO.largest], [0], [len(block)]))
    return with_parts(block, _FILTER, index, _PROPERTIES)


def with_footer(footer: bytes) -> bytes:
    return _TABLE[:-FOOTER_BYTES] + footer + checksum(footer) + TABLE_MAGIC


_DATA = _TABLE[:_FILTER_AT]
TABLES = [
    Decoder(
        "data block",
        read_block,
        [_PAYLOAD, encode_entries([b""], [b""]), _OVERLAPPING, _EMPTY],
        (DamagedBlock,),
    ),
    Decoder("sealed block", unseal, _BLOCKS, (DamagedBlock,), memory=DECOMPRESSES),
    Decoder(
        "sealed block, repaired",
        unseal,
        [block[:-4] for block in _BLOCKS],
        (DamagedBlock,),
        wrap=lambda body: body + checksum(body),
        memory=DECOMPRESSES,
    ),
    Decoder(
        "filter",
        lambda data: b"key" in BloomFilter.decode(data),
        [_FILTER, BloomFilter.empty(1, 0.01).encode()],
        (ValueError,),
    ),
    Decoder("table", read_damaged_table, [_TABLE], share=2, memory=DECOMPRESSES),
    Decoder(
        "table, block repaired", read_table, [_PAYLOAD, _EMPTY], wrap=with_block, share=2, memory=DECOMPRESSES
    ),
    Decoder(
        "table, index repaired",
        read_table,
        [_INDEX],
        wrap=lambda index: with_parts(_DATA, _FILTER, index, _PROPERTIES),
        share=2,
        memory=DECOMPRESSES,
    ),
    Decoder(
        "table, filter repaired",
        read_table,
        [_FILTER],
        wrap=lambda bloom: with_parts(_DATA, bloom, _INDEX, _PROPERTIES),
        share=2,
        memory=DECOMPRESSES,
    ),
    Decoder(
        "table, properties repaired",
        read_table,
        [_PROPERTIES, msgspec.msgpack.encode(Properties(1, 0, b"a", b"b", 1))],
        wrap=lambda properties: with_parts(_DATA, _FILTER, _INDEX, properties),
        share=2,
        memory=DECOMPRESSES,
    ),
    Decoder(
        "table, footer repaired",
        read_table,
        [_TABLE[-FOOTER_BYTES : -FOOTER_BYTES + FOOTER.size]],
        wrap=with_footer,
        share=2,
        memory=DECOMPRESSES,
    ),
]


# jobs

_JOBS: tuple[Job, ...] = (
    FlushJob("data", 3, 9, 12, (4,), Options()),
    CompactionJob("data", _INFOS, 1, True, (5, 6), Options()),
    RemovalJob("data", ("00000003.wal", "00000001.sst")),
)


def read_frames(data: bytes) -> object:
    stream = io.BufferedReader(io.BytesIO(data))  # as a pipe is read
    frames = []
    while (found := read_frame(stream)) is not None:
        frames.append(found)
    return frames


JOBS = [
    Decoder("job", decode_job, list(map(encode_job, _JOBS))),
    Decoder("result of a job", decode_result, [encode_result(JobResult(job, _INFOS)) for job in _JOBS]),
    Decoder("frames of the worker", read_frames, [frame(b"one") + frame(encode_job(_JOBS[0]))]),
]


# versions and keys

_CONTEXT = (Dot("n1/0/1", 7), Dot("n2/0/3", 1 << 40))
_SIBLINGS = (Sibling(_CONTEXT[0], b"value", 9, 99, "text/plain"), Sibling(_CONTEXT[1], None))
_VERSIONS = [encode_version(Version(_CONTEXT, _SIBLINGS)), encode_version(Version())]
_TOKEN = 0x0123456789ABCDEF


_KEYRING = Keyring([bytes(range(16))])


def context_of(payload: bytes) -> bytes:
    """The context with its signature."""
    return b"\x02" + _KEYRING.sign(InternalKey(b"place"), payload) + payload


VERSIONS = [
    Decoder("version", decode_version, _VERSIONS),
    Decoder("version of a peer", check_version, _VERSIONS),
    Decoder("token of a session", lambda data: decode_seen(data, _TOKEN), [encode_seen(_CONTEXT, _TOKEN)]),
    Decoder(
        "context",
        lambda data: decode_context(data, InternalKey(b"place"), _KEYRING),
        [encode_context(_CONTEXT, InternalKey(b"place"), _KEYRING)],
    ),
    Decoder(
        "context, repaired",
        lambda data: decode_context(data, InternalKey(b"place"), _KEYRING),
        [msgspec.msgpack.encode(_CONTEXT), msgspec.msgpack.encode(())],
        wrap=context_of,
    ),
    Decoder("key of a hint", split_hint_key, [hint_key("n1", data_key(_TOKEN, "b", b"key"))]),
    Decoder("internal key", split_data_key, [data_key(_TOKEN, "bucket", b"key")]),
]


# the wire

_CALLS = [OpenCall(number, call, 1000, 1) for number, call in enumerate(client_samples())]
_PLAIN = [
    OpenCall(9, Put("bucket", b"key", b"value", SignedContext(b"context")), 1000, 1),
    OpenCall(10, Get("bucket", b"key"), 1000, 1),
]
_REPLIES = [sample(struct) for struct in get_args(Reply)]
_REPLIES += [Found((Value(b"value", time=5),), SignedContext(b"context"))]
_FRAMES = [encode_frame([message]) for message in peer_samples()]
_FRAMES += [encode_frame(peer_samples(), 12345)]
_FRAMES += [encode_frame([without_options(sample(struct)) for struct in PEER_TABLE])]
_FRAMES += [encode_frame([Forward(1, 1, call)]) for call in client_samples()]
_FRAMES += [encode_frame([ForwardReply(1, reply)]) for reply in _REPLIES]
_STATE = initial_state(
    "cluster",
    parse_members("n1=a:1/z1/m1,n2=b:2/z2/m2,n3=c:3/z3/m3"),
    16,
    3,
    [parse_bucket("logs:n=3,r=1,w=1,quorum=sloppy,conflict=lww,ttl=60")],
)


_MOVING = transitions.begin(
    _STATE, {3: _STATE.ring.replica_lists[3][::-1]}, emptied={7: _STATE.ring.replica_lists[7][:1]}
)


_PROMISED = [Record(2, Ballot(1, "n1")), Record(3, Ballot(5, "n2"), Vote(Ballot(4, "n1"), _MOVING))]


def read_record(data: bytes) -> object:
    return stored_record.kept({stored_record.PAXOS_RECORD: data}.get)


def read_session(data: bytes) -> object:
    sent_ms, calls, puts = decode_calls(data)
    return sent_ms, [call_from_wire(call) for call in calls], puts


def read_results(data: bytes) -> object:
    return list(replies_from_wire(pb.SessionResponse.FromString(data)))


def read_state(data: bytes) -> object:
    state = state_from_wire(pb.GetRingResponse.FromString(data))
    return state.ring.partition("bucket", b"key"), state.bucket("logs"), state.member("n1")


def read_status(data: bytes) -> object:
    return error_from_status(status_pb2.Status.FromString(data))


_PROTOBUF = (KVError, DecodeError)  # who reads these catches protobuf's own
WIRE = [
    Decoder("frame between nodes", decode_frame, _FRAMES),
    Decoder(
        "calls of a session",
        read_session,
        [*(encode_calls([call]) for call in _CALLS), encode_calls([*_CALLS, *_PLAIN]), encode_calls(_PLAIN)],
        _PROTOBUF,
    ),
    Decoder(
        "results of a session",
        read_results,
        [encode_replies([(1, reply, columns)]) for reply in _REPLIES for columns in (False, True)],
        _PROTOBUF,
    ),
    Decoder("cluster state on a disk", decode_state, [encode_state(_STATE), encode_state(_MOVING)]),
    Decoder("record of an acceptor", read_record, [stored_record.entry(record)[1] for record in _PROMISED]),
    Decoder(
        "cluster state",
        read_state,
        [state_to_wire(state).SerializeToString() for state in (_STATE, _MOVING)],
        _PROTOBUF,
    ),
    Decoder(
        "status of a failed call",
        read_status,
        [error_to_status(error).SerializeToString() for error in (Overloaded(0.5), WriteTimeout(1, 2))],
        _PROTOBUF,
    ),
]

DECODERS: tuple[Decoder, ...] = (*LOGS, *TABLES, *JOBS, *VERSIONS, *WIRE)


def named(names: Iterable[str]) -> tuple[Decoder, ...]:
    """The decoders of these names, all when there are none; raises KeyError."""
    by_name = {decoder.name: decoder for decoder in DECODERS}
    return tuple(by_name[name] for name in names) or DECODERS
