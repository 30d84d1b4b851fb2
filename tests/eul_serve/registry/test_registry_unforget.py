"""Nothing un-forgets by accident: random moves against a simple model of an alias."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eul_serve.errors import EulError, InputError, NotFoundError, RefusedError
from eul_serve.format import Bundle, Reference
from eul_serve.registry import AliasMove, dropped_requests
from eul_serve.registry.history import earlier_target
from eul_serve.registry.local import LocalRegistry
from tests.eul_serve.registry_files import acts

PlainBundle = Callable[..., Bundle]
Audit = Callable[[Path], None]

REQUESTS = ("r1", "r2", "r3")
COVERS = [frozenset(some) for count in (1, 2, 3) for some in combinations(REQUESTS, count)]
REASONS = st.sampled_from([None, "ticket 1"])
STEPS = st.lists(
    st.tuples(st.sampled_from(["publish", "promote", "rollback"]), st.sampled_from(COVERS), REASONS), max_size=12
)


class Model:
    """An alias as a stack of covered sets, and the rule in its shortest form."""

    def __init__(self) -> None:
        self.stack: list[frozenset[str]] = []

    def step(self, act: str, covers: frozenset[str], reason: str | None) -> type[EulError] | None:
        """Do a step, or return the error that it must give."""
        if act == "rollback":
            if len(self.stack) < 2:
                return NotFoundError
            covers = self.stack[-2]
        if self.stack and self.stack[-1] == covers:
            return None
        if self.stack and not covers >= self.stack[-1] and reason is None:
            return RefusedError
        self.stack = self.stack[:-1] if act == "rollback" else [*self.stack, covers]
        return None


@pytest.fixture(scope="module")
def bundles(plain_bundle: PlainBundle) -> dict[frozenset[str], Bundle]:
    """One bundle for each set of requests."""
    return {covers: plain_bundle(*sorted(covers)) for covers in COVERS}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, bundles: dict[frozenset[str], Bundle]) -> Path:
    """A registry that holds them all, each under an alias of its own."""
    root = tmp_path_factory.mktemp("filled") / "registry"
    for covers, bundle in bundles.items():
        LocalRegistry(root).publish(bundle, "poems", "-".join(sorted(covers)))
    return root


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_random_moves_obey_the_rule(
    memory_path: Path,
    bundles: dict[frozenset[str], Bundle],
    filled: Path,
    audit: Audit,
    steps: list[tuple[str, frozenset[str], str | None]],
) -> None:
    root = Path(tempfile.mkdtemp(dir=memory_path)) / "registry"
    shutil.copytree(filled, root)
    registry, model = LocalRegistry(root), Model()
    for act, covers, reason in steps:
        expected = model.step(act, covers, reason)
        if expected is None:
            _do(registry, act, bundles[covers], reason)
        else:
            with pytest.raises(expected):
                _do(registry, act, bundles[covers], reason)
        if model.stack:
            assert registry.resolve(Reference.parse("poems")) == bundles[model.stack[-1]].revision
    audit(root)


def _do(registry: LocalRegistry, act: str, bundle: Bundle, reason: str | None) -> None:
    if act == "publish":
        registry.publish(bundle, "poems", "stable", allow_unforget=reason)
    elif act == "promote":
        registry.promote("poems", bundle.revision, "stable", allow_unforget=reason)
    else:
        registry.rollback("poems", "stable", allow_unforget=reason)


def test_a_refusal_names_the_requests_and_the_way_out_and_writes_nothing(
    registry: LocalRegistry, tmp_path: Path, plain_bundle: PlainBundle
) -> None:
    more, fewer = plain_bundle("r1", "r2", "r3"), plain_bundle("r2")
    registry.publish(more, "poems", "stable")
    log = acts(tmp_path / "registry")
    for dry_run in (True, False):
        with pytest.raises(RefusedError, match=r"'r1', 'r3'.*--allow-unforget REASON"):
            registry.publish(fewer, "poems", "stable", dry_run=dry_run)
    assert registry.revisions("poems") == [more.revision]
    assert acts(tmp_path / "registry") == log


def test_a_reason_is_recorded_in_history_and_log(
    registry: LocalRegistry, tmp_path: Path, plain_bundle: PlainBundle
) -> None:
    registry.publish(plain_bundle("r1", "r2"), "poems", "stable")
    registry.publish(plain_bundle("r1"), "poems", "stable", allow_unforget="r2 was withdrawn", actor="ann")
    last = registry.aliases("poems")["stable"].history[-1]
    assert (last.reason, last.actor, last.act) == ("r2 was withdrawn", "ann", "publish")
    line = acts(tmp_path / "registry")[-1]
    assert (line["dropped"], line["reason"]) == (["r2"], "r2 was withdrawn")


@pytest.mark.parametrize("reason", ["", " ", "\n"])
def test_a_blank_reason_is_no_reason(registry: LocalRegistry, plain_bundle: PlainBundle, reason: str) -> None:
    bundle = plain_bundle()
    with pytest.raises(InputError, match="expected a reason in words"):
        registry.publish(bundle, "poems", "stable", allow_unforget=reason)
    registry.publish(bundle, "poems", "stable")
    with pytest.raises(InputError, match="expected a reason in words"):
        registry.rollback("poems", "stable", allow_unforget=reason)


def test_a_refusal_of_many_requests_stays_short(registry: LocalRegistry, plain_bundle: PlainBundle) -> None:
    registry.publish(plain_bundle(*(f"r{number}" for number in range(40))), "poems", "stable")
    with pytest.raises(RefusedError, match="and 29 more"):
        registry.publish(plain_bundle("r0"), "poems", "stable")


def test_rolling_back_twice_goes_back_by_two(registry: LocalRegistry, plain_bundle: PlainBundle) -> None:
    first, second, third = (plain_bundle(seed=seed) for seed in range(3))
    for bundle in (first, second, third):
        registry.publish(bundle, "poems", "stable")
    assert registry.rollback("poems", "stable") == second.revision
    assert registry.rollback("poems", "stable") == first.revision
    with pytest.raises(NotFoundError):
        registry.rollback("poems", "stable")
    registry.promote("poems", third.revision, "stable")
    assert registry.rollback("poems", "stable") == first.revision


def test_dropped_requests_are_those_of_the_first_alone(plain_bundle: PlainBundle) -> None:
    one, two = plain_bundle("a", "c", "b").manifest, plain_bundle("b", "d").manifest
    assert dropped_requests(one, two) == ("a", "c")
    assert dropped_requests(one, one) == ()


def test_an_alias_that_never_moved_has_no_earlier_target() -> None:
    assert earlier_target([]) is None
    assert earlier_target([AliasMove(act="rollback", revision="sha256:" + "a" * 64, at="2026")]) is None
