"""The code of docs/grpc.md, as printed, against real nodes: each part where its tools are installed.

What grpcurl is asked to do is done in Python as well, so that at least the calls are tried everywhere.
Nothing is fetched from the network: Go's modules must be in the module cache, Node's packages in a directory
of NODE_PATH.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2

from kvstore.local.cluster import LocalCluster
from kvstore.v1 import admin_pb2, client_pb2
from tests.patience import PATIENCE
from tests.programs import output_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "grpc.md").read_text()
ADDRESS = "127.0.0.1:7001"
SERVICES = (health_pb2, admin_pb2, client_pb2)
"""Imported, and so their services are known by name."""


def block(chapter: str, language: str = "sh") -> str:
    """The first block of a language in a chapter of the page."""
    _, _, text = PAGE.partition(f"\n## {chapter}\n")
    found = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert found, f"no block of {language} in {chapter}"
    return found[1]


def commands(chapter: str, cluster: LocalCluster) -> list[list[str]]:
    """The words of each command of a chapter, for this cluster."""
    text = block(chapter).replace("\\\n", " ").replace(ADDRESS, endpoint(cluster))
    return [shlex.split(line) for line in text.splitlines()]


def endpoint(cluster: LocalCluster) -> str:
    return cluster.endpoints.split(",")[0]


def installed(*programs: str) -> None:
    """Skip the test unless these are here."""
    if missing := [program for program in programs if shutil.which(program) is None]:
        pytest.skip(f"{', '.join(missing)} is not installed")


def test_what_grpcurl_is_asked_to_call_can_be_called(shared_cluster: LocalCluster) -> None:
    replies: list[dict[str, Any]] = []
    with grpc.insecure_channel(endpoint(shared_cluster)) as channel:
        for words in commands("grpcurl", shared_cluster):
            service, slash, method = words[-1].partition("/")
            if slash:
                request = words[words.index("-d") + 1] if "-d" in words else "{}"
                replies.append(call(channel, service, method, request))
    assert replies[0] == {"status": "SERVING"}
    assert replies[1]["node"] == "n1"
    scanned = [sibling for each in replies[-2]["keys"] for sibling in each["siblings"]]
    for siblings in (scanned, replies[-1]["siblings"]):
        assert "MyBhcHBsZXM=" in {sibling["value"] for sibling in siblings}


def call(channel: grpc.Channel, service: str, method: str, request: str) -> dict[str, Any]:
    found = descriptor_pool.Default().FindServiceByName(service).methods_by_name[method]
    message = json_format.Parse(request, message_factory.GetMessageClass(found.input_type)())
    parse = message_factory.GetMessageClass(found.output_type).FromString
    send: Any = channel.unary_unary(
        f"/{service}/{method}",
        request_serializer=type(message).SerializeToString,
        response_deserializer=parse,
    )
    return json_format.MessageToDict(send(message, timeout=PATIENCE), preserving_proto_field_name=True)


def test_grpcurl(shared_cluster: LocalCluster, tmp_path: Path) -> None:
    installed("grpcurl")
    said = [output_of(words, tmp_path) for words in commands("grpcurl", shared_cluster)]
    assert "kvstore.v1.KV" in said[0]
    assert "rpc Put" in said[1]
    assert "MyBhcHBsZXM=" in said[-1]


def test_go(shared_cluster: LocalCluster, tmp_path: Path) -> None:
    installed("go", "protoc-gen-go", "protoc-gen-go-grpc")
    cache = Path(output_of(["go", "env", "GOMODCACHE"], tmp_path).strip())
    grpc_go = [path for path in cache.glob("*/grpc@*") if (path / "credentials/insecure").is_dir()]
    if not grpc_go:
        pytest.skip(f"Go's module grpc-go is not in {cache}")
    module = str(grpc_go[-1].relative_to(cache)).partition("@")[0]
    named = "// and of the module grpc-go its packages grpc and credentials/insecure"
    code = block("Go", "go")
    assert named in code
    (tmp_path / "main.go").write_text(code.replace(named, f'"{module}"; "{module}/credentials/insecure"'))
    (tmp_path / "go.mod").write_text("module example\n\ngo 1.25.0\n")
    script = block("Go").replace(ADDRESS, endpoint(shared_cluster)).replace("-I PROTO", f"-I {ROOT}/proto")
    script = script.replace("protoc -I", f"{sys.executable} -m grpc_tools.protoc -I")
    said = output_of(
        ["sh", "-ec", script],
        tmp_path,
        GOPROXY=f"file://{cache}/cache/download",
        GOSUMDB="off",
        GOFLAGS="-mod=mod",
    )
    assert said.splitlines()[-1] == "2 pears"


def test_node_js(shared_cluster: LocalCluster, tmp_path: Path) -> None:
    installed("node")
    (tmp_path / "client.js").write_text(block("Node.js", "js"))
    for package in ("@grpc/grpc-js", "@grpc/proto-loader"):
        asked = ["node", "-e", f"require.resolve({package!r})"]
        if subprocess.run(asked, cwd=tmp_path, capture_output=True, check=False).returncode:
            pytest.skip(f"Node.js does not find {package}: install it, and set NODE_PATH to its node_modules")
    said = output_of(["node", "client.js", str(ROOT / "proto"), endpoint(shared_cluster)], tmp_path)
    assert "3 apples" in said
