"""What a later fusion needs on disk: packed Grams, their low-rank form, version 1, and files that do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.errors import BundleFormatError, InputError
from eul_serve.format import Bundle, describe_files, read_bundle
from eul_serve.format.weights import load_layers
from eul_trainer.fusion.fuse import fuse
from eul_trainer.fusion.members import Member, collect
from eul_trainer.fusion.reader import read_store
from eul_trainer.fusion.revoke import revoke
from eul_trainer.fusion.settings import FuseSettings
from eul_trainer.fusion.store import Entry, RetainMoments, Store, dump_store
from eul_trainer.moments.gram import LowRankGram, PackedGram, block_diagonal_of, packed_length

MakeMember = Callable[..., Member]
MakeLayer = Callable[..., Bundle]
MODULE = "model.layers.0.mlp"
FILE = "fusion.safetensors"


def random_gram(seed: int, size: int, tokens: int = 40) -> torch.Tensor:
    data = torch.randn(tokens, size, generator=torch.Generator().manual_seed(seed))
    gram = data.T @ data / tokens
    return (gram + gram.T) / 2  # on some processors the product is not symmetric in its last bit


@given(st.integers(1, 12), st.integers(1, 15))
def test_packing_keeps_the_diagonal_blocks_exactly(size: int, width: int) -> None:
    gram = random_gram(size, size)
    packed = PackedGram.of(gram, width)
    block = np.arange(size) // width
    expected = gram * torch.from_numpy(block[:, None] == block[None])
    assert torch.equal(packed.dense(), expected)
    assert len(packed.values) == packed_length(size, min(width, size))
    assert sum(len(part) for part in packed.blocks()) == size
    assert torch.equal(PackedGram.of(gram).dense(), gram)
    assert len(PackedGram.of(gram).values) == size * (size + 1) // 2
    assert list(packed.parts()) == [""]


def test_the_upper_half_is_stored_row_by_row_and_block_by_block() -> None:
    gram = torch.arange(9.0).reshape(3, 3) + torch.arange(9.0).reshape(3, 3).T
    assert PackedGram.of(gram).values.tolist() == [0, 4, 8, 8, 12, 16]
    assert PackedGram.of(gram, 2).values.tolist() == [0, 4, 8, 16]
    joined = block_diagonal_of([torch.ones(1, 1), 2 * torch.ones(2, 2)])
    assert joined.tolist() == [[1, 0, 0], [0, 2, 2], [0, 2, 2]]


@given(st.integers(2, 10), st.integers(1, 12), st.integers(0, 99))
def test_the_low_rank_form_keeps_the_largest_part_and_the_diagonal(size: int, rank: int, seed: int) -> None:
    gram = random_gram(seed, size)
    form = LowRankGram.of(gram, rank)
    values, vectors = np.linalg.eigh(gram.double().numpy())
    kept = slice(max(0, size - rank), size)
    low = (vectors[:, kept] * values[kept]) @ vectors[:, kept].T
    expected = low + np.diag(np.diag(gram.double().numpy()) - np.diag(low))
    np.testing.assert_allclose(form.dense().numpy(), expected, atol=1e-5)
    torch.testing.assert_close(form.dense().diagonal(), gram.diagonal(), rtol=1e-4, atol=1e-5)
    wanted = np.linalg.norm(expected - gram.numpy()) / np.linalg.norm(gram.numpy())
    assert form.error(gram) == pytest.approx(wanted, abs=1e-5)
    assert form.size == size
    assert np.linalg.eigvalsh(form.dense().double().numpy()).min() > -1e-5
    if rank >= size:
        assert form.error(gram) < 1e-5


def store_of(members: list[Member], *, retain: bool = True) -> Store:
    entries = [
        Entry(
            request=one.request, revision=one.revision, statistics=one.statistics, layers=one.layers,
            init_seed=one.init_seed, on_top_of=one.on_top_of,
        )
        for one in members if one.statistics
    ]  # fmt: skip
    rank, width = sum(one.rank for one in members), members[0].layers[MODULE].down.shape[1]
    found = {
        module: RetainMoments(units=random_gram(1, rank), inputs=random_gram(2, width + 1))
        for module in members[0].layers
    }
    return Store(entries=entries, retain=found if retain else {})


def with_file(bundle: Bundle, content: bytes) -> Bundle:
    """Put a file in the place of a bundle's statistics, with a digest that fits."""
    (bundle.path / FILE).write_bytes(content)
    manifest = replace(bundle.manifest, artifacts=describe_files({FILE: content}))
    (bundle.path / "manifest.json").write_bytes(manifest.to_bytes())
    return read_bundle(bundle.path)


