"""Fusion: the closed forms against NumPy, exact sums, order, single layers, and taking a request out again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eul_serve.errors import BundleFormatError, BundleMismatchError, InputError
from eul_serve.format import Bundle, ForgottenRequest, describe_files, read_bundle
from eul_serve.format.digest import digest_bytes
from eul_serve.format.weights import LayerWeights, load_layers
from eul_serve.peft import load
from eul_trainer.fusion.concat import concat, corrected
from eul_trainer.fusion.fuse import FuseSettings, fuse, merge, revoke
from eul_trainer.fusion.members import Member, collect
from eul_trainer.fusion.regression import regress, regression
from eul_trainer.fusion.retained import RetainGram
from eul_trainer.fusion.shapes import checked_store
from eul_trainer.fusion.solve import resolve_up
from eul_trainer.fusion.store import Entry, Store, dump_store, read_store
from eul_trainer.model import load_model
from eul_trainer.records import Fields, read_rows
from eul_trainer.statistics import LayerStatistics, Moments

MakeBundle = Callable[..., Bundle]
REGRESSION = FuseSettings(method="regression")
CONCAT = FuseSettings()
MODULE = "model.layers.0.mlp"


def gram(seed: int, size: int, tokens: int = 40) -> torch.Tensor:
    data = torch.from_numpy(np.random.default_rng(seed).normal(size=(tokens, size)))
    return (data.T @ data / tokens).float()


def member(seed: int, *, width: int = 6, rank: int = 3, tokens: int = 100, bias: bool = True) -> Member:
    """A random layer with random moments."""
    draw = torch.Generator().manual_seed(seed)
    layer = LayerWeights(
        torch.randn(rank, width, generator=draw),
        torch.randn(width, rank, generator=draw),
        torch.randn(rank, generator=draw) if bias else None,
    )
    digest = digest_bytes(str(seed).encode())
    moments = {MODULE: Moments(inputs=gram(seed, width + 1), units=gram(seed + 1, rank))}
    return Member(
        request=ForgottenRequest(id=f"r{seed}", data=digest, units=None),
        revision=digest,
        layers={MODULE: layer},
        statistics=LayerStatistics(tokens=tokens, moments=moments),
    )


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(0, 1000), st.floats(1e-4, 1.0))
def test_regression_is_the_ridge_solution_of_numpy(count: int, inner: int, outer: int, seed: int, ridge: float) -> None:
    """The closed form minimises sum_i |X_i (W - W_i)|^2 + l |W - W_i|^2, which is one stacked least-squares problem."""
    draw = np.random.default_rng(seed)
    data = [draw.normal(size=(7, inner)) for _ in range(count)]
    maps = [draw.normal(size=(outer, inner)) for _ in range(count)]
    level = ridge * np.mean([np.trace(x.T @ x) for x in data]) / inner
    left = np.concatenate([np.concatenate([x, np.sqrt(level) * np.eye(inner)]) for x in data])
    right = np.concatenate(
        [np.concatenate([x, np.sqrt(level) * np.eye(inner)]) @ w.T for x, w in zip(data, maps, strict=True)]
    )
    expected = np.linalg.lstsq(left, right, rcond=None)[0].T
    found = regress([torch.from_numpy(x.T @ x) for x in data], [torch.from_numpy(w) for w in maps], ridge)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-8)


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 1000), st.floats(0, 10))
def test_resolve_is_the_least_squares_solution_of_numpy(units: int, width: int, seed: int, rho: float) -> None:
    draw = np.random.default_rng(seed)
    forget, retain, up = (draw.normal(size=shape) for shape in ((9, units), (9, units), (width, units)))
    level = 1e-4 * np.trace(forget.T @ forget) / units
    own = np.concatenate([forget, np.sqrt(level) * np.eye(units)])
    share = rho * np.trace(forget.T @ forget) / np.trace(retain.T @ retain)
    left = np.concatenate([own, np.sqrt(share) * retain])
    right = np.concatenate([own @ up.T, np.zeros((9, width))])
    expected = np.linalg.lstsq(left, right, rcond=None)[0].T
    found = resolve_up(
        torch.from_numpy(up), torch.from_numpy(forget.T @ forget), torch.from_numpy(retain.T @ retain), rho
    )
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-7)


@given(st.integers(0, 100), st.integers(2, 4))
def test_identical_layers_fuse_to_themselves(seed: int, count: int) -> None:
    one = member(seed)
    others = [Member(request=one.request, revision=member(seed + place).revision, layers=one.layers,
                     statistics=member(seed + place).statistics) for place in range(count)]  # fmt: skip
    fused = regression(others)[MODULE]
    layer = one.layers[MODULE]
    torch.testing.assert_close(fused.down, layer.down, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fused.up, layer.up, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fused.bias, layer.bias, rtol=1e-5, atol=1e-5)


def test_units_that_never_fire_leave_the_plain_mean() -> None:
    maps = [torch.ones(2, 3), 3 * torch.ones(2, 3)]
    torch.testing.assert_close(regress([torch.zeros(3, 3)] * 2, maps), 2 * torch.ones(2, 3))


@pytest.mark.parametrize("bias", [True, False])
def test_concatenation_is_the_exact_sum_of_the_functions(bias: bool) -> None:
    members = [member(seed, rank=2 + seed, bias=bias) for seed in range(3)]
    y = torch.randn(50, 6, generator=torch.Generator().manual_seed(9))
    deltas = sum((one.layers[MODULE].apply(y) - y for one in members), torch.zeros_like(y))
    torch.testing.assert_close(concat(members)[MODULE].apply(y), y + deltas, rtol=1e-5, atol=1e-5)


def test_a_correction_without_weight_changes_nothing_and_with_weight_quietens_retained_units() -> None:
    members = [member(seed) for seed in range(2)]
    retain = {MODULE: gram(7, 6)}
    plain = concat(members)[MODULE].up
    torch.testing.assert_close(corrected(members, retain, rho=0)[MODULE].up, plain, rtol=1e-4, atol=1e-4)

    def energy(up: torch.Tensor) -> float:
        return float((up @ retain[MODULE] @ up.T).trace())

    energies = [energy(corrected(members, retain, rho=rho)[MODULE].up) for rho in (0.0, 0.3, 1.0, 3.0)]
    assert energies == sorted(energies, reverse=True)
    assert energies[-1] < 0.5 * energies[0]


@pytest.mark.parametrize("how", ["concat", "regression"])
def test_a_single_layer_comes_back_bit_for_bit(how: str, layers: Path, tmp_path: Path) -> None:
    fused = fuse([layers / "first"], tmp_path / "out", FuseSettings(method=how))
    assert fused.weights.read_bytes() == (layers / "first" / "adapter_model.safetensors").read_bytes()
    assert fused.manifest.parents == (read_bundle(layers / "first").revision,)
    again = fuse([fused.path], tmp_path / "again", FuseSettings(method=how))
    assert again.weights.read_bytes() == fused.weights.read_bytes()


def gram_of(tiny_model: Path, data: Path) -> RetainGram:
    return RetainGram(model=load_model(str(tiny_model)), rows=read_rows(data / "retain.jsonl", Fields()))


@pytest.mark.parametrize("how", ["concat", "regression", "corrected"])
def test_the_order_of_layers_does_not_matter(
    how: str, layers: Path, data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    paths = [layers / "first", layers / "second"]
    settings = REGRESSION if how == "regression" else CONCAT
    fused = [
        fuse(order, tmp_path / str(number), settings, gram_of(tiny_model, data) if how == "corrected" else None)
        for number, order in enumerate((paths, paths[::-1]))
    ]
    # Members are put in the order of their revisions, so the bundles are even the same revision.
    assert fused[0].revision == fused[1].revision


def logits(tiny_model: Path, bundle: Path) -> torch.Tensor:
    with torch.no_grad():
        return load(tiny_model, bundle)(torch.arange(5, 45)[None]).logits  # type: ignore[no-any-return]


def test_a_concatenated_bundle_says_whose_units_are_whose(layers: Path, tmp_path: Path) -> None:
    fused = fuse([layers / "first", layers / "second"], tmp_path / "out", CONCAT)
    assert fused.config.rank == 16
    assert sorted(request.id for request in fused.manifest.requests) == ["first", "second"]
    assert [request.units for request in fused.manifest.requests] == [(0, 8), (8, 16)]
    weights = load_layers(fused)
    for request in fused.manifest.requests:
        own = load_layers(read_bundle(layers / request.id))
        assert request.units is not None
        first, end = request.units
        for module, layer in own.items():
            assert torch.equal(weights[module].up[:, first:end], layer.up)
            assert torch.equal(weights[module].down[first:end], layer.down)


def test_the_correction_is_the_one_of_its_parts(layers: Path, data: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The bundle's U, solved again with NumPy from the Grams that were stored beside it."""
    fused = fuse(
        [layers / "first", layers / "second"], tmp_path / "out", FuseSettings(rho=2.0), gram_of(tiny_model, data)
    )
    store = read_store(fused)
    assert store is not None
    weights = load_layers(fused)
    for module, retain in store.retain.items():
        parts = [entry.statistics.moments[module].units.double().numpy() for entry in store.entries]
        own = np.zeros((16, 16))
        own[:8, :8], own[8:, 8:] = parts
        scale = np.trace(own) / np.trace(retain.double().numpy())
        own += 1e-4 * np.trace(own) / 16 * np.eye(16)
        before = torch.cat([entry.layers[module].up for entry in store.entries], dim=1).double().numpy()
        expected = before @ own @ np.linalg.inv(own + 2.0 * scale * retain.double().numpy())
        np.testing.assert_allclose(weights[module].up.numpy(), expected, rtol=1e-3, atol=1e-5)
    assert fused.manifest.settings["fusion"]["retain_tokens"] > 0


