"""Sequences of 1 to 30 requests through bundles on disk: added one by one, in any order, and revoked again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eul_serve.errors import BundleMismatchError, InputError
from eul_serve.format import Bundle, read_bundle
from eul_serve.format.weights import load_layers
from eul_trainer.fusion.fuse import fuse, merged
from eul_trainer.fusion.members import Member, collect, members_of
from eul_trainer.fusion.methods import METHODS
from eul_trainer.fusion.revoke import revoke
from eul_trainer.fusion.settings import METHODS as NAMES
from eul_trainer.fusion.settings import FuseSettings

MakeMember = Callable[..., Member]
MakeLayer = Callable[..., Bundle]
SETTINGS = {
    "concat": FuseSettings(),
    "regression": FuseSettings(method="regression", shrink=0.9),
    "compress": FuseSettings(method="compress", rank=4),
    "distil": FuseSettings(method="distil", distil_steps=2),
}


@pytest.fixture(scope="module")
def thirty(make_layer: MakeLayer, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Thirty random layers."""
    folder = tmp_path_factory.mktemp("thirty")
    return [make_layer(folder / str(seed), seed).path for seed in range(30)]


def test_the_catalogue_and_the_command_line_name_the_same_methods() -> None:
    assert tuple(METHODS) == NAMES
    assert all(set(found.reads) <= set(FuseSettings.__slots__) for found in METHODS.values())


@pytest.mark.parametrize("how", list(SETTINGS))
@pytest.mark.parametrize("count", [2, 3, 7])
def test_fusing_step_by_step_is_fusing_at_once(how: str, count: int, thirty: list[Path], tmp_path: Path) -> None:
    chosen, layers = SETTINGS[how], thirty[:count]
    whole = fuse(layers, tmp_path / "whole", chosen)
    grown = layers[0]
    for place, layer in enumerate(layers[1:]):
        grown = fuse([grown, layer], tmp_path / f"step{place}", chosen).path
    assert read_bundle(grown).revision == whole.revision
    assert (grown / "adapter_model.safetensors").read_bytes() == whole.weights.read_bytes()
    assert (grown / "fusion.safetensors").read_bytes() == (whole.path / "fusion.safetensors").read_bytes()
    tree = fuse([fuse(layers[1:], tmp_path / "tail", chosen).path, layers[0]], tmp_path / "tree", chosen)
    assert tree.revision == whole.revision


@pytest.mark.parametrize("how", list(SETTINGS))
def test_revoking_takes_back_adding(how: str, thirty: list[Path], tmp_path: Path) -> None:
    chosen = SETTINGS[how]
    four = fuse(thirty[:4], tmp_path / "four", chosen)
    five = fuse([four.path, thirty[4]], tmp_path / "five", chosen)
    assert revoke(five.path, ["r4"], tmp_path / "back").revision == four.revision
    two = fuse([thirty[0], thirty[4]], tmp_path / "two", chosen)
    assert revoke(five.path, ["r1", "r2", "r3"], tmp_path / "rest").revision == two.revision
    alone = revoke(two.path, ["r0"], tmp_path / "alone")
    assert alone.weights.read_bytes() == (thirty[4] / "adapter_model.safetensors").read_bytes()


def test_thirty_requests_are_added_and_revoked(thirty: list[Path], tmp_path: Path) -> None:
    fused = fuse(thirty, tmp_path / "thirty", FuseSettings())
    assert fused.config.rank == 90
    assert len(fused.manifest.requests) == 30
    rest = revoke(fused.path, [f"r{seed}" for seed in range(1, 30)], tmp_path / "rest")
    assert rest.weights.read_bytes() == (thirty[0] / "adapter_model.safetensors").read_bytes()


@given(st.permutations(range(6)), st.sampled_from(sorted(SETTINGS)))
@settings(max_examples=12)
def test_the_order_of_members_changes_nothing_that_matters(make_member: MakeMember, order: list[int], how: str) -> None:
    """Here the members keep the order that they are given in; on disk they are sorted before."""
    plain = [make_member(seed) for seed in range(6)]
    if how == "distil":  # its draws are made member by member
        return
    fused = [merged(members, SETTINGS[how]).layers for members in (plain, [plain[place] for place in order])]
    y = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
    for module, layer in fused[0].items():
        torch.testing.assert_close(layer.apply(y), fused[1][module].apply(y), rtol=1e-4, atol=1e-4)


def test_layers_of_other_ranks_go_side_by_side(make_layer: MakeLayer, tmp_path: Path) -> None:
    layers = [make_layer(tmp_path / str(rank), rank, rank=rank) for rank in (2, 5)]
    fused = fuse([layer.path for layer in layers], tmp_path / "out", FuseSettings())
    assert fused.config.rank == 7
    assert {request.id: request.units for request in fused.manifest.requests} == (
        {"r2": (0, 2), "r5": (2, 7)} if layers[0].revision < layers[1].revision else {"r5": (0, 5), "r2": (5, 7)}
    )
    back = revoke(fused.path, ["r5"], tmp_path / "back")
    assert load_layers(back)["model.layers.0.mlp"].down.shape == (2, 6)


