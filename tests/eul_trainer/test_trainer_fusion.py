"""Fusion of trained layers on a model: retained rows, limits, healing, gates, and what cannot be fused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eul_serve.errors import BundleMismatchError, InputError
from eul_serve.format import Bundle, fingerprint, read_bundle
from eul_serve.format.weights import load_layers
from eul_serve.peft import load
from eul_trainer.fusion import retained as retained_
from eul_trainer.fusion.concat import concat
from eul_trainer.fusion.correct import solved
from eul_trainer.fusion.crosstalk import crosstalk
from eul_trainer.fusion.fuse import fuse, merge, merged, prepare
from eul_trainer.fusion.gated import units_of
from eul_trainer.fusion.heal import drift
from eul_trainer.fusion.hooks import attached
from eul_trainer.fusion.limit import WEIGHTS
from eul_trainer.fusion.members import Member, collect
from eul_trainer.fusion.methods import METHODS
from eul_trainer.fusion.reader import read_store
from eul_trainer.fusion.retained import Retained, spread, worst
from eul_trainer.fusion.revoke import revoke
from eul_trainer.fusion.settings import FuseSettings
from eul_trainer.model.load import load_model
from eul_trainer.moments.gram import block_diagonal_of
from eul_trainer.objectives.terms import divergence
from eul_trainer.records import Fields, read_rows

MakeBundle = Callable[..., Bundle]
MakeLayer = Callable[..., Bundle]
REGRESSION = FuseSettings(method="regression")
CONCAT = FuseSettings()
BOTH = ("first", "second")


@pytest.fixture(scope="module")
def layers(tiny_model: Path, make_layer: MakeLayer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with two random layers, `first` and `second`, for the tiny model."""
    folder, base = tmp_path_factory.mktemp("layers"), fingerprint(tiny_model)
    for seed, name in enumerate(BOTH):
        make_layer(folder / name, seed, name=name, width=64, rank=8, scale=-0.1, base=base)
    return folder


@pytest.fixture(scope="module")
def kept(tiny_model: Path, data: Path) -> Retained:
    """The retained rows in their two groups, and the model; a fusion leaves it as it was."""
    rows = read_rows(data / "retain.jsonl", Fields(group="group"))
    return Retained(model=load_model(str(tiny_model)), rows=rows)


@pytest.fixture(scope="module")
def members(layers: Path) -> list[object]:
    return list(collect([read_bundle(layers / name) for name in BOTH]))


def fuse_both(layers: Path, out: Path, settings: FuseSettings = CONCAT, retained: Retained | None = None) -> Bundle:
    return fuse([layers / name for name in BOTH], out, settings, retained)


@pytest.mark.parametrize("how", ["concat", "regression", "compress", "distil"])
def test_a_single_layer_comes_back_bit_for_bit(how: str, layers: Path, tmp_path: Path) -> None:
    fused = fuse([layers / "first"], tmp_path / "out", FuseSettings(method=how))
    assert fused.weights.read_bytes() == (layers / "first" / "adapter_model.safetensors").read_bytes()
    assert fused.manifest.parents == (read_bundle(layers / "first").revision,)
    again = fuse([fused.path], tmp_path / "again", FuseSettings(method=how))
    assert again.weights.read_bytes() == fused.weights.read_bytes()


def test_a_single_layer_comes_back_with_retained_rows_too(layers: Path, kept: Retained, tmp_path: Path) -> None:
    fused = fuse([layers / "first"], tmp_path / "out", CONCAT, kept)
    assert fused.weights.read_bytes() == (layers / "first" / "adapter_model.safetensors").read_bytes()


def logits(tiny_model: Path, bundle: Path) -> torch.Tensor:
    with torch.no_grad():
        return load(tiny_model, bundle)(torch.arange(5, 45)[None]).logits  # type: ignore[no-any-return]


def test_a_concatenated_bundle_says_whose_units_are_whose(layers: Path, tmp_path: Path) -> None:
    fused = fuse_both(layers, tmp_path / "out")
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


