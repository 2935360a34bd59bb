"""Who is first in the lists that change: reads are served there, so first places are shared by weight too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction

from kvstore.protocol.member import Member

_ROUNDS = 4
"""A list may choose again after the others have: a few times, so that the time is bounded."""


def order_lists(
    members: Sequence[Member], old: Sequence[tuple[str, ...]], changed: Mapping[int, tuple[str, ...]]
) -> dict[int, tuple[str, ...]]:
    """The changed lists, each with that node first that is first least, by weight. Others stay."""
    weights = {member.node: member.weight for member in members}
    found = {partition: changed[partition] for partition in sorted(changed)}
    first = Counter(found.get(partition, nodes)[0] for partition, nodes in enumerate(old))
    for _ in range(_ROUNDS):
        for partition, nodes in found.items():
            first[nodes[0]] -= 1
            best = min(nodes, key=lambda node: (Fraction(first[node] + 1, weights[node]), nodes.index(node)))
            first[best] += 1
            found[partition] = (best, *(node for node in nodes if node != best))
    return found
