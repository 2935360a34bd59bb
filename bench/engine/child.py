"""The process of one engine: it does what it is told on its input, one JSON line each, and answers so.

A process for each engine lets memory be told apart; the measuring is the same for all.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from typing import Any

import psutil

from bench.engine import data
from bench.engine.contenders import BUFFER, CONTENDERS, Contender, SQLite

_clock = time.perf_counter
_STAMPED = 2000
_MOST_IN_NO_ORDER = 100_000
Figures = dict[str, float]


def _p99(latencies: list[float]) -> float:
    return sorted(latencies)[int(0.99 * len(latencies))] if latencies else 0.0


class Child:
    """One engine, on one directory at a time. Public methods are the calls; they return figures."""

    def __init__(self, engine: str) -> None:
        self._open = CONTENDERS[engine]
        self._store: Contender | None = None
        self._fresh = count(10**9)
        self._directory = ""

    @property
    def _s(self) -> Contender:
        assert self._store is not None
        return self._store

    def open(self, directory: str, durable: bool, buffer: int = BUFFER) -> Figures:
        """Open a directory, closing the one before."""
        self.close()
        self._directory = directory
        self._store = self._open(directory, durable, buffer)
        return {}

    def close(self) -> Figures:
        if self._store is not None:
            self._store.close()
            self._store = None
        return {}

    def remove(self) -> Figures:
        """Close, and remove the files."""
        self.close()
        for path in _files(self._directory):
            path.unlink()
        shutil.rmtree(self._directory, ignore_errors=True)
        return {}

    # writing

    def fill(self, first: int, number: int, in_order: bool) -> Figures:
        """Batches of 1000; `rate` counts until the last returns, `settled` until all is in tables."""
        # SQLite takes minutes for many in no order: it gets them in order, and no figure for that
        helped = isinstance(self._s, SQLite) and number > _MOST_IN_NO_ORDER and not in_order
        in_order = in_order or helped
        written, sizes, begin_io = 0.0, 0, _written_bytes()
        begin = _clock()
        for batch in data.batches(data.entries(first, number, in_order=in_order), 1000):
            start = _clock()
            self._s.write(batch)
            written += _clock() - start
            sizes += sum(len(k) + len(v) for k, v in batch)
        waited = _clock()
        self._s.settle()
        settled = written + _clock() - waited
        rates = {} if helped else {"rate": number / written, "settled": number / settled}
        return {
            **rates,
            "amplification": (_written_bytes() - begin_io) / sizes,
            "space": _disk_bytes(self._directory) / sizes,
            "seconds": _clock() - begin,
        }

    def writes(self, size: int, seconds: float) -> Figures:
        """Batches of `size` new entries, one at a time."""
        latencies: list[float] = []
        batches = self._new_batches(size)
        end = _clock() + seconds
        while (start := _clock()) < end:
            batch = next(batches)
            start = _clock()
            if size == 1:
                self._s.put(*batch[0])
            else:
                self._s.write(batch)
            latencies.append(_clock() - start)
        return {"rate": len(latencies) * size / sum(latencies), "p99": _p99(latencies)}

    def _new_batches(self, size: int) -> Iterator[list[data.Entry]]:
        while True:
            yield [
                (data.key(n * 7919 % 10**9 + 10**9), data.value(n))
                for n in (next(self._fresh) for _ in range(size))
            ]

    def writes_beside_batches(self, seconds: float, busy: bool) -> Figures:
        """Five single puts after each batch of 1000, which keeps flushes going if the buffer is small.

        With `busy` only those puts count during which a flush or compaction runs.
        """
        latencies: list[float] = []
        single, many = self._new_batches(1), self._new_batches(1000)
        all_puts = 0
        end = _clock() + seconds
        while _clock() < end:
            self._s.write(next(many))
            for batch in islice(single, 5):
                counts = self._s.busy() or not busy
                start = _clock()
                self._s.put(*batch[0])
                took = _clock() - start
                all_puts += 1
                if counts:
                    latencies.append(took)
        return {"p99": _p99(latencies), "counted": len(latencies) / all_puts}

    # reading

    def gets(self, kind: str, below: int, seed: int, seconds: float) -> Figures:
        """Point reads: `hot` (1000 keys), `cold` (any key), `absent`."""
        chosen = data.numbers(20_000, 1000 if kind == "hot" else below, seed)
        make = data.absent_key if kind == "absent" else data.key
        keys = list(map(make, chosen))
        get = self._s.get
        if kind == "hot":
            for key in keys[:5000]:
                get(key)
        before = self._s.figures()
        done, took = 0, 0.0
        missing = 0
        begin_cpu = time.process_time()
        while took < seconds:
            some = keys[done % 20_000 : done % 20_000 + 1000]
            start = _clock()
            for key in some:
                if get(key) is None:
                    missing += 1
            took += _clock() - start
            done += len(some)
        if missing != (done if kind == "absent" else 0):
            raise AssertionError(f"{missing} of {done} {kind} keys were missing")
        cpu = (time.process_time() - begin_cpu) / done
        after = self._s.figures()
        found = {name: (after[name] - before[name]) / done for name in after}
        return {"rate": done / took, "cpu": cpu, "p99": self._stamped(keys[-_STAMPED:]), **found}

    def _stamped(self, keys: list[bytes]) -> float:
        get = self._s.get
        latencies = []
        for key in keys:
            start = _clock()
            get(key)
            latencies.append(_clock() - start)
        return _p99(latencies)

    def scan_all(self) -> Figures:
        """Every entry, once."""
        start = _clock()
        entries = sum(1 for _ in self._s.scan(b""))
        return {"rate": entries / (_clock() - start)}

    def short_scans(self, below: int, seed: int, seconds: float) -> Figures:
        """50 entries from a random key on; `rate` is of scans."""
        starts = map(data.key, data.numbers(100_000, below - 50, seed))
        done, begin = 0, _clock()
        while _clock() - begin < seconds:
            if sum(1 for _ in islice(self._s.scan(next(starts)), 50)) != 50:
                raise AssertionError("a scan ended too early")
            done += 1
        return {"rate": done / (_clock() - begin)}

    def mixed(self, below: int, seed: int, seconds: float) -> Figures:
        """One read of any key, one write of any key, in turn."""
        chosen = data.numbers(20_000, below, seed)
        keys, values = list(map(data.key, chosen)), list(map(data.value, chosen))
        get, put = self._s.get, self._s.put
        done, begin = 0, _clock()
        while _clock() - begin < seconds:
            for i in range(done % 20_000, done % 20_000 + 500):
                get(keys[-i - 1])
                put(keys[i], values[i])
            done += 500
        return {"rate": 2 * done / (_clock() - begin)}

    # the rest

    def settle(self) -> Figures:
        self._s.settle()
        return {}

    def compact(self) -> Figures:
        start = _clock()
        self._s.compact()
        return {"seconds": _clock() - start}

    def memory(self) -> Figures:
        """Bytes, of this process and of its workers."""
        me = psutil.Process()
        return {
            "rss": me.memory_info().rss,
            "workers": sum(child.memory_info().rss for child in me.children()),
        }


def _files(directory: str) -> list[Path]:
    inside = [path for path in Path(directory).rglob("*") if path.is_file()]
    return [*inside, *Path(directory).parent.glob(f"{Path(directory).name}.sqlite*")]


def _disk_bytes(directory: str) -> int:
    total = 0
    for path in _files(directory):
        with suppress(FileNotFoundError):  # a compaction that goes on has just removed it
            total += path.stat().st_size
    return total


def _written_bytes() -> int:
    """Handed to write calls by this process and by its workers."""
    me = psutil.Process()
    return sum(int(process.io_counters().write_chars) for process in (me, *me.children()))


def main() -> None:
    """Answer until the input ends."""
    child = Child(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    for line in iter(sys.stdin.readline, ""):
        name, arguments = json.loads(line)
        method: Callable[..., Any] = getattr(child, name)
        print(json.dumps(method(**arguments)), file=answers, flush=True)
    child.close()


if __name__ == "__main__":
    main()