@pytest.fixture
def fused(make_layer: MakeLayer, tmp_path: Path) -> Bundle:
    """A fused bundle of two random layers, with everything that can be stored."""
    layers = [make_layer(tmp_path / str(seed), seed, tokens=64 + seed) for seed in (0, 1)]
    bundle = fuse([layer.path for layer in layers], tmp_path / "fused", FuseSettings())
    store = store_of(collect([bundle]))
    return with_file(bundle, dump_store(store))


def assert_same(found: Store | None, wanted: Store) -> None:
    assert found is not None
    for mine, other in zip(found.entries, wanted.entries, strict=True):
        assert (mine.request, mine.revision, mine.init_seed, mine.on_top_of) == (
            other.request, other.revision, other.init_seed, other.on_top_of,
        )  # fmt: skip
        assert (mine.statistics.tokens, mine.statistics.error) == (other.statistics.tokens, other.statistics.error)
        assert mine.statistics.moments.keys() == other.statistics.moments.keys()
        for module, moments in other.statistics.moments.items():
            back = mine.statistics.moments[module]
            torch.testing.assert_close(back.units, moments.units, rtol=0, atol=0)
            for part in ("gate", "mean"):
                torch.testing.assert_close(getattr(back, part), getattr(moments, part), rtol=0, atol=0)
            assert back.inputs is not None
            assert moments.inputs is not None
            torch.testing.assert_close(back.inputs.dense(), moments.inputs.dense(), rtol=0, atol=0)
            assert torch.equal(mine.layers[module].down, other.layers[module].down)
    assert found.retain.keys() == wanted.retain.keys()
    for module, kept in wanted.retain.items():
        torch.testing.assert_close(found.retain[module].units, kept.units, rtol=0, atol=0)
        torch.testing.assert_close(found.retain[module].inputs, kept.inputs, rtol=0, atol=0)


def test_what_is_written_is_read_again(fused: Bundle) -> None:
    members = [replace(one, init_seed=5, on_top_of=(one.revision,)) for one in collect([fused])]
    store = store_of(members)
    assert_same(read_store(with_file(fused, dump_store(store))), store)
    assert read_store(with_file(fused, dump_store(replace(store, retain={})))).retain == {}  # type: ignore[union-attr]


def test_the_low_rank_form_is_read_again_with_its_error(fused: Bundle) -> None:
    store = store_of(collect([fused]))
    entries = []
    for entry in store.entries:
        moments = {}
        for module, found in entry.statistics.moments.items():
            assert found.inputs is not None
            moments[module] = replace(found, inputs=LowRankGram.of(found.inputs.dense(), 3))
        entries.append(replace(entry, statistics=replace(entry.statistics, moments=moments, error=0.125)))
    low = replace(store, entries=entries)
    assert_same(read_store(with_file(fused, dump_store(low))), low)


def old_version(store: Store) -> bytes:
    """The bytes that version 1 wrote: square matrices, no means, no facts but four."""
    tensors: dict[str, torch.Tensor] = {f"retain.{path}": kept.units for path, kept in store.retain.items()}
    members = []
    for index, entry in enumerate(store.entries):
        facts = {"id": entry.request.id, "data": entry.request.data, "revision": entry.revision}
        members.append({**facts, "tokens": entry.statistics.tokens})
        for path, moments in entry.statistics.moments.items():
            assert moments.inputs is not None
            tensors |= {f"{index}.{path}.units": moments.units, f"{index}.{path}.inputs": moments.inputs.dense()}
        for path, layer in entry.layers.items():
            assert layer.bias is not None
            tensors |= {f"{index}.{path}.{part}": getattr(layer, part) for part in ("down", "up", "bias")}
    facts_text = json.dumps({"members": members, "version": 1}, sort_keys=True, separators=(",", ":"))
    data: bytes = safetensors.torch.save(
        {name: tensor.contiguous().clone() for name, tensor in tensors.items()}, metadata={"fusion": facts_text}
    )
    return data


