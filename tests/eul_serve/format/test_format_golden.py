"""The committed golden bundle: no change of the code may change how its bytes read, or which bytes are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from eul_serve.format import BundleConfig, Manifest, read_bundle, write_bundle
from eul_serve.format.weights import dump_layers, load_layers

GOLDEN = Path(__file__).parent / "golden"
# sha256 of the committed manifest.json. If this fails, make a new version of the format, not a new number.
REVISION = "sha256:7bc183176a6bee7e99d2af62d69f4f810bc91caa015f63c6ac8e1cff483cfa7d"
# First value of the first layer's D in the committed file: 0.1257302... in float32, numpy's default_rng(0).
FIRST = 0.12573022


def test_the_golden_bundle_reads_as_ever() -> None:
    bundle = read_bundle(GOLDEN, "sha256:" + 64 * "a")
    assert bundle.revision == REVISION
    assert bundle.widths == {"model.layers.0.mlp": 3, "model.layers.1.mlp": 2}
    assert bundle.config == BundleConfig(rank=2, base_fingerprint="sha256:" + 64 * "a")
    assert [(request.id, request.units) for request in bundle.manifest.requests] == [("r1", (0, 1)), ("r2", (1, 2))]
    assert bundle.manifest.artifacts["fusion.safetensors"].size == 123
    layer = load_layers(bundle)["model.layers.0.mlp"]
    assert layer.down[0, 0].item() == pytest.approx(FIRST, rel=1e-7)


def test_the_golden_bundle_is_written_as_ever(tmp_path: Path) -> None:
    bundle = read_bundle(GOLDEN)
    assert Manifest.from_bytes(bundle.manifest.to_bytes()).to_bytes() == (GOLDEN / "manifest.json").read_bytes()
    assert bundle.config.to_bytes() == (GOLDEN / "adapter_config.json").read_bytes()
    files = {name: (GOLDEN / name).read_bytes() for name in bundle.manifest.files}
    assert write_bundle(tmp_path / "copy", bundle.manifest, files).revision == REVISION
    for path in GOLDEN.iterdir():
        assert (tmp_path / "copy" / path.name).read_bytes() == path.read_bytes()


def test_layers_of_the_golden_bundle_are_dumped_in_one_way_only() -> None:
    layers = load_layers(read_bundle(GOLDEN))
    assert dump_layers(layers) == dump_layers(dict(reversed(list(layers.items()))))
