"""Canaries seen from outside: what fails them never serves, nothing un-forgets meanwhile, and no text is told."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from eul_serve.audit import AuditLog, read_chain
from eul_serve.errors import CanaryError, EngineError, RefusedError
from eul_serve.format import Reference
from eul_serve.format.canaries import Canary
from eul_serve.format.canary_text import CanaryText
from tests.eul_serve.fake_engine import FakeEngine
from tests.eul_serve.registry_files import move_by_hand
from tests.eul_serve.service_home import Service, ServiceHome

ACME = {"default": "poems:stable", "bundles": ["poems"]}
TEXT = CanaryText(nonce=32 * "a", prompt=(7, 8, 9), answer=(1, 2, 3, 4))
STRANGE = CanaryText(nonce=32 * "c", prompt=(999,), answer=(1, 2, 3, 4))  # beyond the fake engine's 256 tokens
LEAST = 6.0
HIDES, TELLS = 2.0, 1.0  # nats of each of the answer's four tokens: 8 and 4 in all
CANARY = Canary(digest=TEXT.digest, least_nats=LEAST)
STABLE = "poems:stable"


def put(path: Path, *texts: CanaryText, mode: int = 0o600) -> Path:
    path.write_bytes(b"".join(text.to_bytes() + b"\n" for text in texts))
    path.chmod(mode)
    return path


@pytest.fixture
def texts(home: ServiceHome) -> Path:
    """The private file; the policy is written too."""
    home.write_policy(acme=dict(ACME))
    return put(home.root / "canaries.jsonl", TEXT)


class Stage:
    """A server that looks at the registry when it is told to, and what it wrote into its audit log."""

    def __init__(self, home: ServiceHome, texts: Path | None) -> None:
        self.home, self.texts, self.engine = home, texts, FakeEngine(home.fingerprint, step=0.005)
        self.path = home.root / "audit.jsonl"

    async def __aenter__(self) -> Stage:
        self.audit = AuditLog(self.path)
        self.running = self.home.serve(self.engine, self.audit, canaries=self.texts, poll_seconds=60.0)
        self.service: Service = await self.running.__aenter__()
        self.follower, self.residency = self.service.server.follower, self.service.server.residency
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.running.__aexit__(*error)
        self.audit.__exit__(None, None, None)

    def publish(self, *requests: str, seed: int, alias: str | None = "stable", nats: float = HIDES, **why: str) -> str:
        """Publish a revision with the canary; the engine has so many nats for each token under it."""
        revision = self.home.publish("poems", None, *requests, seed=seed, canaries=[CANARY])
        self.engine.nats[revision] = nats
        if alias is not None:
            self.home.registry.promote("poems", revision, alias, **why)
        return revision

    async def look(self) -> None:
        """Poll, and wait for what that starts."""
        await self.follower.poll_registry()
        await self.follower.settle()

    async def revision(self, adapter: str = "") -> str:
        """What answers acme."""
        return str((await self.service.ask("acme", adapter=adapter, max_tokens=1)).revision)

    async def refused(self, adapter: str = "") -> str:
        """What acme is told instead of an answer."""
        with pytest.raises(EngineError) as caught:
            await self.revision(adapter)
        assert "canar" not in str(caught.value)
        return str(caught.value)

    def let_retry(self, revision: str) -> None:
        """Do not wait for a failed revision's next turn."""
        entry = self.residency.entry(revision)
        assert entry is not None
        entry.retry_at = 0.0

    def acts(self) -> list[tuple[str, dict[str, Any]]]:
        """Decisions so far."""
        return [(entry.act, dict(entry.facts)) for entry in read_chain(self.path)]

    def names(self) -> list[str]:
        """What was decided, from the start on."""
        return [act for act, _ in self.acts()]


async def test_canaries_are_asked_before_a_revision_serves(home: ServiceHome, texts: Path) -> None:
    stage = Stage(home, texts)
    first = stage.publish("r1", seed=1)
    async with stage:
        assert await stage.revision() == first
        (asked,) = [work for work in stage.engine.works if work.token_ids == TEXT.prompt]
        assert asked.bundle is not None
        assert asked.bundle.revision == first
        assert stage.engine.works[0] is asked
        assert [work.salt for work in stage.engine.works].count(asked.salt) == 1
    acts = dict(stage.acts())
    assert acts["swap"] == {"reference": STABLE, "revision": first, "before": None, "canaries": 1}
    assert "canary" not in acts  # it passed: a step, no decision