def test_version_1_is_read_and_fused_again(fused: Bundle, tmp_path: Path) -> None:
    store = store_of(collect([fused]))
    plain = [replace(one, init_seed=None) for one in store.entries]
    found = read_store(with_file(fused, old_version(replace(store, entries=plain))))
    assert found is not None
    for mine, other in zip(found.entries, plain, strict=True):
        for module, moments in other.statistics.moments.items():
            back = mine.statistics.moments[module]
            torch.testing.assert_close(back.units, moments.units)
            assert back.inputs is not None
            assert moments.inputs is not None
            torch.testing.assert_close(back.inputs.dense(), moments.inputs.dense())
            assert (back.mean, back.variance, back.gate) == (None, None, None)
    for module, kept in store.retain.items():
        torch.testing.assert_close(found.retain[module].units, kept.units)
        assert found.retain[module].inputs is None
    again = fuse([fused.path], tmp_path / "again", FuseSettings(method="regression"))
    assert load_layers(again)[MODULE].down.shape == (3, 6)
    wrong = old_version(replace(store, entries=plain))
    tensors = safetensors.torch.load(wrong)
    tensors[f"0.{MODULE}.units"][0, 1] += 1
    with pytest.raises(
        BundleFormatError, match=r"tensor '0\.model\.layers\.0\.mlp\.units': expected a symmetric matrix"
    ):
        read_store(with_file(fused, repacked(wrong, tensors)))


def repacked(content: bytes, tensors: dict[str, torch.Tensor], **facts: Any) -> bytes:
    """Return a file with other tensors, and other values in its metadata."""
    size = int.from_bytes(content[:8], "little")
    found = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["fusion"])
    data: bytes = safetensors.torch.save(tensors, metadata={"fusion": json.dumps({**found, **facts})})
    return data


PARTS = ("units", "gate", "inputs", "mean", "down", "up", "bias")


@pytest.mark.parametrize("part", [*(f"1.{MODULE}.{part}" for part in PARTS), f"retain.{MODULE}.units"])
@pytest.mark.parametrize("damage", ["missing", "shape", "infinite", "dtype"])
def test_statistics_that_do_not_fit_are_refused(part: str, damage: str, fused: Bundle) -> None:
    """A file that someone made, with digests that fit: names, shapes and values still have to be the bundle's."""
    content = (fused.path / FILE).read_bytes()
    tensors = safetensors.torch.load(content)
    if damage == "missing":
        del tensors[part]
    else:
        made = {"shape": torch.zeros(2), "infinite": tensors[part] / 0, "dtype": tensors[part].half()}
        tensors[part] = made[damage]
    with pytest.raises(BundleFormatError, match=r"fusion\.safetensors|" + part.replace(".", r"\.")):
        read_store(with_file(fused, repacked(content, tensors)))


def refusal(fused: Bundle, content: bytes, change: Callable[[dict[str, torch.Tensor]], object]) -> str:
    tensors = safetensors.torch.load(content)
    change(tensors)
    with pytest.raises(BundleFormatError) as caught:
        read_store(with_file(fused, repacked(content, tensors)))
    return str(caught.value)


def test_a_tensor_that_does_not_fit_is_named_with_what_was_expected(fused: Bundle) -> None:
    """What one module has every module has, so one that lacks it is at fault and not the one that has it."""
    gate, units = f"1.{MODULE}.gate", f"retain.{MODULE}.units"
    content = (fused.path / FILE).read_bytes()
    assert f"tensor '{gate}': expected (7,), found nothing" in refusal(fused, content, lambda found: found.pop(gate))
    assert f"tensor '{units}': expected (21,), found nothing" in refusal(fused, content, lambda found: found.pop(units))
    unknown = {f"u{number:02}": torch.zeros(1) for number in range(40)}
    assert "tensor 'u00': expected nothing, found (1,)" in refusal(fused, content, lambda found: found.update(unknown))
    long = refusal(fused, content, lambda found: found.update({"z" * 300: torch.zeros(1)}))
    assert f"tensor '{'z' * 200}': expected nothing" in long