def test_the_correction_is_the_one_of_its_parts(layers: Path, kept: Retained, tmp_path: Path) -> None:
    """The bundle's U, solved again with NumPy from the Grams that were stored beside it."""
    fused = fuse_both(layers, tmp_path / "out", FuseSettings(rho=2.0, keep_energy=False), kept)
    store = read_store(fused)
    assert store is not None
    weights = load_layers(fused)
    members = collect([read_bundle(layers / name) for name in BOTH])
    heard = crosstalk(prepare(members, FuseSettings(rho=2.0, keep_energy=False), kept), concat(members))
    for module, found in store.retain.items():
        retain = found.units.double().numpy()
        parts = [entry.statistics.moments[module].units.double().numpy() for entry in store.entries]
        own = np.zeros((16, 16))
        own[:8, :8], own[8:, 8:] = parts
        own += 1e-4 * np.trace(own) / 16 * np.eye(16)
        before = torch.cat([entry.layers[module].up for entry in store.entries], dim=1).double().numpy()
        expected = before @ own @ np.linalg.inv(own + 2.0 * retain + heard[module].numpy())
        np.testing.assert_allclose(weights[module].up.numpy(), expected, rtol=1e-3, atol=1e-5)
    assert fused.manifest.settings["fusion"]["retain_tokens"] == kept.tokens
    assert kept.tokens == sum(len(example.prompt) + len(example.answer) - 1 for example in kept.examples)


def test_retained_moments_are_those_of_the_base_model(kept: Retained, members: list[object]) -> None:
    """Against a plain loop: every row alone, the modules' outputs taken from the model as transformers runs it."""
    layers = concat(members)  # type: ignore[arg-type]
    found = kept.moments(layers, inputs=True)
    network = kept.model.network
    prefix = kept.runner.prefix
    assert prefix > 0
    for module, layer in layers.items():
        seen: list[torch.Tensor] = []
        handle = network.get_submodule(module).register_forward_hook(lambda _, __, y, seen=seen: seen.append(y[0]))
        with torch.no_grad():
            for example in kept.examples:
                network(torch.tensor([[*example.prompt, *example.answer[:-1]]]))
        handle.remove()
        y = torch.cat([rows[prefix:] for rows in seen]).double()
        wide = torch.cat([y, torch.ones_like(y[:, :1])], dim=1)
        whole = torch.cat(seen).double()  # with the first tokens that all rows share, as a server runs them
        units = torch.relu(whole @ layer.down.double().T + (0 if layer.bias is None else layer.bias.double()))
        inputs = found[module].inputs
        assert inputs is not None
        torch.testing.assert_close(inputs.double(), wide.T @ wide / len(y), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[module].units.double(), units.T @ units / len(whole), rtol=1e-4, atol=1e-6)
    assert kept.moments(layers)[module].inputs is None


def test_of_many_retained_rows_each_group_is_measured(
    kept: Retained, members: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retained_, "MOST", 4)
    layers, tokens = concat(members), kept.tokens  # type: ignore[arg-type]
    found = kept.moments(layers)
    few = [kept.rows[index] for index in spread([row.group for row in kept.rows], 4)]
    assert len({row.group for row in few}) == 2
    monkeypatch.undo()
    other = Retained(model=kept.model, rows=few)
    assert tokens == other.tokens < kept.tokens
    for path, moments in other.moments(layers).items():
        torch.testing.assert_close(found[path].units, moments.units)


def test_a_rise_is_the_mean_change_of_a_group(kept: Retained, layers: Path, tiny_model: Path) -> None:
    """Against PEFT's own layers on another copy of the model."""
    bundle = read_bundle(layers / "first")
    changed = load(tiny_model, bundle.path)

    @torch.no_grad()
    def losses() -> list[float]:
        found = []
        for example in kept.examples:
            ids = torch.tensor([[*example.prompt, *example.answer]])
            logits = changed(ids).logits[0, len(example.prompt) - 1 : -1]
            found.append(float(torch.nn.functional.cross_entropy(logits, torch.tensor(example.answer))))
        return found

    after = losses()
    with changed.disable_adapter():
        before = losses()
    rises = kept.rises(load_layers(bundle), 1000)
    for group in ("g0", "g1"):
        wanted = [a - b for a, b, row in zip(after, before, kept.rows, strict=True) if row.group == group]
        assert rises[group] == pytest.approx(sum(wanted) / len(wanted), abs=1e-4)
    assert list(rises) == ["g0", "g1"]
    few = kept.rises(load_layers(bundle), 3)  # rows 0 and 1 of g0's and g1's first turns, and 2, g0's second
    wanted = [after[index] - before[index] for index in (0, 2)]
    assert few["g0"] == pytest.approx(sum(wanted) / 2, abs=1e-4)
    assert few["g1"] == pytest.approx(after[1] - before[1], abs=1e-4)