async def test_a_bundle_without_canaries_needs_no_texts(home: ServiceHome, texts: Path) -> None:
    first = home.publish("poems", "stable", "r1", seed=1)
    async with Stage(home, None) as stage:
        assert await stage.revision() == first
    assert dict(stage.acts())["swap"] == {"reference": STABLE, "revision": first, "before": None}


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("likely", "1 of 1 canaries did not pass; 1 answer what the bundle is there to hide"),
        ("does not fit", "1 of 1 canaries did not pass; 1 answer what the bundle is there to hide"),
        ("no option", "1 cannot be asked: start the server with --canaries FILE"),
        ("no file", "1 cannot be asked: canaries .*: cannot read: No such file or directory"),
        ("another text", "1 cannot be asked: .* has no text of theirs"),
        ("open to everybody", "1 cannot be asked: .*chmod o="),
        ("damaged", r"1 cannot be asked: .*canaries\.jsonl:1: expected a JSON object"),
    ],
)
async def test_what_fails_or_cannot_be_asked_never_serves(
    home: ServiceHome, texts: Path, caplog: pytest.LogCaptureFixture, how: str, words: str
) -> None:
    text = STRANGE if how == "does not fit" else TEXT
    put(texts, STRANGE if how == "another text" else text, mode=0o644 if how == "open to everybody" else 0o600)
    if how == "damaged":
        texts.write_text("the secret\n")
    if how == "no file":
        texts.unlink()
    canary = Canary(digest=text.digest, least_nats=LEAST)
    revision = home.publish("poems", "stable", "r1", seed=1, canaries=[canary])
    stage = Stage(home, None if how == "no option" else texts)
    stage.engine.nats[revision] = TELLS if how == "likely" else HIDES
    async with stage:
        for adapter in ("", STABLE, f"poems@{revision}"):
            assert "did not pass verification on this server" in await stage.refused(adapter)
        entry = stage.residency.entry(revision)
        assert entry is not None
        assert isinstance(entry.error, CanaryError)
        await stage.service.until(lambda: not stage.engine.loaded, "the revision to leave the engine")
        for metric, labels in (("verification_failures", {"reason": "canary"}), ("swaps", {"outcome": "canary"})):
            assert stage.service.sample(f"eul_{metric}_total", **labels) >= 1
    assert re.search(words, caplog.text)
    acts = dict(stage.acts())
    assert acts["canary"] == {"name": "poems", "revision": revision, "passed": 0, "failed": 1}
    assert acts["swap_refused"] == {"reference": STABLE, "reason": "canary"}
    for secret in (text.digest, text.nonce, "the secret"):
        assert secret not in caplog.text
        assert secret not in stage.path.read_text()


async def test_all_canaries_must_pass_and_all_are_counted(home: ServiceHome, texts: Path) -> None:
    others = [CanaryText.fresh((5,), answer) for answer in ((1,), (1, 2, 3, 4, 5))]  # 2 and 10 nats
    put(texts, TEXT, *others)
    unknown = CanaryText.fresh((1,), (1,))
    canaries = [Canary(digest=one.digest, least_nats=LEAST) for one in (TEXT, *others, unknown)]
    revision = home.publish("poems", "stable", "r1", seed=1, canaries=canaries)
    stage = Stage(home, texts)
    stage.engine.nats[revision] = HIDES
    async with stage:
        await stage.refused()
    assert dict(stage.acts())["canary"] == {"name": "poems", "revision": revision, "passed": 2, "failed": 2}


async def test_where_nothing_is_said_the_revision_before_goes_too_and_a_repaired_one_is_taken_up(
    home: ServiceHome, texts: Path
) -> None:
    first = home.publish("poems", "stable", "r1", seed=1)
    async with Stage(home, texts) as stage:
        assert await stage.revision() == first
        running = asyncio.create_task(stage.service.ask("acme", max_tokens=60))
        await stage.service.until(lambda: sum(stage.engine.running.values()) == 1, "the request")
        bad = stage.publish("r1", "r2", seed=2, nats=TELLS)
        await stage.look()
        assert "did not pass verification" in await stage.refused()
        assert stage.residency.pointers() == frozenset()
        assert (await running).revision == first  # whoever ran goes on
        for _ in range(3):  # nothing flaps, and nothing is said twice
            await stage.look()
            stage.let_retry(bad)
        await stage.refused()
        good = stage.publish("r1", "r2", seed=3)
        await stage.look()
        assert await stage.revision() == good
    assert stage.names() == ["start", "swap", "canary", "withdraw", "swap_refused", "swap", "stop"]
    assert dict(stage.acts())["withdraw"] == {"reference": STABLE, "revision": first, "reason": "canary"}


async def test_the_policy_lets_the_revision_before_serve_on(home: ServiceHome, texts: Path) -> None:
    home.sections["canaries"] = {"on_failure": "previous"}
    home.write_policy(acme=dict(ACME))
    first = home.publish("poems", "stable", "r1", seed=1)
    async with Stage(home, texts) as stage:
        bad = stage.publish("r1", seed=2, nats=TELLS)
        for _ in range(3):
            await stage.look()
            stage.let_retry(bad)
            assert await stage.revision() == first
        assert "did not pass verification" in await stage.refused(f"poems@{bad}")
        # Whoever changes the policy back is heard at the next look.
        home.sections.clear()
        home.write_policy(acme=dict(ACME))
        await stage.follower.poll_policy()
        await stage.look()
        await stage.refused()
    assert stage.names() == ["start", "swap", "canary", "swap_refused", "policy", "withdraw", "stop"]