def test_the_retain_gram_is_measured_on_the_base_model(
    layers: Path, data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """Retained units do not depend on what the other layers do: one layer's block is the same beside any other."""
    pair = fuse([layers / "first", layers / "second"], tmp_path / "pair", CONCAT, gram_of(tiny_model, data))
    alone = fuse([layers / "second"], tmp_path / "alone", CONCAT, gram_of(tiny_model, data))
    stores = [read_store(pair), read_store(alone)]
    assert stores[0] is not None
    assert stores[1] is not None
    place = [request.id for request in pair.manifest.requests].index("second") * 8
    for module, whole in stores[0].retain.items():
        block = whole[place : place + 8, place : place + 8]
        torch.testing.assert_close(block, stores[1].retain[module], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("how", ["concat", "regression", "corrected"])
def test_revoking_equals_a_fusion_of_the_rest(
    how: str, layers: Path, data: Path, tiny_model: Path, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    settings = REGRESSION if how == "regression" else CONCAT
    third = fuse(
        [layers / "first"], tmp_path / "one", settings
    ).path  # a fused bundle of one is a member like any other
    paths = [third, layers / "second"]
    measured = [gram_of(tiny_model, data) if how == "corrected" else None for _ in range(2)]
    fused = fuse(paths, tmp_path / "both", settings, measured[0])
    rest = revoke(fused.path, "first", tmp_path / "rest")
    assert rest.weights.read_bytes() == (layers / "second" / "adapter_model.safetensors").read_bytes()
    assert rest.manifest.request_ids == {"second"}
    again = fuse([rest.path, layers / "first"], tmp_path / "again", settings, measured[1])
    assert again.weights.read_bytes() == fused.weights.read_bytes()
    assert torch.equal(logits(tiny_model, again.path), logits(tiny_model, fused.path))


def test_revoking_from_three_keeps_the_corrected_pair(
    layers: Path, data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    members = collect([read_bundle(layers / name) for name in ("first", "second")])
    extra = Member(
        request=ForgottenRequest(id="third", data=digest_bytes(b"3"), units=None), revision="sha256:" + "0" * 64,
        layers={name: LayerWeights(own.down * 0.5, own.up, own.bias) for name, own in members[0].layers.items()},
        statistics=members[1].statistics,
    )  # fmt: skip
    three = [extra, *members]
    like = read_bundle(layers / "first")
    grams = gram_of(tiny_model, data).measure(three, like)
    pair = gram_of(tiny_model, data).measure(members, like)
    for module, whole in grams.items():
        torch.testing.assert_close(whole[8:, 8:], pair[module], rtol=1e-4, atol=1e-6)
    cut = {module: whole[8:, 8:] for module, whole in grams.items()}
    first, second = (merge(members, CONCAT, found) for found in (cut, pair))
    for module, layer in first.items():
        torch.testing.assert_close(layer.up, second[module].up, rtol=1e-3, atol=1e-5)


def test_the_same_layer_named_twice_counts_once(layers: Path, tmp_path: Path) -> None:
    one = fuse([layers / "first"], tmp_path / "one", CONCAT)
    both = fuse([one.path, layers / "first", layers / "second"], tmp_path / "both", CONCAT)
    assert both.config.rank == 16


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"activation": "gelu"}, "activation differs"),
        ({"hidden_bias": False}, "hidden_bias differs"),
    ],
)
def test_layers_that_do_not_fit_are_refused(
    change: dict[str, object], words: str, tiny_model: Path, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    bundles = [
        make_bundle(tmp_path / "a", tiny_model),
        make_bundle(tmp_path / "b", tiny_model, requests=("r2",), **change),
    ]
    with pytest.raises(BundleMismatchError, match=words):
        fuse([bundle.path for bundle in bundles], tmp_path / "out", CONCAT)
    assert not (tmp_path / "out").exists()


def fuse_random(bundles: Sequence[Bundle], out: Path, chosen: FuseSettings, gram: RetainGram | None = None) -> Bundle:
    return fuse([bundle.path for bundle in bundles], out, chosen, gram)


def test_what_cannot_be_fused_says_why(
    tiny_model: Path, data: Path, make_bundle: MakeBundle, layers: Path, tmp_path: Path
) -> None:
    plain = [make_bundle(tmp_path / f"p{n}", tiny_model, requests=(f"r{n}",), seed=n) for n in range(2)]
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"'r[01]': its layer came without fusion\.safetensors"):
        fuse_random(plain, out, REGRESSION)
    with pytest.raises(InputError, match=r"came without fusion\.safetensors"):
        fuse_random(plain, out, CONCAT, gram_of(tiny_model, data))
    with pytest.raises(InputError, match="read by --method concat alone"):
        fuse_random(plain, out, REGRESSION, gram_of(tiny_model, data))
    with pytest.raises(InputError, match=r"found 4, 8; use --method concat"):
        fuse_random([plain[0], read_bundle(layers / "first")], out, REGRESSION)
    with pytest.raises(InputError, match="two different layers"):
        fuse_random([plain[0], make_bundle(tmp_path / "same", tiny_model, requests=("r0",), seed=9)], out, CONCAT)
    with pytest.raises(InputError, match="found 2 requests"):
        fuse_random([make_bundle(tmp_path / "two", tiny_model, requests=("x", "y"))], out, CONCAT)
    wide = [make_bundle(tmp_path / f"w{n}", tiny_model, requests=(f"w{n}",), rank=2049, seed=n) for n in range(2)]
    with pytest.raises(InputError, match="the ranks add up to more than 4096"):
        fuse_random(wide, out, CONCAT)
    assert not out.exists()
    fused = fuse_random(plain, out, CONCAT)  # without a retain set no statistics are needed
    assert fused.config.rank == 8
    with pytest.raises(InputError, match="new or empty directory"):
        fuse_random(plain, out, CONCAT)


