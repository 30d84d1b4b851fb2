"""Every formula of a fusion against NumPy, on small random layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.errors import InputError
from eul_serve.format.weights import LayerWeights
from eul_trainer.fit.shift import shifted
from eul_trainer.fusion import distil
from eul_trainer.fusion import settings as settings_
from eul_trainer.fusion import solve as solve_
from eul_trainer.fusion.compress import compressed, drop_order, problem
from eul_trainer.fusion.concat import concat
from eul_trainer.fusion.correct import rescaled, solved
from eul_trainer.fusion.crosstalk import crosstalk
from eul_trainer.fusion.distil import Imitation, output_of
from eul_trainer.fusion.gate import gated
from eul_trainer.fusion.gated import GatedLayer, units_of
from eul_trainer.fusion.heal import drift
from eul_trainer.fusion.job import Job, forget_grams
from eul_trainer.fusion.limit import WEIGHTS, least_weight
from eul_trainer.fusion.members import Member
from eul_trainer.fusion.normal import Normal, forgotten, kept
from eul_trainer.fusion.regression import fuse as regression
from eul_trainer.fusion.regression import regress
from eul_trainer.fusion.retained import spread
from eul_trainer.fusion.settings import RHO, FuseSettings
from eul_trainer.fusion.solve import resolve_up, solve
from eul_trainer.fusion.store import RetainMoments
from eul_trainer.moments.gating import gate_of

Array = npt.NDArray[np.float64]
MakeMember = Callable[..., Member]
MODULE = "model.layers.0.mlp"


def random_gram(seed: int, size: int, tokens: int = 40) -> torch.Tensor:
    data = np.random.default_rng(seed).normal(size=(tokens, size))
    return torch.from_numpy(data.T @ data / tokens)


def job_of(members: list[Member], settings: FuseSettings, *, seed: int | None = 7) -> Job:
    """A fusion with random moments on retained rows, or without a retain set."""
    units, moments = sum(member.rank for member in members), {}
    if seed is not None:
        width = members[0].layers[MODULE].down.shape[1]
        for place, module in enumerate(members[0].layers):
            inputs = random_gram(seed + place, width + 1) + torch.eye(width + 1)
            inputs[-1, -1] = 1 + inputs[:-1, -1] @ inputs[:-1, -1]
            inputs = inputs / inputs[-1, -1]
            moments[module] = RetainMoments(units=random_gram(seed + 9, units).float(), inputs=inputs.float())
    return Job(members=members, settings=settings, moments=moments)


def dense(tensor: torch.Tensor | None) -> Array:
    assert tensor is not None
    return tensor.double().numpy()


def grams_of(member: Member, module: str = MODULE) -> tuple[Array, Array]:
    """Return the stored second moments of inputs and units."""
    assert member.statistics is not None
    found = member.statistics.moments[module]
    assert found.inputs is not None
    return dense(found.inputs.dense()), dense(found.units)


@given(
    st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(0, 1000), st.floats(1e-4, 1.0), st.floats(0, 5)
)
def test_regression_is_the_ridge_solution_of_numpy(
    count: int, inner: int, outer: int, seed: int, ridge: float, weight: float
) -> None:
    """The closed form minimises sum_i |X_i (W - W_i)|^2 + l |W - W_i|^2 + w s |R W|^2, one stacked problem."""
    draw = np.random.default_rng(seed)
    data = [draw.normal(size=(7, inner)) for _ in range(count)]
    around = draw.normal(size=(7, inner))
    maps = [draw.normal(size=(outer, inner)) for _ in range(count)]
    trace = np.mean([np.trace(x.T @ x) for x in data])
    level, share = ridge * trace / inner, weight * trace / np.trace(around.T @ around)
    tall = [np.concatenate([x, np.sqrt(level) * np.eye(inner)]) for x in data]
    left = np.concatenate([*tall, np.sqrt(share) * around])
    right = np.concatenate([*(x @ w.T for x, w in zip(tall, maps, strict=True)), np.zeros((7, outer))])
    expected = np.linalg.lstsq(left, right, rcond=None)[0].T
    found = regress(
        [torch.from_numpy(x.T @ x) for x in data],
        [torch.from_numpy(w) for w in maps],
        FuseSettings(method="regression", ridge=ridge, retain_weight=weight),
        torch.from_numpy(around.T @ around),
    )
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-8)


def test_shrinking_scales_the_off_diagonals_alone() -> None:
    grams, maps = [random_gram(seed, 4) for seed in (0, 1)], [torch.ones(2, 4), 3 * torch.ones(2, 4)]
    maps[0][0, 1] = 5.0
    around = random_gram(2, 4)
    settings = FuseSettings(method="regression", shrink=0.3, retain_weight=1.0)
    by_hand = [gram * torch.where(torch.eye(4) > 0, 1.0, 0.3) for gram in (*grams, around)]
    found = regress(grams, maps, settings, around)
    expected = regress(by_hand[:2], maps, replace(settings, shrink=1.0), by_hand[2])
    torch.testing.assert_close(found, expected)
    alone = regress(grams, maps, replace(settings, shrink=0.0), around)  # every column by itself
    top = sum(gram.diagonal() * weight for gram, weight in zip(grams, maps, strict=True))
    scale = sum(gram.trace() for gram in grams) / 2 / around.trace()
    expected = top / (sum(gram.diagonal() for gram in grams) + scale * around.diagonal())
    torch.testing.assert_close(alone, expected.to(alone), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_regression_fuses_d_with_its_bias_and_u(bias: bool, weight: float, make_member: MakeMember) -> None:
    """Both maps of the layer from the stored moments: D's inputs with a constant, U's units; sums over tokens."""
    members = [make_member(0, bias=bias, tokens=100), make_member(1, bias=bias, tokens=300)]
    job = job_of(members, FuseSettings(method="regression", retain_weight=weight), seed=7 if weight else None)
    found = regression(job).layers[MODULE]
    tokens = np.array([100, 300])
    size = 7 if bias else 6
    inputs = [count * grams_of(one)[0][:size, :size] for count, one in zip(tokens, members, strict=True)]
    units = [count * grams_of(one)[1] for count, one in zip(tokens, members, strict=True)]
    layers = [one.layers[MODULE] for one in members]
    downs = [np.column_stack([dense(x.down), dense(x.bias)]) if bias else dense(x.down) for x in layers]
    retained = job.moments.get(MODULE)

    def closed(grams: list[Array], maps: list[Array], around: Array | None) -> Array:
        trace, n = np.mean([np.trace(gram) for gram in grams]), len(grams[0])
        eye = 1e-4 * trace / n * np.eye(n)
        left = sum(gram + eye for gram in grams)
        if around is not None:
            left = left + weight * trace / np.trace(around) * around
        right = sum((gram + eye) @ w.T for gram, w in zip(grams, maps, strict=True))
        return np.asarray(np.linalg.solve(left, right).T)

    around = None if retained is None else dense(retained.inputs)[:size, :size]
    blocks = None if retained is None else dense(retained.units)
    quiet = None if blocks is None else (blocks[:3, :3] + blocks[3:, 3:]) / 2
    down = closed(inputs, downs, around)
    np.testing.assert_allclose(dense(found.down), down[:, :6], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        dense(found.up), closed(units, [dense(x.up) for x in layers], quiet), rtol=1e-4, atol=1e-5
    )
    assert (found.bias is None) == (not bias)
    if bias:
        np.testing.assert_allclose(dense(found.bias), down[:, 6], rtol=1e-4, atol=1e-5)


@given(st.integers(0, 100), st.integers(2, 4))
def test_identical_layers_fuse_to_themselves(make_member: MakeMember, seed: int, count: int) -> None:
    one = make_member(seed)
    others = [replace(make_member(seed + place), layers=one.layers) for place in range(count)]
    fused = regression(Job(members=others, settings=FuseSettings(method="regression"))).layers[MODULE]
    layer = one.layers[MODULE]
    for mine, wanted in ((fused.down, layer.down), (fused.up, layer.up), (fused.bias, layer.bias)):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-4)


def test_units_that_never_fire_leave_the_plain_mean() -> None:
    maps = [torch.ones(2, 3), 3 * torch.ones(2, 3)]
    settings = FuseSettings(method="regression")
    torch.testing.assert_close(regress([torch.zeros(3, 3)] * 2, maps, settings), 2 * torch.ones(2, 3))


def test_the_defaults_are_stated_once_for_settling_and_fusing() -> None:
    assert (settings_.RHO, solve_.RIDGE, solve_.LEAST) == (10.0, 1e-4, 1e-12)
    assert FuseSettings().ridge == solve_.RIDGE
    chosen = FuseSettings()
    assert (chosen.heal_steps, chosen.heal_rate, chosen.heal_anchor, chosen.energy) == (0, 1e-3, 1.0, 0.99)
    assert (chosen.calibration_rows, chosen.distil_steps, chosen.gate_slope, chosen.shrink) == (64, 200, 3.0, 1.0)


def test_where_units_are_silent_on_retained_rows_nothing_is_paid() -> None:
    own, up = torch.eye(2, dtype=torch.float64), torch.tensor([[1.0, 2.0]])
    torch.testing.assert_close(resolve_up(up, own, 1e-9 * own, 10.0), up)
    torch.testing.assert_close(resolve_up(up, own, own, 10.0), up / 11, rtol=1e-3, atol=0)


@pytest.mark.parametrize("rho", [10.0, 1e6])
def test_units_that_are_huge_on_a_first_token_leave_a_solution(rho: float) -> None:
    """A hundred units of one direction, a million times as loud there; kept in float32, as R is."""
    draw = np.random.default_rng(0)
    loud, quiet = draw.normal(size=(1, 100)) * 1e6, draw.normal(size=(300, 100))
    retain = torch.from_numpy((loud.T @ loud + quiet.T @ quiet) / 301).float()
    own = torch.from_numpy(draw.normal(size=(100, 20))).double()
    found = resolve_up(torch.ones(4, 100), own @ own.T / 1e3, retain, rho)
    assert bool(found.isfinite().all())


def test_a_singular_gram_names_the_ridge() -> None:
    with pytest.raises(InputError, match=r"--ridge: 1e-18 leaves a singular Gram matrix; raise it"):
        solve(torch.tensor([[1.0, 1.0], [1.0, 1.0 - 1e-12]], dtype=torch.float64), torch.eye(2).double(), 1e-18)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 1000), st.floats(0, 10), st.floats(1e-4, 1))
def test_resolve_is_the_least_squares_solution_of_numpy(
    units: int, width: int, seed: int, rho: float, ridge: float
) -> None:
    draw = np.random.default_rng(seed)
    forget, retain, up = (draw.normal(size=shape) for shape in ((9, units), (9, units), (width, units)))
    level = ridge * np.trace(forget.T @ forget) / units
    own = np.concatenate([forget, np.sqrt(level) * np.eye(units)])
    rounding = np.sqrt(rho * 1e-5 * np.square(retain).sum(0))
    left = np.concatenate([own, np.sqrt(rho) * retain, np.diag(rounding)])
    right = np.concatenate([own @ up.T, np.zeros((9 + units, width))])
    expected = np.linalg.lstsq(left, right, rcond=None)[0].T
    grams = torch.from_numpy(forget.T @ forget), torch.from_numpy(retain.T @ retain)
    found = resolve_up(torch.from_numpy(up), *grams, rho, ridge)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("bias", [True, False])
def test_concatenation_is_the_exact_sum_of_the_functions(bias: bool, make_member: MakeMember) -> None:
    members = [make_member(seed, rank=2 + seed, bias=bias) for seed in range(3)]
    y = torch.randn(50, 6, generator=torch.Generator().manual_seed(9))
    deltas = sum((one.layers[MODULE].apply(y) - y for one in members), torch.zeros_like(y))
    torch.testing.assert_close(concat(members)[MODULE].apply(y), y + deltas, rtol=1e-5, atol=1e-5)


def test_a_weight_of_zero_leaves_a_block_bit_for_bit_and_blocks_have_weights_of_their_own(
    make_member: MakeMember,
) -> None:
    members = [make_member(seed) for seed in range(2)]
    plain = concat(members)
    job = job_of(members, FuseSettings())
    same = solved(job, plain, FuseSettings(rho=0.0))
    assert all(same[module] is plain[module] for module in plain)
    mixed = solved(job, plain, FuseSettings(rho=0.0, rho_blocks="1=0.5", keep_energy=False))
    other = solved(job, plain, FuseSettings(rho=0.5, keep_energy=False))
    assert mixed[MODULE] is plain[MODULE]
    torch.testing.assert_close(mixed["model.layers.1.mlp"].up, other["model.layers.1.mlp"].up)
    assert not torch.equal(other[MODULE].up, plain[MODULE].up)
    own = np.zeros((6, 6))
    own[:3, :3], own[3:, 3:] = grams_of(members[0])[1], grams_of(members[1])[1]
    retain = dense(job.moments[MODULE].units)
    held = own + 1e-4 * np.trace(own) / 6 * np.eye(6)
    expected = dense(plain[MODULE].up) @ held @ np.linalg.inv(held + 0.5 * retain)
    np.testing.assert_allclose(dense(other[MODULE].up), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("", [0.2, 0.2, 0.2, 0.2]),
        ("1=0.5", [0.2, 0.5, 0.2, 0.2]),
        ("1-2=3, 2=0", [0.2, 3.0, 0.0, 0.2]),
        ("0-100=1.5", [1.5, 1.5, 1.5, 1.5]),
    ],
)
def test_blocks_can_have_weights_of_their_own(text: str, weights: list[float]) -> None:
    settings = FuseSettings(rho=0.2, rho_blocks=text)
    assert [settings.weight_of(f"model.layers.{block}.mlp") for block in range(4)] == weights
    assert settings.weight_of("encoder.mlp") == 0.2
    assert FuseSettings(rho_blocks=text).weight_of("encoder.mlp") == 0.0


@pytest.mark.parametrize("wrong", ["1", "a=1", "1=-2", "1=", "3-=1", "1=nan", "1=2=3", "1=0.1;2=0.2"])
def test_weights_of_blocks_have_one_form(wrong: str) -> None:
    with pytest.raises(InputError, match="--rho-blocks: expected BLOCK=WEIGHT or FIRST-LAST=WEIGHT"):
        FuseSettings(rho_blocks=wrong)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", "mean"), ("ridge", 0.0), ("ridge", 1.1), ("rho", -0.1), ("retain_limit", 0.0), ("shrink", 1.5),
        ("calibration_rows", 0), ("heal_steps", -1), ("heal_rate", 0.0), ("heal_anchor", -1.0), ("rank", 0),
        ("rank", 4097), ("energy", 1.01), ("distil_steps", -1), ("gate_slope", 0.0), ("seed", -1),
        ("rho", float("nan")),
    ],
)  # fmt: skip
def test_settings_have_ranges(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')}: expected .*found"):
        FuseSettings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("sizes", [(0.8, 1.5), (0.1, 5.0)])
def test_parts_are_scaled_back_to_their_energy_within_bounds(sizes: tuple[float, float]) -> None:
    """A member's part that lost energy is scaled up, by a factor of 2 at most; one that gained, down to a half."""
    before, grams = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), [random_gram(n, 2) for n in (0, 1)]
    up = torch.cat([before[:, :2] * sizes[0] ** 0.5, before[:, 2:] * sizes[1] ** 0.5], dim=1)
    found = rescaled(up, before, grams)
    for place, size in enumerate(sizes):
        part, old, gram = found[:, 2 * place :][:, :2].double(), before[:, 2 * place :][:, :2].double(), grams[place]
        energy = float((part @ gram @ part.T).trace() / (old @ gram @ old.T).trace())
        factor = min(max(size**-0.5, 0.5), 2.0)
        assert energy == pytest.approx(size * factor**2, rel=1e-4)
    torch.testing.assert_close(rescaled(1e-4 * up, 1e-4 * before, grams), 1e-4 * found)  # however quiet it is
    silent = rescaled(up, before, [torch.zeros(2, 2)] * 2)
    assert torch.equal(silent, up)