def test_layers_from_other_seeds_are_averaged_by_nobody(make_layer: MakeLayer, tmp_path: Path) -> None:
    layers = [make_layer(tmp_path / str(seed), seed, init_seed=seed) for seed in (0, 1)]
    paths = [layer.path for layer in layers]
    with pytest.raises(BundleMismatchError, match=r"one D, found the seeds 0, 1; train them with one --init-seed"):
        fuse(paths, tmp_path / "no", FuseSettings(method="regression"))
    far = [make_layer(tmp_path / f"far{seed}", seed, init_seed=seed).path for seed in (8, 1)]
    with pytest.raises(BundleMismatchError, match="found the seeds 1, 8;"):  # a set has 8 before 1
        fuse(far, tmp_path / "no", FuseSettings(method="regression"))
    fused = fuse(paths, tmp_path / "out", FuseSettings())
    assert sorted(str(one.init_seed) for one in members_of(fused)) == ["0", "1"]
    with pytest.raises(BundleMismatchError, match="found the seeds 0, 1"):  # a fused bundle remembers them
        fuse([fused.path], tmp_path / "no", FuseSettings(method="regression"))


def test_layers_for_another_base_model_are_refused(make_layer: MakeLayer, tmp_path: Path) -> None:
    layers = [make_layer(tmp_path / "a", 0), make_layer(tmp_path / "b", 1, base="sha256:" + "1" * 64)]
    with pytest.raises(BundleMismatchError, match="base_fingerprint differs"):
        fuse([layer.path for layer in layers], tmp_path / "out", FuseSettings())


def test_a_layer_on_top_of_others_needs_them(make_layer: MakeLayer, tmp_path: Path) -> None:
    below = [make_layer(tmp_path / str(seed), seed) for seed in (0, 1)]
    above = make_layer(tmp_path / "2", 2, on_top_of=[layer.revision for layer in below])
    with pytest.raises(InputError, match=f"'r2': its layer was trained on top of {below[1].revision}, which is not"):
        fuse([below[0].path, above.path], tmp_path / "no", FuseSettings())
    fused = fuse([layer.path for layer in (*below, above)], tmp_path / "out", FuseSettings())
    with pytest.raises(InputError, match=r"^--request 'r1': the layers of r2 were trained .*--request r2\) and train"):
        revoke(fused.path, ["r1"], tmp_path / "no")
    assert not (tmp_path / "no").exists()
    assert revoke(fused.path, ["r2"], tmp_path / "lower").manifest.request_ids == {"r0", "r1"}
    assert revoke(fused.path, ["r1", "r2"], tmp_path / "one").manifest.request_ids == {"r0"}
    assert [one.on_top_of for one in collect([read_bundle(fused.path)]) if one.request.id == "r2"] == [
        tuple(layer.revision for layer in below)
    ]


def test_revoking_what_is_not_there_or_all_there_is(thirty: list[Path], tmp_path: Path) -> None:
    fused = fuse(thirty[:2], tmp_path / "out", FuseSettings())
    with pytest.raises(InputError, match=r"'nobody': not in the bundle, which has r[01], r[01]"):
        revoke(fused.path, ["nobody"], tmp_path / "rest")
    with pytest.raises(InputError, match=r"^--request 'r0': the bundle has no other request"):
        revoke(fused.path, ["r0", "r1"], tmp_path / "rest")
    assert not (tmp_path / "rest").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"statistics": None}, r"came without fusion\.safetensors"),
        ({"tokens": 12, "moments": {}}, "has 12 answer tokens; below 64 no statistics are stored"),
        ({"tokens": 64, "moments": {}}, "trained with --statistics none"),
    ],
)
def test_missing_statistics_say_why(make_member: MakeMember, change: dict[str, Any], words: str) -> None:
    full = make_member(0)
    assert full.statistics is not None
    found = None if "statistics" in change else replace(full.statistics, **change)
    for how in ("regression", "compress"):
        with pytest.raises(InputError, match=words):
            merged([replace(full, statistics=found), make_member(1)], FuseSettings(method=how))


def test_a_method_that_reads_inputs_says_that_they_are_not_stored(make_member: MakeMember) -> None:
    members = [make_member(0), make_member(1, keep="units")]
    for how in ("regression", "distil"):
        with pytest.raises(InputError, match=r"'r1': its statistics have no moments of the inputs.*--statistics full"):
            merged(members, FuseSettings(method=how))


def test_a_fused_bundle_without_its_statistics_says_where_they_are(thirty: list[Path], tmp_path: Path) -> None:
    fused = fuse(thirty[:2], tmp_path / "out", FuseSettings())
    (fused.path / "fusion.safetensors").unlink()
    with pytest.raises(InputError, match=r"expected fusion\.safetensors"):
        revoke(fused.path, ["r0"], tmp_path / "rest")
