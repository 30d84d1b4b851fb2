"""A newcomer follows `docs/how-to/publish.md`: every command of it is run, in order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from eul_serve.format import Bundle, Reference
from eul_serve.registry.local import LocalRegistry
from tests.eul_serve.registry_files import acts

PlainBundle = Callable[..., Bundle]
ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "how-to" / "publish.md"


def script() -> str:
    """The page's commands."""
    text = "\n".join(re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE))
    return f"set -euo pipefail\nset -x\n{text}"


def test_every_command_of_the_page(tmp_path: Path, plain_bundle: PlainBundle) -> None:
    first, second, other = plain_bundle("r1", seed=1), plain_bundle("r1", "r2", seed=2), plain_bundle("r2", seed=3)
    program, work = tmp_path / "bin" / "eul", tmp_path / "work"
    for folder in (program.parent, work):
        folder.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom eul_serve.cli.main import main\nmain()\n")
    program.chmod(0o755)
    variables = {
        "FIRST": str(first.path), "SECOND": str(second.path), "OTHER": str(other.path),
        "PATH": os.pathsep.join([str(program.parent), os.environ["PATH"]]),
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", script()], cwd=work, env={**os.environ, **variables}, capture_output=True, text=True, timeout=300
    )
    told = f"{done.stdout}\n{done.stderr[-6000:]}"
    assert done.returncode == 0, told
    registry, backup = (LocalRegistry(work / name) for name in ("registry", "backup"))
    assert registry.names() == ["layers", "poems"], told
    assert registry.revisions("poems") == [other.revision]
    assert registry.standing().deleted.keys() == {first.revision, second.revision}
    assert registry.standing().held.keys() == {other.revision}
    assert registry.standing().banned == {}
    assert backup.resolve(Reference.parse("poems")) == other.revision
    kinds = {act["act"] for act in acts(work / "registry")}
    assert kinds == {"store", "publish", "promote", "rollback", "hold", "ban", "lift", "delete", "collect"}
    assert {act["actor"] for act in acts(work / "registry")} == {"ann"}
    assert "nothing changed; the log's last is sha256:" in done.stdout.splitlines()[-1]