def test_keeping_the_energy_follows_the_solve(make_member: MakeMember) -> None:
    members = [make_member(seed) for seed in range(2)]
    plain, job = concat(members), job_of(members, FuseSettings())
    lost = solved(job, plain, FuseSettings(rho=0.5, keep_energy=False))[MODULE].up
    kept_up = solved(job, plain, FuseSettings(rho=0.5, keep_energy=True))[MODULE].up
    grams = [torch.from_numpy(grams_of(one)[1]) for one in members]
    torch.testing.assert_close(kept_up, rescaled(lost, plain[MODULE].up, grams))


@given(st.floats(0, 1), st.integers(0, 24))
def test_the_least_weight_is_that_of_a_linear_search(limit: float, top: int) -> None:
    """On any falling curve, and with one measurement per weight at most."""
    measured: list[float] = []

    def rise(rho: float) -> float:
        measured.append(rho)
        return 1.0 - WEIGHTS.index(rho) / (top + 1)

    wanted = [rho for rho in WEIGHTS if 1.0 - WEIGHTS.index(rho) / (top + 1) <= limit]
    if not wanted:
        with pytest.raises(InputError, match="--retain-limit"):
            least_weight(rise, limit)
        return
    assert least_weight(rise, limit) == (wanted[0], 1.0 - WEIGHTS.index(wanted[0]) / (top + 1))
    assert len(measured) == len(set(measured)) <= 7


