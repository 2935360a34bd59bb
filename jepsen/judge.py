"""Which checkers judge which workload, and what a whole run must have done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import msgspec

from jepsen.checkers import Checker, Result, check
from jepsen.checkers.availability import Availability
from jepsen.checkers.causal import Causal
from jepsen.checkers.convergence import Convergence
from jepsen.checkers.counts import Counts
from jepsen.checkers.delete import Delete
from jepsen.checkers.errors import Errors
from jepsen.checkers.latency import Latency
from jepsen.checkers.linearizability import Linearizability
from jepsen.checkers.lww import Lww
from jepsen.checkers.models import AppendList, AppendRegister, GrowSet, Model, Register, Transactions
from jepsen.checkers.result import Offence, Verdict
from jepsen.checkers.session import Session
from jepsen.checkers.set_full import SetFull
from jepsen.checkers.values import READS
from jepsen.dumps import Replicas
from jepsen.formats import Form
from jepsen.history import NEMESIS, History, Op
from jepsen.workloads import workload_of

_LINEARIZABILITY_SECONDS = 60.0
_SPLITS = ("isolate-one", "split-halves")
_NOTICED_SECONDS = 3.0
"""Until a split is noticed some operations have to fail."""
_WRITES = ("add", "remove", "write", "delete")
_LEAST = 5
"""Operations of each function of a workload that a run has to have done to have exercised anything."""


def judge(
    history: History,
    workloads: Sequence[str],
    strict: bool,
    faults: Iterable[str],
    replicas: Replicas | None,
    available: Mapping[str, float] | None = None,
) -> dict[str, Result]:
    """Everything that must hold of a run, by `workload checker`; `faults` were planned, and must have struck.

    `strict`: R + W > N, and fallbacks do not count. `available` is the share of operations that must succeed
    on each side of a split, outside of its first 3 s; without it that share is measured, all of the time.
    """
    faults = frozenset(faults)
    results: dict[str, Result] = {}
    for name in workloads:
        part = of_workload(history, name)
        for result in JUDGES[name](part, strict):
            results[f"{name} {result.name}"] = renamed(result, f"{name} {result.name}")
    if (rest := unjudged(history, workloads)).valid is not True:
        results[rest.name] = rest
    everywhere: list[Checker] = [Latency(), Counts({}, [f"start-{fault}" for fault in sorted(faults)])]
    if faults.intersection(_SPLITS) or any(period.name in _SPLITS for period in history.periods):
        ignore = _NOTICED_SECONDS if available else 0.0
        everywhere += [
            Availability(available or {}, ignore=ignore, periods=_SPLITS, name="availability"),
            Availability({}, ignore=ignore, fs=_WRITES, periods=_SPLITS, name="availability of writes"),
        ]
    if replicas is not None:
        everywhere.append(Convergence(replicas))
    return results | check(history, everywhere)


def judge_foreign(history: History, form: Form) -> dict[str, Result]:
    """Whether a history in the form of another checker is linearizable, by the model of its functions.

    Transactions: strictly serializable. Unknown where no model has all functions, nothing is ok, or
    everything is a read.
    """
    clients = [op for op in history if op.process != NEMESIS]
    fs = {op.f for op in clients}
    model = next((model for of, known, model in _MODELS if fs <= known and form in of), None)
    checker = Linearizability(model, _LINEARIZABILITY_SECONDS)
    reason = ""
    if not any(op.type == "ok" for op in clients) or fs <= READS:
        reason = "nothing was written, or nothing is ok"
    elif model is None:
        reason = f"no model has {', '.join(sorted(fs))}"
    else:
        try:
            return check(history, [checker])
        except ValueError as error:  # the functions have the names of a model, and other values
            reason = str(error)
    return {checker.name: Result(checker.name, "unknown", {}, (Offence(None, reason),))}


_ANY: tuple[Form, ...] = ("knossos", "elle", "log", "kv")
_MODELS: list[tuple[tuple[Form, ...], frozenset[str], Model]] = [
    (_ANY, frozenset(("read", "write", "cas", "delete")), Register()),
    (_ANY, frozenset(("read", "add")), GrowSet()),
    (("elle",), frozenset(("read", "append")), AppendList()),
    (("elle",), frozenset(("txn",)), Transactions()),
    (("kv",), frozenset(("get", "put", "append")), AppendRegister()),
]
"""For forms and functions the model that judges them."""


def unjudged(history: History, workloads: Collection[str]) -> Result:
    """Whether some operation of a client belongs to no workload, and so was looked at by no checker.

    Nor is a history judged that has no operation at all. What was not judged is unknown, and no pass.
    """
    invocations = [op for op in history if op.process != NEMESIS and op.type == "invoke"]
    left_out = [op for op in invocations if workload_of(op.key or "") not in workloads]
    reason = f"its key {left_out[0].key!r} names no workload" if left_out else "there is no operation"
    offences = [Offence(left_out[0].index if left_out else None, reason)]
    valid: Verdict = True if invocations and not left_out else "unknown"
    counts = {"operations": len(invocations), "not judged": len(left_out)}
    return Result("unjudged", valid, counts, tuple(offences) if valid is not True else ())


def renamed(result: Result, name: str) -> Result:
    """The same result under another name."""
    return Result(name, result.valid, result.counts, result.offences, result.data)


def of_workload(history: History, name: str, keys: str = "") -> History:
    """The operations of one workload, on keys that begin so."""
    prefix = f"{name}/{keys}"
    return History(op for op in history if (op.key or "").startswith(prefix))


def _counted(*fs: str) -> Counts:
    return Counts(dict.fromkeys(fs, _LEAST))


def _causal(strict: bool) -> Causal:
    return Causal(strict=strict, sessions=strict)


def _set(history: History, strict: bool) -> Iterable[Result]:
    yield from check(history, [SetFull(linearizable=strict), Errors(), _counted("add", "read")]).values()


def _cart(history: History, strict: bool) -> Iterable[Result]:
    yield _counted("add", "remove", "read").check(history)
    yield SetFull(linearizable=strict).check(without_removed(history))
    yield resurfaced(history)


def _counter(history: History, strict: bool) -> Iterable[Result]:
    yield _counted("add", "look").check(history)
    yield SetFull(linearizable=strict).check(history)
    yield looked(history, strict)


def _register(history: History, strict: bool) -> Iterable[Result]:
    yield _counted("write", "read").check(history)
    yield Errors().check(history)
    one, many = of_workload(history, "register", "one-"), of_workload(history, "register", "many-")
    yield _causal(strict).check(many)
    linearizability = Linearizability(Register(), _LINEARIZABILITY_SECONDS).check(one)
    if strict:
        yield linearizability
    else:
        yield measured(linearizability)


def _session(history: History, strict: bool) -> Iterable[Result]:
    results = check(
        history, [Session(), Causal(strict=strict, sessions=strict), Errors(), _counted("write", "read")]
    )
    if not strict:
        results["session"] = measured(results["session"])
    yield from results.values()


def _delete(history: History, strict: bool) -> Iterable[Result]:
    results = check(
        history,
        [Delete(), Causal(strict=strict, sessions=strict), Errors(), _counted("write", "delete", "read")],
    )
    if not strict:
        results["delete"] = measured(results["delete"])
    yield from results.values()


def _lww(history: History, _strict: bool) -> Iterable[Result]:
    yield from check(history, [Lww(), Errors(), _counted("write", "read")]).values()


JUDGES: dict[str, Callable[[History, bool], Iterable[Result]]] = {
    "set": _set,
    "register": _register,
    "cart": _cart,
    "session": _session,
    "delete": _delete,
    "lww": _lww,
    "counter": _counter,
}


def measured(result: Result) -> Result:
    """What is not promised is counted and does not fail the run."""
    counts = {**result.counts, "violations (not promised)": len(result.offences)}
    return Result(f"{result.name} (measured)", True, counts, (), result.data)


def without_removed(history: History) -> History:
    """A cart's history without the items that somebody tried to remove: a set that only grows."""
    gone = {(op.key, op.value) for op in history if op.f == "remove"}

    def kept(op: Op) -> Op | None:
        if op.f == "remove" or (op.f == "add" and (op.key, op.value) in gone):
            return None
        if op.f == "read" and op.value:
            return msgspec.structs.replace(op, value=[v for v in op.value if (op.key, v) not in gone])
        return op

    return History(op for op in map(kept, history) if op is not None)


