"""In which settings the nodes of a cluster differ, by what each says of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from kvstore.errors import KVError

if TYPE_CHECKING:
    from kvstore.client.status import NodeStatus

_NOT_SET = "not set"


def setting_differences(answers: Mapping[str, NodeStatus | KVError]) -> dict[str, dict[str, str]]:
    """For each node the settings that most of the others have otherwise, each with both texts.

    Where no text has a majority, every node differs. A node that does not answer, or is of a version that
    tells no settings, is left out.
    """
    told = {node: a.settings for node, a in answers.items() if not isinstance(a, KVError) and a.settings}
    found: dict[str, dict[str, str]] = {}
    for name in sorted(set().union(*told.values())):
        texts = Counter(settings.get(name, _NOT_SET) for settings in told.values())
        usual, count = texts.most_common(1)[0]
        agreed = 2 * count > len(told)
        for node, settings in told.items():
            text = settings.get(name, _NOT_SET)
            if len(texts) > 1 and not (agreed and text == usual):
                most = f"most nodes: {usual}" if agreed else "no majority agrees"
                found.setdefault(node, {})[name] = f"{text} ({most})"
    return found