def test_the_worst_rise_counts_no_fall() -> None:
    assert worst({"a": -0.5, "b": 0.25, "c": 0.1}) == 0.25
    assert worst({"a": -0.5}) == 0.0


@pytest.fixture(scope="module")
def loud(kept: Retained, layers: Path) -> list[Member]:
    """The two layers with a U along the gradient of the retained loss, so that they raise it."""
    members = collect([read_bundle(layers / name) for name in BOTH])
    stack = concat(members)
    ups = {path: torch.zeros_like(layer.up).requires_grad_() for path, layer in stack.items()}

    def function(path: str) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda y: y + units_of(stack[path], y) @ ups[path].T

    batch = kept.runner.batch(kept.examples)
    with attached(kept.model.network, {path: function(path) for path in stack}):
        logits = kept.runner.logits(kept.runner.hidden(batch))
    torch.nn.functional.cross_entropy(logits, batch.targets).backward()
    found = []
    for place, member in enumerate(members):
        changed = {}
        for path, layer in member.layers.items():
            grad = ups[path].grad
            assert grad is not None
            changed[path] = replace(layer, up=(0.3 * grad / grad.norm())[:, 8 * place : 8 * place + 8].contiguous())
        found.append(replace(member, layers=changed))
    return found


def test_a_limit_takes_the_smallest_weight_that_keeps_it(loud: list[Member], kept: Retained) -> None:
    job, stack = prepare(loud, FuseSettings(rho=1.0), kept), concat(loud)
    heard = crosstalk(job, stack)
    rises = [worst(kept.rises(solved(job, stack, FuseSettings(rho=rho), heard), 64)) for rho in WEIGHTS]
    assert rises == sorted(rises, reverse=True)
    assert rises[0] > 0.5
    for place in (0, 1, 9, 25):
        limit = rises[place] + 1e-5
        fused = merged(loud, FuseSettings(retain_limit=limit), kept.model, kept.rows)
        assert fused.facts == {"rho": WEIGHTS[place], "retain_rise": pytest.approx(rises[place], abs=1e-5)}
        assert fused.facts["retain_rise"] == round(fused.facts["retain_rise"], 6)
        expected = solved(job, stack, FuseSettings(rho=WEIGHTS[place]), heard)
        for module, layer in fused.layers.items():
            torch.testing.assert_close(layer.up, expected[module].up)
    with pytest.raises(InputError, match="even a weight of 1000 leaves a rise of"):
        merged(loud, FuseSettings(retain_limit=rises[25] / 2), kept.model, kept.rows)


def test_ten_is_the_weight_where_nothing_is_said(loud: list[Member], kept: Retained) -> None:
    for settings in (CONCAT, FuseSettings(rho_blocks="0=0.3"), FuseSettings(method="compress")):
        assert prepare(loud, settings, kept).settings.rho == 10.0
    assert prepare(loud, FuseSettings(retain_limit=0.2), kept).settings.rho is None
    assert merged(loud, CONCAT, kept.model, kept.rows).facts == {}
    few = merged(loud, FuseSettings(retain_limit=0.2, calibration_rows=1), kept.model, kept.rows)
    assert few.facts["retain_rise"] == pytest.approx(kept.rises(few.layers, 1)["g0"], abs=1e-5)


def heal_loss(kept: Retained, layers: dict[str, object]) -> float:
    batch = kept.runner.batch(kept.examples)
    with torch.no_grad():
        base = kept.runner.logits(kept.runner.hidden(batch))
        with attached(kept.model.network, {path: layer.apply for path, layer in layers.items()}):  # type: ignore[attr-defined]
            mine = kept.runner.logits(kept.runner.hidden(batch))
    return float(divergence(base, mine).mean())