def test_the_largest_weight_may_leave_just_what_is_allowed() -> None:
    assert least_weight(lambda rho: 0.5 if rho == WEIGHTS[-1] else 1.0, 0.5) == (WEIGHTS[-1], 0.5)


def test_a_job_of_one_member_knows_its_modules_and_grams(make_member: MakeMember) -> None:
    member = make_member(0)
    assert Job(members=[member], settings=FuseSettings()).modules == list(member.layers)
    (gram,) = forget_grams([member])[MODULE]
    assert gram is member.statistics.moments[MODULE].units  # type: ignore[union-attr]


def test_the_weights_that_are_tried() -> None:
    assert WEIGHTS[0] == 0
    assert WEIGHTS[1] == pytest.approx(1e-3)
    assert WEIGHTS[-1] == pytest.approx(1e3)
    assert len(WEIGHTS) == 26
    assert WEIGHTS[5] / WEIGHTS[4] == pytest.approx(10**0.25)


@pytest.mark.parametrize(
    ("groups", "most", "wanted"),
    [
        ("aaabb", 3, [0, 1, 3]),
        ("aaabb", 4, [0, 1, 3, 4]),
        ("aaabb", 9, [0, 1, 2, 3, 4]),
        ("aaaa", 2, [0, 1]),
        ("abcabc", 3, [0, 1, 2]),
    ],
)
def test_groups_share_the_rows_that_are_measured(groups: str, most: int, wanted: list[int]) -> None:
    assert spread(list(groups), most) == wanted