@pytest.mark.parametrize(("kept", "fits"), [(6, True), (7, True), (8, False)])
def test_a_low_rank_form_has_no_more_vectors_than_a_gram_has_rows(kept: int, fits: bool, fused: Bundle) -> None:
    store, entries = store_of(collect([fused])), []
    for entry in store.entries:
        moments = {}
        for module, found in entry.statistics.moments.items():
            assert found.inputs is not None
            low = LowRankGram.of(found.inputs.dense(), min(kept, 7))
            more = max(0, kept - len(low.values))
            vectors, values = (
                torch.cat([part, part.new_zeros(more, *part.shape[1:])]) for part in (low.vectors, low.values)
            )
            moments[module] = replace(found, inputs=replace(low, vectors=vectors, values=values))
        entries.append(replace(entry, statistics=replace(entry.statistics, moments=moments)))
    bundle = with_file(fused, dump_store(replace(store, entries=entries)))
    if fits:
        assert read_store(bundle) is not None
    else:
        with pytest.raises(BundleFormatError, match=r"inputs\.vectors': expected \(7, 7\), found \(8, 7\)"):
            read_store(bundle)


@pytest.mark.parametrize("part", [f"0.{MODULE}.units", f"0.{MODULE}.inputs", f"retain.{MODULE}.units"])
def test_what_is_no_second_moment_is_refused(part: str, fused: Bundle) -> None:
    content = (fused.path / FILE).read_bytes()
    tensors = safetensors.torch.load(content)
    tensors[part] = -tensors[part]
    words = rf"tensor '{part.replace('.', chr(92) + '.')}': expected a second moment, found a negative eigenvalue"
    with pytest.raises(BundleFormatError, match=words):
        read_store(with_file(fused, repacked(content, tensors)))


def test_rounding_is_no_negative_eigenvalue(fused: Bundle) -> None:
    """A Gram of rank one, rounded to float32, has eigenvalues a little below zero."""
    content = (fused.path / FILE).read_bytes()
    tensors = safetensors.torch.load(content)
    row = torch.full((1, 6), 1e3) + torch.arange(6.0)
    tensors[f"retain.{MODULE}.units"] = PackedGram.of(row.T @ row).values
    assert read_store(with_file(fused, repacked(content, tensors))) is not None


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"version": 4}, "version: expected 1 to 3, found 4; fuse with the version that wrote it"),
        ({"version": "2"}, "version: expected int, found str"),
        ({"members": {}}, "members: expected list"),
        ({"members": [1, 2]}, "members: expected id, data, tokens"),
        ({"more": 1}, "unknown key 'more'"),
    ],
)
def test_metadata_has_one_form(facts: dict[str, Any], words: str, fused: Bundle) -> None:
    content = (fused.path / FILE).read_bytes()
    with pytest.raises(BundleFormatError, match=words):
        read_store(with_file(fused, repacked(content, safetensors.torch.load(content), **facts)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "../x"}, "members: request name '../x'"),
        ({"data": "x"}, "members: digest 'x'"),
        ({"revision": "x"}, "members: digest 'x'"),
        ({"tokens": -1}, "members: tokens: expected 0 or more, found -1"),
        ({"tokens": "9"}, "members: tokens: expected int"),
        ({"on_top_of": ["x"]}, "members: digest 'x'"),
    ],
)
def test_members_have_one_form(change: dict[str, Any], words: str, fused: Bundle) -> None:
    content = (fused.path / FILE).read_bytes()
    size = int.from_bytes(content[:8], "little")
    members = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["fusion"])["members"]
    members[0] |= change
    with pytest.raises(BundleFormatError, match=words):
        read_store(with_file(fused, repacked(content, safetensors.torch.load(content), members=members)))


def test_a_file_that_changed_or_is_not_listed_is_refused(fused: Bundle, make_layer: MakeLayer, tmp_path: Path) -> None:
    content = bytearray((fused.path / FILE).read_bytes())
    content[-1] ^= 1
    (fused.path / FILE).write_bytes(content)
    with pytest.raises(
        BundleFormatError, match=r"file 'fusion\.safetensors': expected sha256:.*; the file was changed"
    ):
        read_store(fused)
    with pytest.raises(BundleFormatError, match=r"fusion\.safetensors"):
        fuse([fused.path], tmp_path / "again", FuseSettings())
    plain = make_layer(tmp_path / "plain", 5)
    manifest = replace(plain.manifest, artifacts={})
    (plain.path / "manifest.json").write_bytes(manifest.to_bytes())
    with pytest.raises(BundleFormatError, match="not in the manifest"):
        read_store(read_bundle(plain.path))
    (plain.path / FILE).unlink()
    assert read_store(plain) is None


def test_a_hostile_header_costs_little(fused: Bundle) -> None:
    huge = {"dtype": "F32", "shape": [2**39, 2**20], "data_offsets": [0, 2**61]}
    header = json.dumps({f"0.{MODULE}.units": huge}).encode()
    with pytest.raises(BundleFormatError):
        read_store(with_file(fused, len(header).to_bytes(8, "little") + header))


