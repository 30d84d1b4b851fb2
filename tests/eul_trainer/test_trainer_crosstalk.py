"""What layers do on each other's answers: the estimate from stored means and variances, and what fusion makes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from eul_serve.errors import InputError
from eul_trainer.fusion.concat import concat
from eul_trainer.fusion.correct import solved
from eul_trainer.fusion.crosstalk import DRAWS, crosstalk, draws, spread_of
from eul_trainer.fusion.fuse import merge
from eul_trainer.fusion.gated import units_of
from eul_trainer.fusion.job import Job
from eul_trainer.fusion.members import Member
from eul_trainer.fusion.settings import FuseSettings
from eul_trainer.fusion.store import RetainMoments
from eul_trainer.moments.gram import PackedGram

MakeMember = Callable[..., Member]
MODULE = "model.layers.0.mlp"


@pytest.fixture
def job(make_member: MakeMember) -> Job:
    """Three layers of ranks 2, 3 and 2 with their default statistics; on retained rows all units fire alike."""
    members = [make_member(seed, rank=rank, keep="units") for seed, rank in ((1, 2), (2, 3), (3, 2))]
    moments = {module: RetainMoments(units=torch.eye(7)) for module in members[0].layers}
    return Job(members=members, settings=FuseSettings(rho=0.01, crosstalk=0.5), moments=moments)


def test_it_is_the_moment_of_all_units_but_a_requests_own(job: Job) -> None:
    stack = concat(job.members)
    found = crosstalk(job, stack)
    assert set(found) == set(stack)
    expected = torch.zeros(7, 7)
    for member, own in zip(job.members, (slice(0, 2), slice(2, 5), slice(5, 7)), strict=True):
        units = units_of(stack[MODULE], draws(member, MODULE))
        for first in range(7):
            for second in range(7):
                if first not in range(own.start, own.stop) and second not in range(own.start, own.stop):
                    expected[first, second] += 0.5 * (units[:, first] * units[:, second]).mean()
    torch.testing.assert_close(found[MODULE].float(), expected)
    assert expected[0, 1] > 0  # units of one layer on the others' answers


def test_what_a_layer_was_trained_on_top_of_is_no_crosstalk(job: Job) -> None:
    first, second, third = job.members
    above = replace(job, members=[first, replace(second, on_top_of=(first.revision,)), third])
    stack = concat(job.members)
    plain, found = crosstalk(job, stack)[MODULE], crosstalk(above, stack)[MODULE]
    assert torch.equal(found[2:, 2:], plain[2:, 2:])  # the first layer's answers hear the second as before
    of_second = units_of(stack[MODULE], draws(second, MODULE)).double()[:, :2]
    torch.testing.assert_close(plain[:2, :2] - found[:2, :2], 0.5 * of_second.T @ of_second / DRAWS)


def test_draws_have_the_stored_moments_and_are_the_same_at_every_call(make_member: MakeMember) -> None:
    member = make_member(1, keep="units")
    mean, variance = spread_of(member, MODULE)
    y = draws(member, MODULE)
    assert y.shape == (DRAWS, len(mean))
    error = (variance / DRAWS).sqrt()
    assert ((y.mean(0) - mean).abs() < 4 * error).all()  # four standard errors
    torch.testing.assert_close(y.var(0), variance, rtol=0.5, atol=0)
    assert torch.equal(y, draws(member, MODULE))
    assert not torch.equal(y, draws(member, "model.layers.1.mlp"))
    assert not torch.equal(y, draws(replace(member, revision="sha256:other"), MODULE))


def test_moments_of_version_2_tell_the_same(make_member: MakeMember) -> None:
    member = make_member(1, keep="full")
    assert member.statistics is not None
    old = {path: replace(found, variance=None) for path, found in member.statistics.moments.items()}
    before = replace(member, statistics=replace(member.statistics, moments=old))
    for mine, other in zip(spread_of(before, MODULE), spread_of(member, MODULE), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-3)


def test_draws_are_those_that_a_revision_always_had(make_member: MakeMember) -> None:
    """A fusion that is made again, or loses a request, must come out to the bit as it did: the law written out."""
    member = make_member(1, keep="units")
    mean, variance = spread_of(member, MODULE)
    seed = int.from_bytes(hashlib.sha256(f"{member.revision} {MODULE}".encode()).digest()[:7], "big")
    noise = torch.randn(192, len(mean), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(draws(member, MODULE), mean + noise * variance.sqrt())


def test_small_variances_of_version_2_are_kept_and_rounding_below_none_is_zero(make_member: MakeMember) -> None:
    member = make_member(1, keep="full")
    assert member.statistics is not None
    found = member.statistics.moments[MODULE]
    assert found.mean is not None
    squares = torch.cat([torch.full_like(found.mean, 4.25), torch.ones(1)])
    squares[0] = 3.9  # less than the mean's own square, by rounding
    mean = torch.full_like(found.mean, 2.0)
    old = replace(found, mean=mean, variance=None, inputs=PackedGram.of(torch.diag(squares)))
    moments = {**member.statistics.moments, MODULE: old}
    before = replace(member, statistics=replace(member.statistics, moments=moments))
    _, variance = spread_of(before, MODULE)
    assert variance[0] == 0.0
    torch.testing.assert_close(variance[1:], torch.full_like(mean[1:], 0.25))


@pytest.mark.parametrize("missing", [{"variance": None}, {"mean": None}, {"mean": None, "variance": None}])
def test_half_of_the_moments_is_none(make_member: MakeMember, missing: dict[str, None]) -> None:
    for keep in ("units", "full") if "mean" in missing else ("units",):
        member = make_member(1, keep=keep)
        assert member.statistics is not None
        moments = {path: replace(found, **missing) for path, found in member.statistics.moments.items()}
        with pytest.raises(InputError, match="no means and variances"):
            spread_of(replace(member, statistics=replace(member.statistics, moments=moments)), MODULE)


def test_layers_without_them_are_refused_in_words(job: Job) -> None:
    member = job.members[0]
    assert member.statistics is not None
    old = {path: replace(found, mean=None, variance=None) for path, found in member.statistics.moments.items()}
    first = replace(member, statistics=replace(member.statistics, moments=old))
    with pytest.raises(
        InputError, match=r"request 'r1': its statistics have no means and variances .* or give --crosstalk 0"
    ):
        merge(replace(job, members=[first, *job.members[1:]]))
    silent = replace(job, members=[first, *job.members[1:]], settings=replace(job.settings, crosstalk=0.0))
    assert set(merge(silent).layers) == set(member.layers)


def test_a_fusion_is_quieter_on_the_others_answers_and_keeps_its_own(job: Job) -> None:
    stack = concat(job.members)
    heard = crosstalk(job, stack)
    loud, quiet = solved(job, stack, job.settings), merge(job).layers
    own, others = {}, {}
    for name, layers in (("loud", loud), ("quiet", quiet)):
        up = layers[MODULE].up.double()
        others[name] = float((up @ heard[MODULE] * up).sum())
        statistics = job.members[1].statistics
        assert statistics is not None
        mine, gram = up[:, 2:5], statistics.moments[MODULE].units.double()
        own[name] = float((mine @ gram * mine).sum())
    assert others["quiet"] < 0.5 * others["loud"]
    assert own["quiet"] > 0.2 * own["loud"]
    assert torch.equal(
        loud[MODULE].up, merge(replace(job, settings=replace(job.settings, crosstalk=0.0))).layers[MODULE].up
    )


def test_without_retained_rows_or_weight_there_is_none(job: Job) -> None:
    stack = concat(job.members)
    assert crosstalk(replace(job, moments={}), stack) == {}
    assert crosstalk(replace(job, settings=replace(job.settings, crosstalk=0.0)), stack) == {}