def test_drift_is_the_relative_change_of_the_output_on_forgotten_answers() -> None:
    draw = np.random.default_rng(0)
    phi, solved_up, up = draw.normal(size=(50, 4)), draw.normal(size=(6, 4)), draw.normal(size=(6, 4))
    expected = np.square(phi @ (up - solved_up).T).sum() / np.square(phi @ solved_up.T).sum()
    found = drift(torch.from_numpy(up), torch.from_numpy(solved_up), torch.from_numpy(phi.T @ phi / 50))
    assert float(found) == pytest.approx(expected, rel=1e-6)
    quiet = drift(torch.from_numpy(1e-6 * up), torch.from_numpy(1e-6 * solved_up), torch.from_numpy(phi.T @ phi / 50))
    assert float(quiet) == pytest.approx(expected, rel=1e-6)  # however small the outputs are
    assert float(drift(torch.ones(2, 2), torch.ones(2, 2), torch.zeros(2, 2))) == 0


@given(st.integers(2, 6), st.integers(0, 500), st.booleans())
def test_units_are_dropped_in_the_order_of_their_exact_cost(units: int, seed: int, with_retain: bool) -> None:
    """Each step drops the unit without which the best U of the rest explains most; costs by NumPy, from scratch."""
    draw = np.random.default_rng(seed)
    phi, quiet, up = draw.normal(size=(20, units)), draw.normal(size=(20, units)), draw.normal(size=(3, units))
    own, around = phi.T @ phi / 20, quiet.T @ quiet / 20
    settings = FuseSettings(method="compress", rho=0.7, ridge=1e-3)
    retain = torch.from_numpy(around) if with_retain else None
    found = problem(torch.from_numpy(up), torch.from_numpy(own), retain, MODULE, settings)
    held = own + 1e-3 * np.trace(own) / units * np.eye(units)
    metric = held + (0.7 * (around + 1e-5 * np.diag(np.diag(around))) if with_retain else 0)
    target = held @ up.T
    np.testing.assert_allclose(found.metric.numpy(), metric, rtol=1e-9)
    np.testing.assert_allclose(found.target.numpy(), target, rtol=1e-9)

    def explained(chosen: list[int]) -> float:
        if not chosen:
            return 0.0
        part = target[chosen]
        return float(np.trace(part.T @ np.linalg.solve(metric[np.ix_(chosen, chosen)], part)))

    order, shares = drop_order(found, 1e-3, 0)
    assert sorted(order) == list(range(units))
    left = list(range(units))
    for step, unit in enumerate(order):
        assert shares[units - step] == pytest.approx(explained(left) / explained(list(range(units))), abs=1e-6)
        costs = {one: explained(left) - explained([other for other in left if other != one]) for one in left}
        assert costs[unit] == pytest.approx(min(costs.values()), abs=1e-6)
        left.remove(unit)
    assert shares[0] == pytest.approx(0, abs=1e-6)
    quiet_up = torch.from_numpy(up) * 1e-6  # shares do not depend on how loud a layer is
    same = drop_order(problem(quiet_up, torch.from_numpy(own), retain, MODULE, settings), 1e-3, 0)
    assert same[0] == order
    assert same[1] == pytest.approx(shares, abs=1e-6)
    assert drop_order(found, 1e-3, 2) == (order[:-2] + sorted(order[-2:]), [0.0, 0.0, *shares[2:]])