def test_members_must_be_those_of_the_manifest(fused: Bundle) -> None:
    whole = collect([fused])
    store = store_of(whole[:1], retain=False)
    with pytest.raises(BundleFormatError, match="does not match the manifest's parents"):
        collect([with_file(fused, dump_store(store))])
    turned = store_of(whole[::-1], retain=False)
    with pytest.raises(BundleFormatError, match="does not match the manifest's parents"):
        collect([with_file(fused, dump_store(turned))])


def test_a_low_rank_gram_has_no_negative_parts(fused: Bundle) -> None:
    store = store_of(collect([fused]), retain=False)
    for part in ("values", "remainder"):
        entries = []
        for entry in store.entries:
            moments = {}
            for module, found in entry.statistics.moments.items():
                assert found.inputs is not None
                low = LowRankGram.of(found.inputs.dense(), 2)
                moments[module] = replace(found, inputs=replace(low, **{part: getattr(low, part) - 100}))
            entries.append(replace(entry, statistics=replace(entry.statistics, moments=moments)))
        with pytest.raises(BundleFormatError, match="expected no negative value"):
            read_store(with_file(fused, dump_store(replace(store, entries=entries))))


@pytest.mark.parametrize("part", ["values", "remainder"])
def test_one_negative_part_of_a_low_rank_gram_is_enough(part: str, fused: Bundle) -> None:
    store, entries = store_of(collect([fused]), retain=False), []
    for entry in store.entries:
        moments = {}
        for module, found in entry.statistics.moments.items():
            assert found.inputs is not None
            low = LowRankGram.of(found.inputs.dense(), 2)
            wrong = getattr(low, part).abs() + 1
            wrong[0] = -1
            moments[module] = replace(found, inputs=replace(low, **{part: wrong}))
        entries.append(replace(entry, statistics=replace(entry.statistics, moments=moments)))
    with pytest.raises(BundleFormatError, match="expected no negative value"):
        read_store(with_file(fused, dump_store(replace(store, entries=entries))))


def test_one_negative_variance_is_enough(fused: Bundle) -> None:
    content = (fused.path / FILE).read_bytes()
    tensors = safetensors.torch.load(content)
    tensors[f"1.{MODULE}.variance"][2] = -1e-6
    with pytest.raises(BundleFormatError, match=r"mlp\.variance': expected no negative value"):
        read_store(with_file(fused, repacked(content, tensors)))


def test_a_small_negative_gram_is_no_rounding(fused: Bundle) -> None:
    """How much may be rounding goes by the Gram's own size: here all of it is below zero."""
    content = (fused.path / FILE).read_bytes()
    tensors = safetensors.torch.load(content)
    tensors[f"retain.{MODULE}.units"] = PackedGram.of(-1e-7 * torch.eye(6)).values
    with pytest.raises(BundleFormatError, match="expected a second moment"):
        read_store(with_file(fused, repacked(content, tensors)))


def test_rounding_goes_by_the_trace_whatever_the_signs(fused: Bundle) -> None:
    """A Gram of rank one whose entries add up to nothing, rounded to float32; and one that is all zero."""
    content = (fused.path / FILE).read_bytes()
    tensors = safetensors.torch.load(content)
    row = torch.tensor([[1e3, -1e3 / 3, 1e3 / 7, -1e3 / 11, 1e3 / 13, 0.0]])
    row[0, 5] = -row.sum()
    tensors[f"retain.{MODULE}.units"] = PackedGram.of(row.T @ row).values
    assert read_store(with_file(fused, repacked(content, tensors))) is not None
    tensors[f"retain.{MODULE}.units"] = torch.zeros(21)
    assert read_store(with_file(fused, repacked(content, tensors))) is not None


def test_a_layer_of_more_units_than_a_block_holds_is_read_again(make_layer: MakeLayer, tmp_path: Path) -> None:
    """64 tokens allow blocks of 16: the Gram of 20 units has two."""
    layer = make_layer(tmp_path / "wide", 3, rank=20, tokens=64)
    (member,) = collect([layer])
    assert member.statistics is not None
    units = member.statistics.moments[MODULE].units
    assert units[:16, 16:].abs().max() == 0
    assert units[:16, :16].abs().max() > 0
    assert units[16:, 16:].abs().max() > 0
    found = read_store(layer)
    assert found is not None
    torch.testing.assert_close(found.entries[0].statistics.moments[MODULE].units, units, rtol=0, atol=0)