def test_healing_quietens_retained_rows_and_an_anchor_holds_it(kept: Retained, layers: Path) -> None:
    members = collect([read_bundle(layers / name) for name in BOTH])
    plain = merged(members, FuseSettings(rho=0.01), kept.model, kept.rows).layers
    healed = {}
    for anchor in (0.0, 100.0):
        settings = FuseSettings(rho=0.01, heal_steps=8, heal_rate=0.005, heal_anchor=anchor)
        fused = merged(members, settings, kept.model, kept.rows)
        healed[anchor] = fused.layers
        assert fused.facts["retain_rise"] == pytest.approx(worst(kept.rises(fused.layers, 64)), abs=1e-4)
    again = merged(members, replace(settings, seed=0), kept.model, kept.rows).layers
    other = merged(members, replace(settings, seed=1), kept.model, kept.rows).layers
    moved: dict[float, float] = {}
    for anchor, found in healed.items():
        assert heal_loss(kept, found) < heal_loss(kept, plain)  # type: ignore[arg-type]
        moved[anchor] = 0.0
        for module in found:
            grams = [one.statistics.moments[module].units for one in members if one.statistics]
            moved[anchor] += float(drift(found[module].up, plain[module].up, block_diagonal_of(grams)))  # type: ignore[attr-defined]
            assert torch.equal(found[module].down, plain[module].down)  # type: ignore[attr-defined]
    assert 0 < moved[100.0] < 0.5 * moved[0.0]
    for module in again:
        assert torch.equal(again[module].up, healed[100.0][module].up)  # type: ignore[attr-defined]
        assert not torch.equal(other[module].up, healed[100.0][module].up)  # type: ignore[attr-defined]


def test_the_first_step_of_healing_is_adams_on_the_stated_loss(kept: Retained, layers: Path) -> None:
    """One step from U_c, where the anchor has no gradient: Adam's first step is the rate times the gradient's sign."""
    members = collect([read_bundle(layers / name) for name in BOTH])
    plain = merged(members, FuseSettings(rho=0.1), kept.model, kept.rows).layers
    settings = FuseSettings(rho=0.1, heal_steps=1, heal_rate=0.01)
    healed = merged(members, settings, kept.model, kept.rows).layers
    chosen = torch.randperm(len(kept.rows), generator=torch.Generator().manual_seed(0))[:16].tolist()
    examples = [kept.examples[index] for index in chosen]
    ups = {path: layer.up.clone().requires_grad_() for path, layer in plain.items()}  # type: ignore[attr-defined]

    def function(path: str) -> Callable[[torch.Tensor], torch.Tensor]:
        layer = plain[path]
        return lambda y: y + torch.relu(y @ layer.down.T + layer.bias) @ ups[path].T  # type: ignore[attr-defined]

    batch = kept.runner.batch(examples)
    with torch.no_grad():
        base = kept.runner.logits(kept.runner.hidden(batch)).log_softmax(-1)
    with attached(kept.model.network, {path: function(path) for path in plain}):
        mine = kept.runner.logits(kept.runner.hidden(batch)).log_softmax(-1)
    (base.exp() * (base - mine)).sum(-1).mean().backward()
    for path, up in ups.items():
        assert up.grad is not None
        clear = up.grad.abs() > 1e-4 * up.grad.abs().max()
        step = (healed[path].up - plain[path].up)[clear]  # type: ignore[attr-defined]
        torch.testing.assert_close(step, -0.01 * up.grad.sign()[clear], rtol=1e-2, atol=1e-5)


def test_healing_slows_down_to_nothing(kept: Retained, layers: Path) -> None:
    """Adam moves a value whose gradient stays the same by the rate: of four steps by 1 + 3/4 + 1/2 + 1/4 of it."""
    members = collect([read_bundle(layers / name) for name in BOTH])
    plain = merged(members, FuseSettings(rho=0.1), kept.model, kept.rows).layers
    settings = FuseSettings(rho=0.1, heal_steps=4, heal_rate=1e-5, heal_anchor=0.0)
    healed = merged(members, settings, kept.model, kept.rows).layers
    moves = [(healed[path].up - plain[path].up).abs().max() for path in plain]  # type: ignore[attr-defined]
    assert float(max(moves)) == pytest.approx(2.5e-5, rel=0.02)