@pytest.mark.parametrize("rank", range(1, 6))
def test_compression_keeps_units_of_every_block_and_solves_u_on_them(make_member: MakeMember, rank: int) -> None:
    job = job_of([make_member(seed) for seed in range(2)], FuseSettings(method="compress", rho=0.5))
    layers, facts = compressed(job, rank)
    shares = []
    for module, layer in concat(job.members).items():
        own = torch.block_diag(*(torch.from_numpy(grams_of(one, module)[1]) for one in job.members))  # type: ignore[no-untyped-call]
        heard = crosstalk(job, concat(job.members))[module]
        found = problem(layer.up, own, job.moments[module].units, module, job.settings, heard)
        order, kept_shares = drop_order(found, 1e-4, 0)
        chosen = sorted(order[-rank:])
        shares.append(kept_shares[rank])
        assert torch.equal(layers[module].down, layer.down[chosen])
        assert layer.bias is not None
        assert torch.equal(layers[module].bias, layer.bias[chosen])  # type: ignore[arg-type]
        wanted = np.linalg.solve(found.metric.numpy()[np.ix_(chosen, chosen)], found.target.numpy()[chosen]).T
        np.testing.assert_allclose(dense(layers[module].up), wanted, rtol=1e-4, atol=1e-5)
    assert facts == {"rank": rank, "energy_kept": round(min(shares), 6)}
    exact = replace(job.settings, energy=min(shares))
    same, facts = compressed(replace(job, settings=exact), None)
    assert facts["rank"] == rank
    for module, layer in layers.items():
        assert torch.equal(same[module].down, layer.down)  # in the members' order, however they were chosen
        torch.testing.assert_close(same[module].up, layer.up)


def test_compression_takes_the_least_rank_that_keeps_the_energy(make_member: MakeMember) -> None:
    job = job_of([make_member(seed) for seed in range(2)], FuseSettings(method="compress", rho=0.5))
    assert compressed(replace(job, settings=replace(job.settings, energy=0.01)), None)[1]["rank"] == 1
    for energy in np.linspace(0.3, 0.999, 24).tolist():  # among them some that the blocks reach at different ranks
        _, facts = compressed(replace(job, settings=replace(job.settings, energy=energy)), None)
        _, fewer = compressed(job, max(1, facts["rank"] - 1))
        assert facts["energy_kept"] >= energy
        assert facts["rank"] == 1 or fewer["energy_kept"] < energy
    assert compressed(job, 4096)[1] == {"rank": 6, "energy_kept": 1.0}


def test_compression_of_layers_that_say_nothing_keeps_all_of_it() -> None:
    gram = torch.eye(3)
    order, shares = drop_order(problem(torch.zeros(2, 3), gram, gram, MODULE, FuseSettings()), 1e-4, 0)
    assert (sorted(order), shares) == ([0, 1, 2], [1.0, 1.0, 1.0, 1.0])


@given(st.integers(0, 500), st.floats(1e-3, 1))
def test_a_gate_is_the_linear_discriminant_of_numpy(seed: int, ridge: float) -> None:
    draw = np.random.default_rng(seed)
    own, quiet = draw.normal(size=(60, 4)) + 1.5, draw.normal(size=(80, 4)) @ draw.normal(size=(4, 4))
    spread_ = (np.cov(own.T, bias=True) + np.cov(quiet.T, bias=True)) / 2
    apart = own.mean(0) - quiet.mean(0)
    direction = np.linalg.solve(spread_ + ridge * np.trace(spread_) / 4 * np.eye(4), apart)
    weight = direction / (direction @ apart)
    offset = -(weight @ (own.mean(0) + quiet.mean(0))) / 2

    def moment(rows: Array) -> torch.Tensor:
        wide = np.column_stack([rows, np.ones(len(rows))])
        return torch.from_numpy(wide.T @ wide / len(rows))

    found = gate_of(moment(own), moment(quiet), ridge)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), [*weight, offset], rtol=1e-3, atol=1e-4)
    assert float(found[:-1].double() @ torch.from_numpy(own.mean(0))) + float(found[-1]) == pytest.approx(0.5, abs=1e-3)
    assert not gate_of(moment(own), moment(own)).isnan().any()


