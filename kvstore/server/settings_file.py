"""The TOML file of `kvnode --config`: settings named like the flags, and tables.

[buckets.NAME] has the settings of a bucket; [quorum], [anti-entropy] and [gossip] have those of the node's
machines, by the fields of their classes (docs/settings.md).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from kvstore.bounds import settings_of
from kvstore.config import SESSION_SECONDS, AntiEntropySettings, QuorumSettings
from kvstore.errors import ConfigError
from kvstore.gossip import GossipSettings
from kvstore.node.settings import NodeSettings

_Settings = TypeVar("_Settings", QuorumSettings, AntiEntropySettings, GossipSettings)

TABLES: tuple[type[QuorumSettings | AntiEntropySettings | GossipSettings], ...] = (
    QuorumSettings,
    AntiEntropySettings,
    GossipSettings,
)
"""What is set by tables."""

_LEAST_REAP_AGE = 2 * SESSION_SECONDS
"""Of a real node, whose clients remember for so long; simulated ones remember for less (docs/reads.md)."""

_SETTINGS: dict[str, type] = {
    "node": str,
    "listen": str,
    "data": str,
    "initial-cluster": str,
    "cluster-id": str,
    "partitions": int,
    "replicas": int,
    "max-value": int,
    "durability": str,
    "compaction": str,
    "memtable-bytes": int,
    "cache-bytes": int,
    "log-level": str,
    "log-format": str,
}
_KINDS = {str: "a string", int: "a whole number"}


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """What a file sets: settings by flag name, those of the node, and the texts of each bucket's."""

    settings: dict[str, str | int] = field(default_factory=dict)
    buckets: dict[str, dict[str, str]] = field(default_factory=dict)
    node: NodeSettings = field(default_factory=NodeSettings)


def read_settings_file(path: Path) -> SettingsFile:
    """Read a file; raises ConfigError when it cannot be read or sets what does not exist or is wrong."""
    try:
        return _settings(tomllib.loads(path.read_text()))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # not text, not TOML, a number without end, too deep
        raise ConfigError(f"{path}: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _settings(found: dict[str, object]) -> SettingsFile:
    buckets = _buckets(found.pop("buckets", {}))
    node = NodeSettings(
        quorum=_table(QuorumSettings, found),
        anti_entropy=_table(AntiEntropySettings, found),
        gossip=_table(GossipSettings, found),
    )
    reap_age = node.anti_entropy.reap_age
    if reap_age < _LEAST_REAP_AGE:
        raise ConfigError(
            f"{AntiEntropySettings.TABLE}: reap-age={reap_age} must be at least {_LEAST_REAP_AGE:g}, "
            "twice the time for which sessions of clients remember"
        )
    return SettingsFile({name: _setting(name, value) for name, value in found.items()}, buckets, node)


def _setting(name: str, value: object) -> str | int:
    kind = _SETTINGS.get(name)
    if kind is None:
        for table in TABLES:
            if name in _labels(table):
                raise ConfigError(f"{name} belongs into the table [{table.TABLE}]")
        known = ", ".join([*_SETTINGS, "buckets", *(table.TABLE for table in TABLES)])
        raise ConfigError(f"unknown setting {name!r} (known: {known})")
    if type(value) is not kind or not isinstance(value, str | int):
        raise ConfigError(f"{name} must be {_KINDS[kind]}")
    if isinstance(value, str) and "\0" in value:  # no flag can have it, and no name of a file
        raise ConfigError(f"{name} must not contain a NUL")
    return value


def _table(kind: type[_Settings], found: dict[str, object]) -> _Settings:
    """The settings of one table, which is taken out of what was found."""
    given = found.pop(kind.TABLE, {})
    if not isinstance(given, Mapping):
        raise ConfigError(f"{kind.TABLE} must be a table: [{kind.TABLE}]")
    names = _labels(kind)
    for label in given:
        if label not in names:
            raise ConfigError(f"{kind.TABLE}: unknown setting {label!r} (known: {', '.join(names)})")
    return kind(**{names[label]: value for label, value in given.items()})


def _labels(kind: type[QuorumSettings | AntiEntropySettings | GossipSettings]) -> dict[str, str]:
    """The names of a table's settings in a file, with those of its fields."""
    return {setting.label: setting.name for setting in settings_of(kind)}


def _buckets(tables: object) -> dict[str, dict[str, str]]:
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigError("buckets must be tables of the form [buckets.NAME]")
    return {name: {setting: str(value) for setting, value in table.items()} for name, table in tables.items()}
