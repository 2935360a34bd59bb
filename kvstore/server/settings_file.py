"""The TOML file of `kvnode --config`: settings named like the flags, and tables [buckets.NAME]."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from kvstore.errors import ConfigError

_SETTINGS: dict[str, type] = {
    "node": str,
    "listen": str,
    "data": str,
    "initial-cluster": str,
    "cluster-id": str,
    "partitions": int,
    "replicas": int,
    "max-value": int,
    "hint-count": int,
    "hint-age": int,
    "hint-rate": int,
    "durability": str,
    "compaction": str,
    "memtable-bytes": int,
    "cache-bytes": int,
    "log-level": str,
}
_KINDS = {str: "a string", int: "a whole number"}


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """What a file sets: settings by flag name, and for each bucket the texts of its settings."""

    settings: dict[str, str | int]
    buckets: dict[str, dict[str, str]]


def read_settings_file(path: Path) -> SettingsFile:
    """Read a file; raises ConfigError when it cannot be read or sets what does not exist."""
    try:
        found = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    buckets = _buckets(path, found.pop("buckets", {}))
    for setting, value in found.items():
        kind = _SETTINGS.get(setting)
        if kind is None:
            raise ConfigError(f"{path}: unknown setting {setting!r} (known: {', '.join(_SETTINGS)}, buckets)")
        if type(value) is not kind:
            raise ConfigError(f"{path}: {setting} must be {_KINDS[kind]}")
    return SettingsFile(found, buckets)


def _buckets(path: Path, tables: object) -> dict[str, dict[str, str]]:
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigError(f"{path}: buckets must be tables of the form [buckets.NAME]")
    return {name: {setting: str(value) for setting, value in table.items()} for name, table in tables.items()}
