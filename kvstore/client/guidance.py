"""What people of other stores try first and what does not exist here: one line that names the right call.

For `__getattr__` of the public classes, at run time only: type checkers go on reporting these names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NoReturn

_CONDITIONAL = (
    "conditional writes come later; today update(key, change), or put(key, value, context=got.context)"
)
_COUNTER = "counters come later; today update(key, change), with a resolver that combines concurrent values"
_COLLECTION = "sets, lists and hashes come later; today update(key, change), with a resolver that unites them"
_RANGE = (
    "keys are spread by their hash, so there is no range; keys(prefix=...) reads the keys of the whole bucket"
)


def _each(names: str, hint: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), hint)


_IN_BUCKET: Mapping[str, str] = {
    **_each("put_if put_if_absent put_if_match setnx add cas compare_and_set compare_and_swap", _CONDITIONAL),
    **_each("incr incrby increment decr decrby decrement counter", _COUNTER),
    **_each("sadd srem smembers sismember hset hget hgetall lpush rpush lrange zadd zrange", _COLLECTION),
    **_each("range scan_range range_query between", _RANGE),
    **_each(
        "scan list list_keys list_objects scan_iter",
        "keys(prefix=...) gives the keys, items(prefix=...) also their values",
    ),
    **_each("values", "items() gives keys with their values"),
    **_each("count size", "there is no stored number of keys; sum(1 for _ in bucket.keys()) counts them"),
    **_each("set insert upsert write store put_item put_object upload", "it is put(key, value)"),
    **_each("read fetch lookup get_item get_object download", "it is get(key)"),
    **_each("remove rm pop unlink delete_item delete_object", "it is delete(key)"),
    **_each(
        "append modify get_and_set getset", "it is update(key, change), which writes what change(value) gives"
    ),
    **_each("mget multi_get multiget getall batch_get bulk_get", "it is get_many(keys)"),
    **_each("mset multi_set putall batch_put bulk_put put_batch write_batch", "it is put_many(items)"),
    **_each(
        "clear truncate flush flushdb flushall drop",
        "nothing empties a bucket at once; delete_many(bucket.keys()) does",
    ),
    **_each("multi_delete bulk_delete batch_delete", "it is delete_many(keys)"),
    **_each("has has_key contains", "it is exists(key)"),
    **_each(
        "expire setex touch persist", "a value's life is decided when it is written: put(key, value, ttl=...)"
    ),
    **_each("ttl pttl expires", "get(key).siblings[0].expiry: milliseconds since 1970, 0 without an end"),
    **_each("query execute find select", "there is no query language; items(prefix=...) is all there is"),
    **_each("close", "its client is closed: db.close()"),
    **_each("watch subscribe publish", "there are no notifications of changes"),
    **_each("transaction pipeline", "there are no transactions; put_many(items) writes each key on its own"),
}

_IN_CLIENT: Mapping[str, str] = {
    **_each(
        "get put delete update exists keys items get_many put_many delete_many scan_keys",
        "keys live in buckets: db.bucket(name) has it",
    ),
    **_each("set read write remove scan mget mset incr sadd", "keys live in buckets: see db.bucket(name)"),
    **_each("execute query execute_async cursor find", "there is no query language: see db.bucket(name)"),
    **_each("buckets list_buckets", "db.ring() knows those with settings of their own"),
    **_each("create_bucket get_bucket table collection", "it is bucket(name); any name will do at once"),
    **_each("nodes members", "db.ring() knows the members, db.status() how they are"),
    **_each("ping info stats", "db.status() tells how each member is"),
    **_each(
        "pipeline transaction multi begin commit", "there are no transactions; a bucket has put_many(items)"
    ),
    **_each(
        "flushall flushdb delete_bucket drop_bucket",
        "a bucket is its keys: delete_many(bucket.keys()) ends it",
    ),
    **_each("connect open", "it is connected: kvstore.connect(...) has done that"),
    **_each("shutdown disconnect", "it is close()"),
}

_OF_A_VALUE = {*dir(str), *dir(bytes), "json", "text", "data", "body"}
_IN_RESULT = "what was read is .value, or of concurrent values .siblings"
_HINTS: Mapping[str, Mapping[str, str]] = {
    "Bucket": _IN_BUCKET,
    "Client": _IN_CLIENT,
    "Result": {name: _IN_RESULT for name in _OF_A_VALUE if not name.startswith("_")},
}

_DICT = "a bucket is no dict: "
WRITES_BY_INDEX = _DICT + "in asyncio await bucket.put(key, value)"
AWAITS_NOTHING = _DICT + "in asyncio await bucket.exists(key), bucket.get(key), bucket.delete(key)"
ITERATES_ASYNC = "with asyncio it is `async for key in bucket`"


def names(kind: str) -> Iterable[str]:
    """The names for which `missing` knows what to call instead; `kind` is that of the public class."""
    return _HINTS[kind].keys()


def missing(owner: object, name: str) -> NoReturn:
    """The `__getattr__` of a public class: raises AttributeError, with what to call instead."""
    kind = type(owner).__name__
    hint = _HINTS.get(kind, {}).get(name)
    text = f"{kind!r} object has no attribute {name!r}"
    raise AttributeError(f"{text}: {hint}" if hint else text)


def refuse_to_travel(owner: object) -> NoReturn:
    """The `__reduce__` of a public class that holds connections: raises TypeError, with what to do."""
    raise TypeError(
        f"a {type(owner).__name__} has connections, and cannot be pickled or copied: "
        "hand on the endpoints, and connect where it is used"
    )
