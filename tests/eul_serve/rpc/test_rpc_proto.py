"""The protobuf files keep to buf's rules: names, versions, comments on everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BUF = "buf-bin==1.75.0"


@pytest.mark.tools
def test_buf_finds_nothing(tmp_path: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "pip", "install", "--quiet", "--target", str(tmp_path / "buf"), BUF]
    subprocess.run(command, check=True, timeout=300)
    config = '{"version": "v2", "modules": [{"path": "proto"}], "lint": {"use": ["STANDARD", "COMMENTS"]}}'
    buf = next((tmp_path / "buf").rglob("bin/buf"))
    done = subprocess.run([str(buf), "lint", "--config", config], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
