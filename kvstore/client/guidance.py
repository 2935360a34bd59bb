"""What people of other stores try first and what does not exist here: one line that names the right call.

At run time only: type checkers go on reporting these names and arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, NoReturn, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_CONDITIONAL = (
    "conditional writes come later; today update(key, change), or put(key, value, context=got.context)"
)
_COUNTER = "counters come later; today update(key, change), with a resolver that combines concurrent values"
_COLLECTION = "sets, lists and hashes come later; today update(key, change), with a resolver that unites them"
_RANGE = "keys are spread by their hash, so there is no range; keys(prefix=...) looks at all keys for those"


def _each(names: str, hint: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), hint)


_IN_BUCKET: Mapping[str, str] = {
    **_each(
        "put_if put_if_absent put_if_match setnx setdefault add cas compare_and_set compare_and_swap",
        _CONDITIONAL,
    ),
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

_ENDPOINTS = "endpoints are one argument: connect('host:port,host:port')"
_OPEN = "there is no authentication and no encryption yet"
_REPLICAS = "it is r= for reads and w= for writes: the replicas to wait for"

_ARGUMENTS: Mapping[str, str] = {
    **_each(
        "ex px exat pxat expire expires expires_in expiry expiration time_to_live", "it is ttl=, in seconds"
    ),
    **_each("nx xx if_absent if_not_exists if_match if_none_match", _CONDITIONAL),
    **_each("expected version cas prev_value condition", _CONDITIONAL),
    **_each("consistency consistency_level consistent_read read_consistency write_consistency", _REPLICAS),
    **_each("start end start_after range_end reverse", _RANGE),
    **_each("count max_keys page_size", "it is limit="),
    **_each("host hosts port url address addresses nodes contact_points startup_nodes", _ENDPOINTS),
    **_each("socket_timeout connect_timeout request_timeout", "it is timeout=, in seconds"),
    **_each("retries max_retries retry", "it is attempts="),
    **_each("user username password token ssl tls auth_provider", _OPEN),
    **_each("db keyspace namespace table", "keys live in buckets: db.bucket(name)"),
    **_each("encoding decode_responses", 'values are bytes; db.bucket(name, serializer="json") decodes them'),
}
"""By the name of an argument that no call has."""

_NO_ERROR = "a key without a value is no error: get(key) is false then"
_MODULE: Mapping[str, str] = {
    **_each("NotFound NotFoundError KeyNotFound KeyNotFoundError NoSuchKey DoesNotExist", _NO_ERROR),
    **_each("TimeoutError OperationTimedOut RequestTimeout", "it is kvstore.Timeout"),
    **_each("ConnectionError NoHostAvailable NodeUnavailable", "it is kvstore.NoNodeAvailable"),
    **_each(
        "Error KVStoreError KvStoreError KVStoreException ClientError RedisError", "it is kvstore.KVError"
    ),
    **_each("ConflictError Conflict SiblingsError", "it is kvstore.UnresolvedSiblings"),
    **_each("ValidationError BadRequest InvalidArgument", "it is kvstore.InvalidRequest"),
    **_each("AsyncClient AsyncKVStore aconnect connect_async asyncio", "it is kvstore.aio.connect(...)"),
    **_each(
        "Redis StrictRedis KVStore KVStoreClient Cluster Connection Database DB open client from_url",
        "it is kvstore.connect('host:port,host:port')",
    ),
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


SYNCHRONOUS = "use `with kvstore.connect(...)`, or `async with kvstore.aio.connect(...)`"
ASYNCHRONOUS = "use `async with kvstore.aio.connect(...)`, or `with kvstore.connect(...)`"


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


def guessed_arguments() -> Iterable[str]:
    """The names of arguments for which `guided` knows what it is called."""
    return _ARGUMENTS.keys()


def guessed_names() -> Iterable[str]:
    """The names of the module `kvstore` for which `no_such_name` knows what it is called."""
    return _MODULE.keys()


def guided(function: F, otherwise: str = "") -> F:
    """The same call; a TypeError for arguments that it has not tells what they are called, or `otherwise`."""

    @wraps(function)
    def call(*positional: Any, **named: Any) -> Any:
        try:
            return function(*positional, **named)
        except TypeError as error:
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise  # of the function's own: it was called as it wants to be
            kind, _, name = function.__qualname__.rpartition(".")
            said = str(error).replace(function.__qualname__, kind if name == "__init__" else name)
            hints = [_ARGUMENTS[name] for name in named if f"'{name}'" in said and name in _ARGUMENTS]
            hint = next(iter(hints), otherwise)
        raise TypeError(f"{said}: {hint}" if hint else said)

    return call  # type: ignore[return-value]


def guided_connect(function: F) -> F:
    """`guided`, for what makes a client."""
    return guided(function, _ENDPOINTS)


def no_such_name(name: str) -> AttributeError:
    """The error for what the module `kvstore` has not, with what it is called."""
    text, hint = f"module 'kvstore' has no attribute {name!r}", _MODULE.get(name)
    return AttributeError(f"{text}: {hint}" if hint else text)


def no_index(_client: object, name: object) -> NoReturn:
    """The `__getitem__` of a client: raises TypeError."""
    raise TypeError(f"a client is no dict: keys live in buckets, db.bucket({name!r})")


def wrong_kind_of_with(hint: str) -> Callable[[object], NoReturn]:
    """The `__enter__` or `__aenter__` of a client that has only the other: raises TypeError."""

    def enter(*_: object) -> NoReturn:
        raise TypeError(hint)

    return enter