def test_a_gated_fusion_runs_on_the_model_and_is_not_written(layers: Path, kept: Retained, tmp_path: Path) -> None:
    settings = FuseSettings(method="gate", rho=0.0)
    with pytest.raises(InputError, match=r"version 1 of the bundle format has no gates.*--evaluate-only"):
        fuse_both(layers, tmp_path / "out", settings, kept)
    members = collect([read_bundle(layers / name) for name in BOTH])
    gated = merged(members, settings, kept.model, kept.rows)
    assert kept.rises(gated.layers, 64) != kept.rises(concat(members), 64)
    plain = kept.moments(concat(members))
    for path, found in prepare(members, settings, kept).moments.items():  # R is that of the gated units
        assert float(found.units.trace()) < float(plain[path].units.trace())


@pytest.mark.parametrize("how", ["concat", "regression", "compress", "distil", "corrected", "limited", "healed"])
def test_revoking_equals_a_fusion_of_the_rest(how: str, layers: Path, kept: Retained, tmp_path: Path) -> None:
    """Two of three: the third is a copy of the first with half its D, under its own request."""
    chosen = {
        "corrected": (FuseSettings(rho=0.1), kept),
        "limited": (FuseSettings(retain_limit=2.0), kept),
        "healed": (FuseSettings(rho=0.1, heal_steps=2, heal_rate=0.01), kept),
    }
    settings, retained = chosen[how] if how in chosen else (FuseSettings(method=how), None)
    settings = replace(settings, distil_steps=3) if how == "distil" else settings
    fused = fuse_both(layers, tmp_path / "both", settings, retained)
    needed = retained if how == "healed" else None
    rest = revoke(fused.path, ["first"], tmp_path / "rest", needed)
    assert rest.weights.read_bytes() == (layers / "second" / "adapter_model.safetensors").read_bytes()
    assert rest.manifest.request_ids == {"second"}
    again = fuse([rest.path, layers / "first"], tmp_path / "again", settings, retained)
    assert again.revision == fused.revision
    assert again.weights.read_bytes() == fused.weights.read_bytes()


def test_a_healed_bundle_is_revoked_from_with_its_own_rows(
    layers: Path, kept: Retained, make_layer: MakeLayer, tmp_path: Path, data: Path
) -> None:
    like = read_bundle(layers / "first")
    third = make_layer(tmp_path / "third", 3, width=64, rank=8, base=like.config.base_fingerprint)
    settings = FuseSettings(rho=0.1, heal_steps=2, heal_rate=0.01)
    fused = fuse([third.path, *(layers / name for name in BOTH)], tmp_path / "three", settings, kept)
    with pytest.raises(InputError, match="needed to revoke from a healed bundle"):
        revoke(fused.path, ["r3"], tmp_path / "rest")
    other = Retained(model=kept.model, rows=kept.rows[:-1])
    with pytest.raises(InputError, match=f"expected the rows that the bundle was fused with, {kept.digest}, found"):
        revoke(fused.path, ["r3"], tmp_path / "rest", other)
    rest = revoke(fused.path, ["r3"], tmp_path / "rest", kept)
    pair = fuse_both(layers, tmp_path / "pair", settings, kept)
    assert rest.revision == pair.revision
    limited = fuse(
        [third.path, *(layers / name for name in BOTH)], tmp_path / "l", FuseSettings(retain_limit=2.0), kept
    )
    rest = revoke(limited.path, ["r3"], tmp_path / "lr")
    facts, before = rest.manifest.settings["fusion"], limited.manifest.settings["fusion"]
    assert (facts["rho"], facts["retain_limit"]) == (before["rho"], None)
    same = fuse_both(layers, tmp_path / "ls", FuseSettings(rho=facts["rho"]), kept)
    for module, layer in load_layers(rest).items():  # R is cut out of the larger one, so equal up to rounding
        torch.testing.assert_close(layer.up, load_layers(same)[module].up, rtol=1e-3, atol=1e-5)


def test_the_order_of_layers_does_not_matter(layers: Path, kept: Retained, tmp_path: Path, tiny_model: Path) -> None:
    fused = [
        fuse([layers / name for name in order], tmp_path / order[0], FuseSettings(rho=0.1), kept)
        for order in (BOTH, BOTH[::-1])
    ]
    # Members are put in the order of their revisions, so the bundles are even the same revision.
    assert fused[0].revision == fused[1].revision
    assert torch.equal(logits(tiny_model, fused[0].path), logits(tiny_model, fused[1].path))


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


def fuse_random(bundles: Sequence[Bundle], out: Path, chosen: FuseSettings, gram: Retained | None = None) -> Bundle:
    return fuse([bundle.path for bundle in bundles], out, chosen, gram)


