"""The protobuf files keep to buf's rules, and to `golden/api.binpb`, the API that clients were built on.

After a change that breaks no client:

    buf build proto --as-file-descriptor-set --exclude-source-info -o tests/eul_serve/rpc/golden/api.binpb
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from tests.eul_serve.service_home import ServiceHome, token_of

pytestmark = pytest.mark.tools
ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).parent / "golden" / "api.binpb"
BUF = "buf-bin==1.75.0"
RULES = {"lint": {"use": ["STANDARD", "COMMENTS"]}, "breaking": {"use": ["FILE"]}}


@pytest.fixture(scope="module")
def buf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("buf")
    command = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--target", str(folder), BUF]
    subprocess.run(command, check=True, timeout=300)
    return next(folder.rglob("bin/buf"))


def run(buf: Path, *words: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    config = json.dumps({"version": "v2", "modules": [{"path": "proto"}], **RULES})
    return subprocess.run([str(buf), *words, "--config", config], cwd=root, capture_output=True, text=True, timeout=120)


def test_buf_finds_nothing(buf: Path) -> None:
    done = run(buf, "lint")
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_client_breaks(buf: Path) -> None:
    done = run(buf, "breaking", "--against", str(GOLDEN))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("generation_service.proto", "string adapter = 2;", "string adapter = 20;"),
        ("generation_service.proto", "bool echo = 12;", ""),
        ("generation_service.proto", "rpc Classify(ClassifyRequest)", "rpc Sort(ClassifyRequest)"),
        ("bundle_service.proto", "BUNDLE_STATE_ACTIVE = 7;", "BUNDLE_STATE_SERVING = 7;"),
        ("admin_service.proto", "uint32 in_flight = 1;", "string in_flight = 1;"),
    ],
)
def test_what_would_break_one_is_seen(buf: Path, tmp_path: Path, file: str, old: str, new: str) -> None:
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    changed = tmp_path / "proto" / "eul_serve" / "v1" / file
    text = changed.read_text()
    assert old in text
    changed.write_text(text.replace(old, new, 1))
    done = run(buf, "breaking", "--against", str(GOLDEN), root=tmp_path)
    assert done.returncode != 0
    assert file in done.stdout


def test_the_golden_api_is_the_newest(buf: Path, tmp_path: Path) -> None:
    """What was added to the files is a promise from then on."""
    made = tmp_path / "api.binpb"
    done = run(buf, "build", "--as-file-descriptor-set", "--exclude-source-info", "-o", str(made))
    assert done.returncode == 0, done.stderr
    assert FileDescriptorSet.FromString(made.read_bytes()) == FileDescriptorSet.FromString(GOLDEN.read_bytes())


async def test_the_page_s_commands_ask_a_server(buf: Path, home: ServiceHome) -> None:
    revision = home.publish("poems", "stable", "r1", seed=1)
    home.write_policy(acme={"default": "poems", "bundles": ["poems:stable"]})
    page = (ROOT / "docs" / "reference" / "api.md").read_text()
    commands = re.search(r"^```sh\n(buf curl.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert commands is not None
    variables = {**os.environ, "EUL_TOKEN": token_of("acme"), "PATH": f"{buf.parent}:{os.environ['PATH']}"}
    async with home.serve() as service:
        text = commands[1].replace("127.0.0.1:8500", service.address)
        done = await asyncio.to_thread(
            subprocess.run, ["bash", "-ec", text], env=variables, capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(revision) == 2
    assert '"finishReason": "FINISH_REASON_LENGTH"' in done.stdout
