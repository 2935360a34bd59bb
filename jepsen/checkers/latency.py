"""How long operations took. It judges nothing: it counts."""

from __future__ import annotations

from collections import defaultdict

from jepsen.checkers.result import Result
from jepsen.history import History

QUANTILES = (0.5, 0.95, 0.99, 0.999, 1.0)


class Latency:
    """The latency by function and outcome, in milliseconds."""

    name = "latency"

    def check(self, history: History) -> Result:
        """See Checker. `data` has for "read ok" and so on the quantiles by their names, p50 to max."""
        latencies: dict[str, list[int]] = defaultdict(list)
        for invocation, completion in history.operations:
            if completion is not None:
                latencies[f"{invocation.f} {completion.type}"].append(completion.time - invocation.time)
        data = {name: quantiles(sorted(of)) for name, of in sorted(latencies.items())}
        return Result(self.name, True, {name: len(of) for name, of in sorted(latencies.items())}, (), data)


def quantiles(ordered: list[int]) -> dict[str, float]:
    """Of nanoseconds in rising order the quantiles in milliseconds, by name. `ordered` is not empty."""
    names = {q: "max" if q == 1 else f"p{q * 100:g}" for q in QUANTILES}
    last = len(ordered) - 1
    return {names[q]: round(ordered[round(q * last)] / 1e6, 3) for q in QUANTILES}