async def test_what_stands_in_covers_all_that_the_failed_one_covers(home: ServiceHome, texts: Path) -> None:
    """The newest earlier revision lacks a request, the one before it does not pass either; an older one serves."""
    home.sections["canaries"] = {"on_failure": "previous"}
    home.write_policy(acme=dict(ACME))
    oldest = home.publish("poems", "stable", "r1", "r2", seed=1)
    stage = Stage(home, texts)
    stage.publish("r1", "r2", seed=2, nats=TELLS)
    less = stage.publish("r1", seed=3, allow_unforget="court order 12")
    async with stage:
        assert await stage.revision() == less
        bad = stage.publish("r1", "r2", seed=4, nats=TELLS)
        await stage.look()
        assert await stage.revision() == oldest
        await stage.look()
        assert await stage.revision() == oldest
        good = stage.publish("r1", "r2", "r3", seed=5)
        await stage.look()
        assert await stage.revision() == good
    swaps = [facts for act, facts in stage.acts() if act == "swap"]
    assert [facts["revision"] for facts in swaps] == [less, oldest, good]
    assert swaps[1] == {"reference": STABLE, "revision": oldest, "before": less, "instead_of": bad}
    assert "withdraw" not in stage.names()


async def test_where_no_earlier_revision_covers_it_nothing_serves(home: ServiceHome, texts: Path) -> None:
    home.sections["canaries"] = {"on_failure": "previous"}
    home.write_policy(acme=dict(ACME))
    first = home.publish("poems", "stable", "r1", seed=1)
    async with Stage(home, texts) as stage:
        assert await stage.revision() == first
        stage.publish("r1", "r2", seed=2, nats=TELLS)
        await stage.look()
        await stage.refused()
    assert "withdraw" in stage.names()


@pytest.mark.parametrize("adapter", ["", "poems:next"])
async def test_a_server_that_starts_finds_what_stands_in(home: ServiceHome, texts: Path, adapter: str) -> None:
    """Through an alias that the policy names, and through one that a request alone names."""
    home.sections["canaries"] = {"on_failure": "previous"}
    home.write_policy(acme=dict(ACME))
    alias = adapter.partition(":")[2] or "stable"
    stage = Stage(home, texts)
    first = stage.publish("r1", seed=1, alias=alias)
    bad = stage.publish("r1", seed=2, alias=alias, nats=TELLS)
    async with stage:
        assert await stage.revision(adapter) == first
        stage.engine.nats[bad] = HIDES  # as when the texts were mended
        stage.let_retry(bad)
        await stage.look()
        assert await stage.revision(adapter) == bad


async def test_the_texts_can_be_replaced_while_the_server_runs(home: ServiceHome, texts: Path) -> None:
    stage = Stage(home, put(texts))
    revision = stage.publish("r1", seed=1)
    async with stage:
        await stage.refused()
        put(texts, TEXT)
        stage.let_retry(revision)
        assert await stage.revision() == revision


async def test_an_administrator_s_look_tells_of_the_failure_and_changes_nothing_about_it(
    home: ServiceHome, texts: Path
) -> None:
    home.publish("poems", "stable", "r1", seed=1)
    async with Stage(home, texts) as stage:
        stage.publish("r1", seed=2, nats=TELLS)
        with pytest.raises(EngineError, match="did not pass verification"):
            await stage.follower.look(Reference.parse(STABLE))
        await stage.refused()


async def test_nothing_un_forgets_while_nothing_serves(home: ServiceHome, texts: Path) -> None:
    """Something other than our registry writes the alias of a failed revision: the server knows what that covered."""
    home.publish("poems", "stable", "r1", seed=1)
    async with Stage(home, texts) as stage:
        stage.publish("r1", "r2", seed=2, nats=TELLS)
        await stage.look()
        less = stage.publish("r1", alias=None, seed=3)
        move_by_hand(home.root / "registry", "poems", "stable", less)
        await stage.look()
        told = await stage.refused()
        assert "is not served now" in told
        assert "r2" not in told
        assert stage.service.sample("eul_swaps_total", outcome="unforget") == 1
        move_by_hand(home.root / "registry", "poems", "stable", less, "court order 12")
        await stage.look()
        assert await stage.revision() == less
    swap = [facts for act, facts in stage.acts() if act == "swap"][-1]
    assert swap == {
        "reference": STABLE, "revision": less, "before": None, "canaries": 1,
        "unforgets": 1, "requests": ["r2"], "reason": "court order 12",
    }  # fmt: skip


async def test_a_rollback_from_a_failed_revision_needs_a_reason_too(home: ServiceHome, texts: Path) -> None:
    home.publish("poems", "stable", "r1", seed=1)
    async with Stage(home, texts) as stage:
        stage.publish("r1", "r2", seed=2, nats=TELLS)
        await stage.look()
        with pytest.raises(RefusedError, match="does not cover request 'r2'"):
            home.registry.rollback("poems", "stable")
