"""Generate `eul_serve/v1/*_pb2*` from `proto/`: a build hook, and `python proto/build.py`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def generate(root: Path) -> None:
    """Run protoc over every file of `proto/eul_serve/v1`, writing beside `eul_serve/v1/__init__.py`."""
    from grpc_tools import protoc

    sources = sorted((root / "proto" / "eul_serve" / "v1").glob("*.proto"))
    include = Path(protoc.__file__).parent / "_proto"
    arguments = ["protoc", f"--proto_path={root / 'proto'}", f"--proto_path={include}"]
    arguments += [f"--{kind}_out={root}" for kind in ("python", "pyi", "grpc_python")]
    if sources and protoc.main(arguments + [str(source) for source in sources]) != 0:
        sys.exit("proto/build.py: protoc failed; its message is above")


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand, without hatchling
    pass
else:

    class ProtobufBuildHook(BuildHookInterface):  # type: ignore[type-arg]
        """Generates the protobuf code before a wheel or an editable install is built."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Hatch calls this first."""
            generate(Path(self.root))


if __name__ == "__main__":
    generate(Path(__file__).resolve().parent.parent)
