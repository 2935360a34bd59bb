"""Build kvstore/v1 from proto/kvstore/v1: part of every wheel and editable install, and of `make proto`."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = Path("kvstore/v1")


def generate(root: Path) -> None:
    """Compile root/proto/kvstore/v1/*.proto into the package root/kvstore/v1, in place of what was there.

    The old package stays untouched unless all of the new one could be built.

    Raises:
        RuntimeError: a .proto does not compile, or there is none; protoc has said on stderr where.
    """
    sources = sorted((root / "proto" / PACKAGE).glob("*.proto"))
    with tempfile.TemporaryDirectory(dir=root / PACKAGE.parent, prefix=".v1-") as scratch:
        outputs = [f"--{kind}_out={scratch}" for kind in ("python", "pyi", "grpc_python")]
        if protoc.main(["protoc", f"-I{root / 'proto'}", *outputs, *map(str, sources)]) != 0:
            raise RuntimeError(f"no Python code could be generated from {root / 'proto' / PACKAGE}")
        built = Path(scratch) / PACKAGE
        (built / "__init__.py").write_text('"""The wire protocol, generated from proto/kvstore/v1."""\n')
        shutil.rmtree(root / PACKAGE, ignore_errors=True)
        built.rename(root / PACKAGE)


class ProtocolBuildHook(BuildHookInterface[Any]):
    """Generates the protocol package before hatchling collects the files of a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See BuildHookInterface."""
        generate(Path(self.root))


if __name__ == "__main__":
    try:
        generate(Path(__file__).resolve().parent)
    except RuntimeError as error:
        sys.exit(str(error))