def test_a_member_without_a_revision_is_refused_and_null_is_one(fused: Bundle) -> None:
    content = (fused.path / FILE).read_bytes()
    size = int.from_bytes(content[:8], "little")
    members = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["fusion"])["members"]
    tensors = safetensors.torch.load(content)
    null = [{**member, "revision": None} for member in members]
    assert read_store(with_file(fused, repacked(content, tensors, members=null))) is not None
    del members[0]["revision"]
    with pytest.raises(BundleFormatError, match="members: expected id, data, tokens"):
        read_store(with_file(fused, repacked(content, tensors, members=members)))


def test_symmetry_of_version_1_goes_by_the_largest_number(fused: Bundle) -> None:
    store = store_of(collect([fused]))
    plain = [replace(one, init_seed=None) for one in store.entries]
    content = old_version(replace(store, entries=plain))
    tensors = safetensors.torch.load(content)
    name = f"retain.{MODULE}"
    large = torch.diag(torch.tensor([1000.0, 1.0, 1.0, 1.0, 1.0, 1.0]))
    for wrong, fits in ((5e-3, True), (2e-1, False)):  # 1e-5 of the largest number is 1e-2
        tensors[name] = large.clone()
        tensors[name][0, 1] = wrong
        bundle = with_file(fused, repacked(content, tensors))
        if fits:
            assert read_store(bundle) is not None
        else:
            with pytest.raises(BundleFormatError, match="expected a symmetric matrix"):
                read_store(bundle)
    tensors[name] = torch.zeros(6, 6)
    assert read_store(with_file(fused, repacked(content, tensors))) is not None


@pytest.fixture
def three(make_layer: MakeLayer, tmp_path: Path) -> Callable[..., Bundle]:
    """Factory of a fused bundle of layers with retained moments, whose record of the fusion has other facts."""
    layers = [make_layer(tmp_path / f"layer{seed}", seed, tokens=64 + seed) for seed in (0, 1, 2)]

    def make(name: str, count: int = 3, drop: str = "", **facts: Any) -> Bundle:
        bundle = fuse([layer.path for layer in layers[:count]], tmp_path / name, FuseSettings())
        recorded = {**bundle.manifest.settings["fusion"], **facts}
        recorded.pop(drop, None)
        content = dump_store(store_of(collect([bundle])))
        (bundle.path / FILE).write_bytes(content)
        manifest = replace(bundle.manifest, artifacts=describe_files({FILE: content}), settings={"fusion": recorded})
        (bundle.path / "manifest.json").write_bytes(manifest.to_bytes())
        return read_bundle(bundle.path)

    return make


def up_of(bundle: Bundle) -> torch.Tensor:
    return load_layers(bundle)[MODULE].up


def test_a_bundle_from_before_crosstalk_is_revoked_without_it(three: Callable[..., Bundle], tmp_path: Path) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "old": {"drop": "crosstalk"}, "none": {"crosstalk": 0.0}, "some": {"crosstalk": 1.0}
    }  # fmt: skip
    weights = {
        name: up_of(revoke(three(name, **facts).path, ["r2"], tmp_path / f"{name}-rest"))
        for name, facts in kinds.items()
    }
    assert torch.equal(weights["old"], weights["none"])
    assert not torch.allclose(weights["old"], weights["some"], rtol=1e-3)


def test_a_healed_bundle_of_two_needs_no_model_to_lose_one(three: Callable[..., Bundle], tmp_path: Path) -> None:
    left = revoke(three("pair", 2, heal_steps=3).path, ["r1"], tmp_path / "left")
    assert left.manifest.request_ids == {"r0"}
    with pytest.raises(InputError, match="needed to revoke from a healed bundle"):
        revoke(three("healed", 3, heal_steps=3).path, ["r1"], tmp_path / "no")


def test_what_is_known_of_the_retained_rows_stays_on_record(three: Callable[..., Bundle], tmp_path: Path) -> None:
    facts = {"retain_data": "sha256:" + 64 * "7", "retain_tokens": 99}
    rest = revoke(three("known", **facts).path, ["r2"], tmp_path / "rest")
    found = rest.manifest.settings["fusion"]
    assert {name: found[name] for name in facts} == facts
