"""kvnode's settings: flags win over environment, environment over the file; what is wrong is one line."""

from __future__ import annotations

import logging
import re
import shlex
import signal
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from kvstore.bounds import Setting, settings_of
from kvstore.errors import (
    ConfigError,
    Corruption,
    KVError,
    StorageFailed,
    StorageFull,
    UnsupportedFormat,
    WrongDataDirectory,
)
from kvstore.lsm import Compaction, Durability, Options
from kvstore.node.settings import NodeSettings
from kvstore.server.main import main
from kvstore.server.server import STOP_SIGNALS, ServerSettings
from kvstore.server.settings_file import TABLES, read_settings_file

GOOD = """
node = "from-file"
data = "{data}"
initial-cluster = "n1=127.0.0.1:1,n2=127.0.0.1:2"
partitions = 16

[buckets.carts]
n = 2
r = 1
quorum = "sloppy"
"""


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """The command minds signals in its own way; what the test run does with them comes back."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """The command sets up the log of its process; that of the test run comes back."""
    loggers = [logging.getLogger(), logging.getLogger("grpc")]
    before = [(each, each.handlers[:], each.level) for each in loggers]
    yield
    for each, handlers, level in before:
        each.handlers[:] = handlers
        each.setLevel(level)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "kvnode.toml"
    path.write_text(GOOD.format(data=tmp_path / "data"))
    return path


def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """What kvnode says when it ends because a setting is wrong."""
    monkeypatch.setattr("sys.argv", ["kvnode", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    output = capsys.readouterr()
    assert (ended.value.code, output.out) == (2, ""), output
    assert output.err.startswith("kvnode: ")
    assert output.err.count("\n") == 1
    return output.err


def test_flags_win_over_environment_and_environment_over_the_file(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = ("--config", str(config))
    assert "'from-file' is not in the initial cluster (n1, n2)" in said(capsys, monkeypatch, *file)
    monkeypatch.setenv("KVNODE_NODE", "from-environment")
    assert "'from-environment' is not" in said(capsys, monkeypatch, *file)
    assert "'from-flag' is not" in said(capsys, monkeypatch, *file, "--node", "from-flag")
    monkeypatch.setenv("KVNODE_CONFIG", str(config))
    monkeypatch.delenv("KVNODE_NODE")
    assert "'from-file' is not" in said(capsys, monkeypatch)
    assert not (config.parent / "data").exists()


def test_buckets_of_environment_and_flags_come_before_those_of_the_file(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = ("--config", str(config))
    assert "carts: n=3" in said(capsys, monkeypatch, *file, "--bucket", "carts:n=3")
    monkeypatch.setenv("KVNODE_BUCKETS", "fine:n=1 carts:n=4")
    assert "carts: n=4" in said(capsys, monkeypatch, *file)


def test_a_file_is_read_whole(config: Path, tmp_path: Path) -> None:
    file = read_settings_file(config)
    assert file.settings["partitions"] == 16
    assert file.settings["data"] == str(tmp_path / "data")
    assert file.buckets == {"carts": {"n": "2", "r": "1", "quorum": "sloppy"}}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("node = ", "Invalid value"),
        ('port = "1"', "unknown setting 'port'"),
        ("node = 1", "node must be a string"),
        ('partitions = "16"', "partitions must be a whole number"),
        ("partitions = true", "partitions must be a whole number"),
        ("buckets = 3", "must be tables"),
        ("[[buckets]]\nn = 1", "must be tables"),
        ("[buckets]\ncarts = 1", "must be tables"),
        ("node = '\udcff'", "can't decode"),
        ("hint-count = 1", r"hint-count belongs into the table \[quorum\]"),
        ("quorum = 3", r"quorum must be a table: \[quorum\]"),
        ("[[gossip]]\nprobe-interval = 1", r"gossip must be a table: \[gossip\]"),
        ("[quorum]\nhint_count = 1", "quorum: unknown setting 'hint_count' .known: default-timeout, "),
        ("[anti-entropy]\nTABLE = 1", "anti-entropy: unknown setting 'TABLE'"),
        ("[limits]\nkey = 1", "unknown setting 'limits'"),
        ("partitions = " + "1" * 5000, "integer string conversion"),
        ("node = " + "[" * 100_000, "recursion"),
        (r'data = "a\u0000b"', "data must not contain a NUL"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=reason) as caught:
        read_settings_file(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--config", "/nowhere"], "No such file"),
        (["--bucket", "carts:n=two"], "n='two'"),
        (["--bucket", "Carts"], "bucket name 'Carts'"),
        (["--bucket", "carts", "--bucket", "carts"], "configured twice"),
        (["--listen", "7001"], "HOST:PORT"),
        (["--listen", "localhost:0"], "HOST:PORT"),
        (["--listen", "127.0.0.1:99999"], "HOST:PORT"),
        (["--listen", "127.0.0.1:" + "7" * 5000], "HOST:PORT"),
        (["--listen", "no..host:7001"], "no such name can be looked up"),
        (["--listen", "n" * 64 + ":7001"], "no such name can be looked up"),
        (["--listen", "\udcff:7001"], "no such name can be looked up"),
        (["--listen", "no.such.host.invalid:7001"], "cannot listen on no.such.host.invalid:7001: "),
        (["--listen", "203.0.113.1:7001"], "cannot listen on 203.0.113.1:7001: "),
        (["--cluster-id", "ü"], "cluster-id 'ü'"),
        (["--partitions", "many"], "'many' is not a valid integer"),
        (["--replicas", "0"], "replicas=0"),
        (["--max-value", "16777217"], "between 1 and 16777216"),
        (["--durability", "fsync"], "'fsync' is not one of 'sync', 'interval', 'none'"),
        (["--compaction", "none"], "'none' is not one of 'size-tiered', 'leveled'"),
        (["--memtable-bytes", "0"], "0 is not in the range x>=1"),
        (["--cache-bytes", "-1"], "-1 is not in the range x>=0"),
        (["--hint-count", "-1"], "-1 is not in the range x>=0"),
        (["--hint-count", "1.5"], "'1.5' is not a valid integer"),
        (["--hint-count", "1" + "0" * 40], "hint-count=1"),
        (["--hint-age", "0"], "0.0 is not in the range x>0"),
        (["--hint-age", "nan"], "hint-age=nan must be more than 0"),
        (["--hint-rate", "inf"], "hint-rate=inf must be more than 0"),
        (["--log-level", "loud"], "'loud' is not one of"),
        (["--frobnicate"], "No such option"),
        (["extra"], "unexpected extra argument"),
    ],
)
def test_a_wrong_flag_is_one_line(
    arguments: list[str],
    reason: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = ["--node", "n1", "--data", str(tmp_path / "data"), "--initial-cluster", "n1=127.0.0.1:1"]
    assert reason in said(capsys, monkeypatch, *good, *arguments)
    assert not (tmp_path / "data").exists()


def started_with(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> ServerSettings:
    """What kvnode would start with."""
    given: list[ServerSettings] = []

    async def serve(settings: ServerSettings) -> None:
        given.append(settings)

    monkeypatch.setattr("kvstore.server.main.serve", serve)
    monkeypatch.setattr("sys.argv", ["kvnode", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    return given[0]


def test_settings_of_the_engine_come_from_flags_environment_and_file(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = ("--config", str(config), "--node", "n1")
    assert started_with(monkeypatch, *file).engine == Options()
    text = 'durability = "none"\ncompaction = "leveled"\nmemtable-bytes = 1000\ncache-bytes = 0\n'
    config.write_text(text + config.read_text())
    monkeypatch.setenv("KVNODE_MEMTABLE_BYTES", "2000")
    monkeypatch.setenv("KVNODE_DURABILITY", "sync")
    found = started_with(monkeypatch, *file, "--durability", "interval").engine
    assert found == Options(
        memtable_bytes=2000, cache_bytes=0, durability=Durability.INTERVAL, compaction=Compaction.LEVELED
    )


def test_every_setting_of_a_table_reaches_the_node(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ("--config", str(config), "--node", "n1")
    assert started_with(monkeypatch, *file).node_settings == NodeSettings()
    changed = {kind.TABLE: {each.name: other_value(each) for each in settings_of(kind)} for kind in TABLES}
    with config.open("a") as text:
        for table, values in changed.items():
            text.write(f"[{table}]\n")
            text.writelines(f"{name.replace('_', '-')} = {value}\n" for name, value in values.items())
    found = started_with(monkeypatch, *file).node_settings
    tables = {kind.TABLE: asdict(of) for kind in TABLES for of in vars_of(found) if isinstance(of, kind)}
    assert tables == changed


def other_value(setting: Setting) -> float:
    """A good value that is not the default, and keeps the settings of a table in order."""
    return setting.default + 1 if setting.bounds.allow(setting.default + 1) else setting.bounds.most


def vars_of(settings: NodeSettings) -> list[object]:
    return [getattr(settings, field.name) for field in fields(settings)]


def test_flags_and_environment_win_over_the_table(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ("--config", str(config), "--node", "n1")
    config.write_text(config.read_text() + "[quorum]\nhint-count = 1\nhint-rate = 2\nhint-age = 3.5\n")
    monkeypatch.setenv("KVNODE_HINT_RATE", "20")
    quorum = started_with(monkeypatch, *file, "--hint-count", "10").node_settings.quorum
    assert (quorum.hint_count, quorum.hint_rate, quorum.hint_age) == (10, 20.0, 3.5)


def wrong_values(setting: Setting) -> list[str]:
    """What a setting must not be: text, other kinds, just out of its bounds, absurdly so."""
    wrong = ["true", '"1"', "[]", "{a = 1}", "1979-05-27", "nan", "-1", "-inf", "1" + "0" * 400]
    wrong += ["1.0"] if setting.whole else []
    wrong += [] if setting.bounds.never else ["inf"]
    wrong += ["0"] if setting.bounds.above else [f"{setting.bounds.least - 1:g}"]
    return [*wrong, str(int(setting.bounds.most) + 1)]


SETTINGS = [(kind.TABLE, setting) for kind in TABLES for setting in settings_of(kind)]


@pytest.mark.parametrize(("table", "setting"), SETTINGS, ids=lambda part: getattr(part, "label", part))
def test_a_wrong_value_in_a_table_is_one_line(table: str, setting: Setting, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    for value in wrong_values(setting):
        path.write_text(f"[{table}]\n{setting.label} = {value}\n")
        with pytest.raises(ConfigError) as caught:
            read_settings_file(path)
        assert str(caught.value).startswith(f"{path}: {table}: {setting.label}="), value
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("table", "setting"), SETTINGS, ids=lambda part: getattr(part, "label", part))
def test_bounds_themselves_are_good_values(table: str, setting: Setting) -> None:
    bounds = setting.bounds
    good = [bounds.most, bounds.least + 1 if bounds.above else bounds.least, setting.default]
    for value in [*good, float("inf")] if bounds.never else good:
        setting.check(table, int(value) if setting.whole else value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("default-timeout = 9\nmax-timeout = 8", "default-timeout=9 must not exceed max-timeout=8"),
        (
            "hint-interval = 9\nhint-longest-interval = 8",
            "hint-interval=9 must not exceed hint-longest-interval=8",
        ),
        ("[anti-entropy]\npause = 2", "pause=2 must not exceed longest-pause=1.0"),
        ("[anti-entropy]\nreap-age = 599.9", "reap-age=599.9 must be at least 600"),
        ("[gossip]\nprobe-timeout = 0.5", "probe-interval=0.5 must exceed probe-timeout=0.5"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(
    config: Path,
    text: str,
    reason: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config.write_text(config.read_text() + f"[quorum]\n{text}\n")
    assert reason in said(capsys, monkeypatch, "--config", str(config), "--node", "n1")


def test_what_is_missing_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Missing option '--node'" in said(capsys, monkeypatch)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigError("wrong"), 2, "wrong"),
        (WrongDataDirectory("another's"), 2, "another's"),
        (
            Corruption("d/MANIFEST", "is damaged"),
            3,
            "d/MANIFEST: is damaged; started with an empty --data, the node gets all from the others",
        ),
        (StorageFull("d/LOCK: no space left on the disk"), 3, "d/LOCK: no space left on the disk"),
        (StorageFailed("d/LOCK: input/output error"), 3, "d/LOCK: input/output error"),
        (UnsupportedFormat("d/1.sst", "is of format 9"), 3, "d/1.sst: is of format 9"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, KVError) else "",
)
def test_why_a_node_did_not_start_is_one_line_and_only_damage_asks_for_an_empty_directory(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: KVError,
    code: int,
    text: str,
) -> None:
    async def serve(_: ServerSettings) -> None:
        raise error

    good = ["--node", "n1", "--data", str(tmp_path / "data"), "--initial-cluster", "n1=127.0.0.1:1"]
    monkeypatch.setattr("kvstore.server.main.serve", serve)
    monkeypatch.setattr("sys.argv", ["kvnode", *good])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().err) == (code, f"kvnode: {text}\n")


@pytest.mark.parametrize("page", ["operations.md", "settings.md"])
def test_a_node_takes_the_settings_of_a_page(
    page: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails at the first thing it does with them: to listen on an address that no machine has."""
    text = (Path(__file__).parents[2] / "docs" / page).read_text()
    (block,) = re.findall(r"^```(?:sh|toml)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    given = block.replace("10.0.0.", "192.0.2.").replace("/var/lib/kvstore", str(tmp_path / "data"))
    words = shlex.split(given.replace("\\\n", " "))[1:]
    if page == "settings.md":
        (tmp_path / "kvnode.toml").write_text(given)
        words = ["--config", str(tmp_path / "kvnode.toml")]
    assert "cannot listen on 192.0.2.1:7001: " in said(capsys, monkeypatch, *words)
