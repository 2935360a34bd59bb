"""What a node keeps in its engine, as JSON has it: data, hints, records of its own."""

from __future__ import annotations

import base64

from kvstore.config import NAME
from kvstore.errors import Corruption, InvalidRequest
from kvstore.hlc import time_counter, wall_time
from kvstore.kvctl.key_argument import as_json
from kvstore.protocol.internal_key import internal_key, split_data_key
from kvstore.quorum.context_keys import CONTEXT_KEYS
from kvstore.quorum.hints import HINT_KEYSPACE, hint_key, split_hint_key
from kvstore.versions import EncodedVersion, InternalKey, Sibling, decode_version

Fields = dict[str, object]

NODE = b"n/"
"""What the keys of a node's own records begin with."""


def raw_record(key: bytes, value: bytes) -> Fields:
    """A record as the engine has it."""
    return {"key_base64": _base64(key), "value_base64": _base64(value)}


def record(key: bytes, value: bytes) -> Fields:
    """A record by its keyspace; as the engine has it, if it is of none."""
    fields = key_fields(key)
    match fields["kind"]:
        case "data" | "hint":
            return fields | _version(value)
        case "node" if key.startswith(CONTEXT_KEYS):
            return fields | {"value": None}  # a secret of the cluster: a dump is shown to others
        case _:
            return fields | {"value_base64": _base64(value)}


def key_fields(key: bytes) -> Fields:
    """A key's keyspace (`data`, `hint`, `node`, or `unknown`) and what the key says there."""
    if found := _data(key):
        return {"kind": "data"} | found
    if key[:1] == HINT_KEYSPACE and (found := _hint(key)):
        return {"kind": "hint"} | found
    if key.startswith(NODE):
        return {"kind": "node"} | as_json("name", key[len(NODE) :])
    return {"kind": "unknown", "key_base64": _base64(key)}


def describe_key(key: bytes) -> str:
    """A key for people."""
    fields = key_fields(key)
    match fields["kind"]:
        case "data" | "hint":
            target = f"hint for {fields['target']}: " if "target" in fields else ""
            name = fields.get("key", fields.get("key_base64"))
            return f"{target}{fields['bucket']}/{name} (token {fields['token']})"
        case _:
            return repr(key)


def _data(key: bytes) -> Fields | None:
    """What a data key says; None for a key that is none, whatever it begins with."""
    try:
        key_token, bucket, name = split_data_key(InternalKey(key))
    except InvalidRequest:
        return None
    if not NAME.fullmatch(bucket) or key != internal_key(bucket, name):
        return None
    return {"token": f"{key_token:016x}", "bucket": bucket} | as_json("key", name)


def _hint(key: bytes) -> Fields | None:
    try:
        target, kept = split_hint_key(key)
    except Corruption:
        return None
    found = _data(kept)
    return {"target": target} | found if found and key == hint_key(target, kept) else None


def _version(value: bytes) -> Fields:
    try:
        version = decode_version(EncodedVersion(value))
    except Corruption as error:
        return {"damaged": error.reason, "value_base64": _base64(value)}
    return {"context": dict(version.context), "siblings": [_sibling(s) for s in version.siblings]}


def _sibling(sibling: Sibling) -> Fields:
    value = {"deleted": True} if sibling.value is None else as_json("value", sibling.value)
    counter = time_counter(sibling.time)
    return {
        **value,
        "dot": list(sibling.dot),
        "content_type": sibling.content_type,
        "time_ms": wall_time(sibling.time),
        "expiry_ms": sibling.expiry or None,
        **({"time_counter": counter} if counter else {}),
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