def test_what_cannot_be_fused_says_why(
    tiny_model: Path, kept: Retained, make_bundle: MakeBundle, layers: Path, tmp_path: Path
) -> None:
    plain = [make_bundle(tmp_path / f"p{n}", tiny_model, requests=(f"r{n}",), seed=n) for n in range(2)]
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"'r[01]': its layer came without fusion\.safetensors"):
        fuse_random(plain, out, REGRESSION)
    with pytest.raises(InputError, match=r"came without fusion\.safetensors"):
        fuse_random(plain, out, FuseSettings(rho=0.1), kept)
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
    full = make_bundle(tmp_path / "w2", tiny_model, requests=("w2",), rank=2047, seed=2)
    assert len(prepare(collect([wide[0], full]), CONCAT, None).members) == 2  # 4096 is allowed
    fused = fuse_random(plain, out, CONCAT)  # without a retain set no statistics are needed
    assert fused.config.rank == 8
    assert 0 <= json.loads((out / "run.json").read_text())["seconds"] < 600
    store = read_store(fused)
    assert store is not None
    assert [(entry.statistics.tokens, entry.statistics.moments) for entry in store.entries] == [(0, {})] * 2
    with pytest.raises(InputError, match="new or empty directory"):
        fuse_random(plain, out, CONCAT)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (FuseSettings(method="regression", rho=1.0), "--rho: not read by --method regression; .*--method concat"),
        (FuseSettings(method="compress", shrink=0.5), "--shrink: .*or use --method regression"),
        (FuseSettings(rank=4), "--rank: not read by --method concat.*--method compress or --method distil"),
        (
            FuseSettings(method="regression", seed=3, rank=4, rho=1.0, gate_slope=1.0, energy=0.5, distil_steps=9),
            "^--distil-steps: not read by --method regression; leave it out, or use --method distil$",
        ),
        (FuseSettings(retain_limit=0.1), "--retain-limit: needs retained rows"),
        (FuseSettings(heal_steps=1), "--heal-steps: needs retained rows"),
        (FuseSettings(rho=0.1, retain_limit=0.1), "--retain-limit: needs retained rows"),
        (FuseSettings(method="regression", retain_weight=1.0), "--retain-weight: .*together with --model and --retain"),
    ],
)
def test_a_setting_without_effect_is_refused(
    settings: FuseSettings, words: str, members: list[object], kept: Retained
) -> None:
    with pytest.raises(InputError, match=words):
        prepare(members, settings, None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"--retain: .*together with --retain-weight"):
        prepare(members, REGRESSION, kept)  # type: ignore[arg-type]


def test_what_each_method_reads_needs_and_can_be_written_as() -> None:
    """The table of docs/reference/cli-eul-train.md."""
    assert {name for name, method in METHODS.items() if method.inputs} == {"regression", "distil"}
    assert {name for name, method in METHODS.items() if method.own_units} == {"concat", "gate"}
    assert {name for name, method in METHODS.items() if not method.written} == {"gate"}
    assert {name for name, method in METHODS.items() if method.retain != "optional"} == {"regression"}


def test_another_base_model_is_refused(layers: Path, data: Path, other_model: Path, tmp_path: Path) -> None:
    other = Retained(model=load_model(str(other_model)), rows=read_rows(data / "retain.jsonl", Fields()))
    with pytest.raises(BundleMismatchError, match="made for base model"):
        fuse_both(layers, tmp_path / "out", CONCAT, other)
    fused = fuse_both(layers, tmp_path / "fused")
    with pytest.raises(BundleMismatchError, match="made for base model"):
        revoke(fused.path, ["first"], tmp_path / "rest", other)


def test_regression_with_a_retain_set_is_quieter_there(layers: Path, kept: Retained) -> None:
    members = collect([read_bundle(layers / name) for name in BOTH])
    energies = []
    for weight in (0.01, 1.0, 100.0):
        found = merge(prepare(members, FuseSettings(method="regression", retain_weight=weight), kept)).layers
        moments = kept.moments(found)  # type: ignore[arg-type]
        energies.append(sum(float((found[m].up @ moments[m].units @ found[m].up.T).trace()) for m in moments))  # type: ignore[attr-defined]
    assert energies == sorted(energies, reverse=True)