def resurfaced(history: History) -> Result:
    """How many removed items are there in the end: they may come back, the paper says."""
    removed: set[tuple[str | None, int]] = set()
    final: dict[str | None, Collection[int]] = {}
    for operation in history.operations:
        if operation.type == "ok" and operation.completion is not None:
            if operation.invocation.f == "remove":
                removed.add((operation.invocation.key, operation.invocation.value))
            elif operation.invocation.f == "read":
                final[operation.invocation.key] = operation.completion.value
    back = sum(1 for key, item in removed if item in final.get(key, ()))
    return Result("resurfaced (measured)", True, {"removed": len(removed), "resurfaced": back})


def looked(history: History, strict: bool) -> Result:
    """A look by the process that was told that its add was done must find it, if R + W > N."""
    counts: Counter[str] = Counter({"looks": 0, "missed": 0})
    offences: list[Offence] = []
    for operation in history.operations:
        completion = operation.completion
        if operation.invocation.f == "look" and operation.type == "ok" and completion is not None:
            counts["looks"] += 1
            if not completion.extra.get("found"):
                counts["missed"] += 1
                offences.append(Offence(completion.index, f"{completion.value} was added, and not found"))
    valid: Verdict = not (strict and offences)
    return Result("looks", valid, counts, tuple(offences) if strict else ())


def workloads_in(history: History) -> list[str]:
    """The workloads whose operations a history has."""
    return sorted({workload_of(op.key) for op in history if op.key is not None} & JUDGES.keys())