def test_a_layer_of_few_tokens_says_that_nothing_was_stored() -> None:
    few = Member(request=member(0).request, revision=member(0).revision, layers=member(0).layers,
                 statistics=LayerStatistics(tokens=12, moments={}))  # fmt: skip
    with pytest.raises(InputError, match="has 12 answer tokens; below 64 no statistics are stored"):
        regression([few, member(1)])


def test_a_fused_bundle_without_its_statistics_says_where_they_are(layers: Path, tmp_path: Path) -> None:
    fused = fuse([layers / "first", layers / "second"], tmp_path / "out", CONCAT)
    (fused.path / "fusion.safetensors").unlink()
    with pytest.raises(InputError, match=r"expected fusion\.safetensors"):
        revoke(fused.path, "first", tmp_path / "rest")


def test_damaged_statistics_are_refused(
    layers: Path, make_bundle: MakeBundle, tiny_model: Path, tmp_path: Path
) -> None:
    fused = fuse([layers / "first"], tmp_path / "out", CONCAT)
    path = fused.path / "fusion.safetensors"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(BundleFormatError, match=r"fusion\.safetensors"):
        fuse([fused.path], tmp_path / "again", CONCAT)
    foreign = make_bundle(tmp_path / "foreign", tiny_model)
    (foreign.path / "fusion.safetensors").write_bytes(b"not listed")
    with pytest.raises(BundleFormatError, match="not in the manifest"):
        read_store(foreign)