def test_the_ridge_of_a_gate_is_a_tenth() -> None:
    moments = [torch.diag(torch.tensor([2.0, 2.0, 1.0])) for _ in range(2)]
    for gram, mean in zip(moments, (1.0, 0.0), strict=True):
        gram[0, 2] = gram[2, 0] = mean
    moments[0][0, 1] = moments[0][1, 0] = 0.8
    # Variances 1 and 2 in the first direction, 2 and 2 in the second: the mean of 1.5 and 2 is 1.75.
    within = np.array([[1.5, 0.4], [0.4, 2.0]]) + 0.175 * np.eye(2)
    direction = np.linalg.solve(within, [1.0, 0.0])
    weight = direction / direction[0]
    np.testing.assert_allclose(gate_of(*moments).numpy(), [*weight, -weight[0] / 2], rtol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_a_shift_leaves_the_mean_of_forgotten_answers_and_pushes_retained_ones_down(bias: bool) -> None:
    draw = np.random.default_rng(1)
    own, quiet = draw.normal(size=(60, 4)) + 1.5, draw.normal(size=(80, 4))
    layer = LayerWeights(torch.randn(3, 4), torch.randn(4, 3), torch.randn(3) if bias else None)
    moments = []
    for rows in (own, quiet):
        wide = np.column_stack([rows, np.ones(len(rows))])
        moments.append(torch.from_numpy(wide.T @ wide / len(rows)))
    units = torch.diag(torch.tensor([4.0, 9.0, 0.25])) + 0.1
    moved = shifted(layer, gate_of(*moments), units, 0.5)
    before = 0 if layer.bias is None else layer.bias
    assert moved.bias is not None
    means = [torch.from_numpy(rows.mean(0)).float() for rows in (own, quiet)]
    now = [moved.down @ mean + moved.bias for mean in means]
    then = [layer.down @ mean + before for mean in means]
    torch.testing.assert_close(now[0], then[0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(now[1], then[1] - 0.5 * units.diagonal().sqrt(), rtol=1e-3, atol=1e-3)
    assert torch.equal(moved.up, layer.up)
    assert torch.equal(shifted(layer, gate_of(*moments), units, 0.0).down, layer.down)


@given(st.integers(0, 100), st.floats(0.5, 5))
def test_gated_layers_are_the_gated_sum(make_member: MakeMember, seed: int, slope: float) -> None:
    members = [make_member(seed + place, rank=2 + place) for place in range(3)]
    y = torch.randn(40, 6, generator=torch.Generator().manual_seed(seed))
    expected = dense(y)
    for one in members:
        assert one.statistics is not None
        gate, layer = one.statistics.moments[MODULE].gate, one.layers[MODULE]
        assert gate is not None
        opening = np.clip(0.5 + slope * (dense(y) @ dense(gate)[:-1] + dense(gate)[-1]), 0, 1)
        hidden = np.maximum(dense(y) @ dense(layer.down).T + dense(layer.bias), 0)
        expected = expected + opening[:, None] * (hidden @ dense(layer.up).T)
    layers = gated(members, slope)[MODULE]
    np.testing.assert_allclose(dense(layers.apply(y)), expected, rtol=1e-3, atol=1e-4)
    assert layers.apply(y.bfloat16()).dtype == torch.bfloat16
    assert layers.gates(y).shape == (40, 3)


def test_gates_multiply_the_units(make_member: MakeMember) -> None:
    """A gate that is always open gives the concatenation, one that is always shut the base model."""
    members = [make_member(seed) for seed in range(2)]
    plain = concat(members)[MODULE]
    y = torch.randn(10, 6, generator=torch.Generator().manual_seed(0))
    for offset, wanted in ((1.0, plain.apply(y)), (0.0, y), (-3.0, y), (7.0, plain.apply(y))):
        layer = GatedLayer(
            down=plain.down, up=plain.up, bias=plain.bias, activation="relu", weight=torch.zeros(2, 6),
            offset=torch.full((2,), offset), ranks=(3, 3),
        )  # fmt: skip
        torch.testing.assert_close(layer.apply(y), wanted)
    torch.testing.assert_close(units_of(plain, y) @ plain.up.T, plain.apply(y) - y, rtol=1e-4, atol=1e-4)


def test_a_normal_has_the_moments_that_are_stored(make_member: MakeMember) -> None:
    member = make_member(0, tokens=100, width=30)  # 31 columns in blocks of 25
    gram, _ = grams_of(member)
    assert member.statistics is not None
    mean = dense(member.statistics.moments[MODULE].mean)
    found = forgotten(member, MODULE)
    block = np.arange(30) // 25
    expected = (gram[:-1, :-1] - np.outer(mean, mean)) * (block[:, None] == block[None])
    np.testing.assert_allclose(found.covariance.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(found.mean.numpy(), mean)
    assert np.linalg.eigvalsh(expected).min() > -1e-5
    root = found.root().numpy()
    np.testing.assert_allclose(root @ root.T, expected + 1e-5 * np.trace(expected) / 30 * np.eye(30), atol=1e-6)
    job = job_of([make_member(0), make_member(1)], FuseSettings())
    quiet, wide = kept(job, MODULE), dense(job.moments[MODULE].inputs)
    np.testing.assert_allclose(quiet.mean.numpy(), wide[-1, :-1])
    np.testing.assert_allclose(
        quiet.covariance.numpy(), wide[:-1, :-1] - np.outer(wide[-1, :-1], wide[-1, :-1]), atol=1e-9
    )


def test_a_covariance_that_is_none_is_made_one() -> None:
    """A low-rank Gram less the square of the mean may have a negative eigenvalue; it counts as zero."""
    wrong = torch.tensor([[1.0, 0.0], [0.0, -0.5]], dtype=torch.float64)
    root = Normal(mean=torch.zeros(2, dtype=torch.float64), covariance=wrong).root()
    torch.testing.assert_close(root @ root.T, torch.diag(torch.tensor([1.0, 0.0]).double()), atol=1e-4, rtol=0)
    larger = Normal(mean=torch.zeros(2, dtype=torch.float64), covariance=4 * wrong).root()
    torch.testing.assert_close(larger @ larger.T, torch.diag(torch.tensor([4.0, 0.0]).double()), atol=1e-3, rtol=0)


def test_the_distillation_loss_is_the_relative_error_on_draws(make_member: MakeMember) -> None:
    """With point distributions, covariance zero, the draws are the means and the loss is known."""
    members = [make_member(seed) for seed in range(2)]
    teacher, student = concat(members)[MODULE], members[0].layers[MODULE]
    means = [torch.randn(6, generator=torch.Generator().manual_seed(n)).double() for n in range(3)]
    points = [Normal(mean=mean, covariance=torch.zeros(6, 6, dtype=torch.float64)) for mean in means]
    task = Imitation(teacher, points[:2], points[2], 0.3, torch.Generator().manual_seed(0))
    far, loud = task.loss(student)
    ratios, sizes = [], []
    for mean in means[:2]:
        wanted, found = (output_of(layer, mean.float()) for layer in (teacher, student))
        sizes.append(float(wanted.square().sum()))
        ratios.append(float((wanted - found).square().sum()) / sizes[-1])
    quiet = float(output_of(student, means[2].float()).square().sum())
    assert float(far) == pytest.approx(sum(ratios) / 2, rel=1e-2)
    assert float(loud) == pytest.approx(0.3 * quiet / (sum(sizes) / 2), rel=1e-2)
    assert float(Imitation(teacher, points[:2], None, 0.3, torch.Generator()).loss(student)[1]) == 0


def drawn(found: Normal, count: int, draw: torch.Generator) -> torch.Tensor:
    return found.mean.float() + torch.randn(count, len(found.mean), generator=draw) @ found.root().float().T


@pytest.mark.parametrize(("requests", "each"), [(1, 128), (3, 42), (130, 1)])
def test_the_distillation_draws_a_hundred_and_twenty_eight_inputs_of_all_requests_and_a_quarter_of_retained_ones(
    requests: int, each: int, make_member: MakeMember
) -> None:
    """Drawn again here from the same seed; with more requests than draws each has one."""
    members = [make_member(seed) for seed in range(2)]
    teacher, student = concat(members)[MODULE], members[0].layers[MODULE]
    # So quiet that a floor under the energies, other than one against zero, would show.
    teacher = replace(teacher, up=1e-3 * teacher.up)
    found = [forgotten(members[number % 2], MODULE) for number in range(requests)]
    quiet = forgotten(members[1], MODULE)
    far, loud = Imitation(teacher, found, quiet, 0.3, torch.Generator().manual_seed(4)).loss(student)
    draw, ratios, sizes = torch.Generator().manual_seed(4), [], []
    for normal in found:
        y = drawn(normal, each, draw)
        wanted, imitated = output_of(teacher, y), output_of(student, y)
        sizes.append(wanted.square().sum() / each)
        ratios.append((wanted - imitated).square().sum() / each / sizes[-1])
    torch.testing.assert_close(far, torch.stack(ratios).mean())
    energy = output_of(student, drawn(quiet, 32, draw)).square().sum() / 32
    torch.testing.assert_close(loud, 0.3 * energy / torch.stack(sizes).mean())


@pytest.mark.parametrize("steps", [0, 1, 12])
def test_distillation_is_adam_at_a_falling_rate_for_each_part(steps: int, make_member: MakeMember) -> None:
    """Stepped again here: a part learns at 0.03 of its mean size, at least 0.00003, falling to zero."""
    members = [make_member(seed) for seed in range(2)]
    teacher, start = concat(members)[MODULE], members[0].layers[MODULE]
    assert start.bias is not None
    start = replace(start, bias=torch.zeros_like(start.bias))  # the least rate
    normals = [forgotten(one, MODULE) for one in members]
    settings = FuseSettings(method="distil", distil_steps=steps)
    task = Imitation(teacher, normals, normals[0], 0.4, torch.Generator().manual_seed(2))
    found, error = task.train(start, settings)

    again = Imitation(teacher, normals, normals[0], 0.4, torch.Generator().manual_seed(2))
    parts = [part.clone().requires_grad_() for part in (start.down, start.up, start.bias)]
    rates = [0.03 * max(float(part.detach().abs().mean()), 1e-3) for part in parts]
    optimizer = torch.optim.Adam([{"params": [part]} for part in parts], betas=(0.9, 0.99))
    seen: list[float] = []
    for step in range(steps):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (steps - step) / steps
        far, loud = again.loss(LayerWeights(*parts))
        optimizer.zero_grad()
        (far + loud).backward()
        optimizer.step()
        seen.append(far.item())
    for mine, expected in zip((found.down, found.up, found.bias), parts, strict=True):
        torch.testing.assert_close(mine, expected.detach(), rtol=1e-5, atol=1e-7)
    if not steps:
        with torch.no_grad():
            seen = [again.loss(start)[0].item()]
    assert error == pytest.approx(sum(seen[-10:]) / len(seen[-10:]), rel=1e-5)


def test_distillation_of_a_fusion_is_that_of_its_blocks_each_with_a_seed_of_its_own(make_member: MakeMember) -> None:
    members = [make_member(seed, rank=rank) for seed, rank in enumerate((2, 3))]
    job = job_of(members, FuseSettings(method="distil", rho=0.4, distil_steps=3, seed=5))
    starts, _ = compressed(job, 3)
    fused, errors = distil.fuse(job), []
    for place, (module, teacher) in enumerate(concat(members).items()):
        answers = [forgotten(one, module) for one in members]
        task = Imitation(teacher, answers, kept(job, module), 0.4, torch.Generator().manual_seed(5 + place))
        layer, error = task.train(starts[module], job.settings)
        assert torch.equal(fused.layers[module].up, layer.up)
        assert torch.equal(fused.layers[module].down, layer.down)
        errors.append(error)
    assert errors[0] != errors[1]
    assert fused.facts == {"rank": 3, "distil_error": round(max(errors), 6)}


def test_distillation_brings_a_small_layer_nearer(make_member: MakeMember) -> None:
    members = [make_member(seed, width=8, rank=4) for seed in range(3)]
    job = job_of(members, FuseSettings(method="distil", rank=4, rho=0.1))
    starts, _ = compressed(job, 4)
    teacher = concat(members)[MODULE]
    task = Imitation(teacher, [forgotten(one, MODULE) for one in members], None, 0.1, torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = sum(float(task.loss(starts[MODULE])[0]) for _ in range(5)) / 5
    found, error = task.train(starts[MODULE], replace(job.settings, distil_steps=100))
    assert error < 0.9 * before
    assert found.down.shape == (4, 8)
    assert not found.down.requires_grad


BOUNDS: dict[str, tuple[float, float]] = {
    "rho": (0.0, 1e6), "crosstalk": (0.0, 1e6), "retain_limit": (1e-6, 100.0), "calibration_rows": (1, 100_000),
    "retain_weight": (0.0, 1e6), "shrink": (0.0, 1.0), "heal_steps": (0, 10_000), "heal_rate": (1e-8, 1.0),
    "heal_anchor": (0.0, 1e6), "rank": (1, 4096), "energy": (0.01, 1.0), "distil_steps": (0, 100_000),
    "gate_slope": (1e-3, 1e3), "seed": (0, 2**31 - 1),
}  # fmt: skip
"""What each setting may be, as its message says; ridge is above 0 and at most 1."""


@pytest.mark.parametrize("name", BOUNDS)
def test_a_setting_ends_where_its_message_says(name: str) -> None:
    low, high = BOUNDS[name]
    for value in (low, high):
        assert getattr(FuseSettings(**{name: value}), name) == value  # type: ignore[arg-type]
    step = 1 if isinstance(low, int) else 1e-6 * high
    first, last = (f"{bound:.8f}".rstrip("0").rstrip(".") for bound in (low, high))
    words = f"--{name.replace('_', '-')}: expected {first} to {last}, found"
    for value in (low - min(step, low / 2 or 1), high + step):
        with pytest.raises(InputError, match=words):
            FuseSettings(**{name: value})  # type: ignore[arg-type]


def test_the_size_of_the_retain_gram_is_divided_out() -> None:
    grams, maps = [torch.eye(3), 2 * torch.eye(3)], [torch.ones(2, 3), -torch.ones(2, 3)]
    retain = torch.diag(torch.tensor([1.0, 2.0, 3.0]))
    settings = FuseSettings(method="regression", retain_weight=1.0)
    torch.testing.assert_close(regress(grams, maps, settings, retain), regress(grams, maps, settings, 1e-6 * retain))


def test_the_defaults_are_those_of_the_reference() -> None:
    """docs/reference/cli-eul-train.md names them; a fusion that is made again must come out as it did."""
    found = FuseSettings()
    assert (found.method, found.ridge, found.rho, found.crosstalk, found.keep_energy) == (
        "concat",
        1e-4,
        None,
        0.3,
        True,
    )
    assert (found.retain_limit, found.calibration_rows, found.rho_blocks, found.seed) == (None, 64, "", 0)
    assert (found.heal_steps, found.heal_rate, found.heal_anchor) == (0, 1e-3, 1.0)
    assert (found.shrink, found.retain_weight, found.gate_slope) == (1.0, 0.0, 3.0)
    assert (found.rank, found.energy, found.distil_steps) == (None, 0.99, 200)
    assert RHO == 10.0