@pytest.mark.parametrize("part", ["0.{m}.units", "0.{m}.inputs", "0.{m}.down", "0.{m}.up", "0.{m}.bias", "retain.{m}"])
@pytest.mark.parametrize("damage", ["missing", "shape", "infinite"])
def test_statistics_of_other_shapes_are_refused(
    part: str, damage: str, layers: Path, data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """A file that someone made, with digests that fit: the shapes still have to be those of the bundle."""
    members = collect([read_bundle(layers / name) for name in ("first", "second")])
    like, name = read_bundle(layers / "first"), part.format(m=MODULE)
    grams = {module: torch.eye(16) for module in members[0].layers}
    tensors = safetensors.torch.load(
        dump_store(
            Store(
                entries=[
                    Entry(request=one.request, revision=one.revision, statistics=one.statistics, layers=one.layers)
                    for one in members
                    if one.statistics
                ],
                retain=grams,
            )
        )
    )
    if damage == "missing":
        del tensors[name]
    else:
        tensors[name] = torch.zeros(2) if damage == "shape" else tensors[name] / 0
    facts = [
        {"id": one.request.id, "data": one.request.data, "revision": one.revision, "tokens": 99} for one in members
    ]
    content = safetensors.torch.save(tensors, metadata={"fusion": json.dumps({"members": facts, "version": 1})})
    folder = tmp_path / "made"
    shutil.copytree(like.path, folder)
    (folder / "fusion.safetensors").write_bytes(content)
    manifest = replace(like.manifest, artifacts=describe_files({"fusion.safetensors": content}))
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    with pytest.raises(BundleFormatError, match=r"fusion\.safetensors"):
        checked_store(read_bundle(folder))


def test_revoking_what_is_not_there_or_all_there_is(layers: Path, tmp_path: Path) -> None:
    fused = fuse([layers / "first"], tmp_path / "out", CONCAT)
    with pytest.raises(InputError, match="not in the bundle, which has first"):
        revoke(fused.path, "nobody", tmp_path / "rest")
    with pytest.raises(InputError, match="no other request"):
        revoke(fused.path, "first", tmp_path / "rest")


def test_another_base_model_is_refused(layers: Path, data: Path, other_model: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleMismatchError, match="made for base model"):
        fuse([layers / "first", layers / "second"], tmp_path / "out", CONCAT, gram_of(other_model, data))
