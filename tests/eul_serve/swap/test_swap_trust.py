"""Signatures at a server: nothing is taken up, and nothing goes on, that no signer of the policy signed."""

from __future__ import annotations

from pathlib import Path

import pytest

from eul_serve.errors import EulError
from eul_serve.signing import Signer, sign_bundle
from eul_serve.signing.keys import key_fingerprint, make_keys
from tests.eul_serve.service_home import Service, ServiceHome

ACME = {"default": "poems:stable", "bundles": ["poems"]}


@pytest.fixture
def keys(home: ServiceHome) -> Path:
    for name in ("ana", "ben"):
        make_keys(home.root / f"{name}.key", home.root / f"{name}.pub")
    return home.root


def trust(home: ServiceHome, *signers: str, unsigned: str = "refuse") -> None:
    home.sections.clear()
    home.sections["trust"] = {"unsigned": unsigned}
    for name in signers:
        home.sections[f"signers.{name}"] = {"public_key": f"{name}.pub"}
    home.write_policy(acme=dict(ACME))


def publish(home: ServiceHome, *requests: str, seed: int, signer: str | None) -> str:
    bundle = home.bundle(*requests, seed=seed)
    signatures = [sign_bundle(bundle, Signer(private_key=home.root / f"{signer}.key"))] if signer else []
    return home.registry.publish(bundle, "poems", "stable", signatures=signatures).revision


async def refused(service: Service) -> str:
    with pytest.raises(EulError) as caught:
        await service.ask("acme", max_tokens=1)
    return str(caught.value)


@pytest.mark.parametrize("signer", [None, "ben"])
async def test_what_no_signer_of_the_policy_signed_is_not_taken_up(
    home: ServiceHome, keys: Path, signer: str | None
) -> None:
    revision = publish(home, "r1", seed=1, signer=signer)
    trust(home, "ana")
    async with home.serve() as service:
        told = await refused(service)
        assert "did not pass verification" in told
        assert "ana" not in told
        assert service.sample("eul_swaps_total", outcome="untrusted") >= 1
        assert service.engine.loaded == {}
        assert not (home.cache / "sha256" / revision.removeprefix("sha256:")).exists()  # not even fetched
        trust(home, "ana", "ben", unsigned="serve")  # the control: believed, it serves
        await service.until(lambda: bool(service.engine.loaded), "the revision")
        assert (await service.ask("acme", max_tokens=1)).revision == revision


async def test_a_move_to_an_unsigned_revision_leaves_the_signed_one_serving(home: ServiceHome, keys: Path) -> None:
    good = publish(home, "r1", seed=1, signer="ana")
    trust(home, "ana")
    async with home.serve() as service:
        assert (await service.ask("acme", max_tokens=1)).revision == good
        publish(home, "r1", seed=2, signer=None)
        await service.until(lambda: service.sample("eul_swaps_total", outcome="untrusted") >= 1, "the refusal")
        assert (await service.ask("acme", max_tokens=1)).revision == good


async def test_a_signer_that_is_withdrawn_ends_what_it_signed(home: ServiceHome, keys: Path) -> None:
    publish(home, "r1", seed=1, signer="ana")
    trust(home, "ana", "ben")
    async with home.serve() as service:
        await service.ask("acme", max_tokens=1)
        trust(home, "ben")
        await service.until(lambda: not service.server.residency.pointers(), "the withdrawal")
        assert "did not pass verification" in await refused(service)
        trust(home, "ana", "ben")
        await service.until(lambda: bool(service.server.residency.pointers()), "its return")
        await service.ask("acme", max_tokens=1)


async def test_a_banned_key_ends_what_it_signed_alone(home: ServiceHome, keys: Path) -> None:
    publish(home, "r1", seed=1, signer="ana")
    trust(home, "ana", "ben")
    fingerprint = key_fingerprint(home.root / "ana.pub")
    async with home.serve() as service:
        await service.ask("acme", max_tokens=1)
        home.registry.order("ban_signer", fingerprint, "the laptop was stolen")
        await service.until(lambda: not service.server.residency.pointers(), "the withdrawal")
        await refused(service)
        signed_again = publish(home, "r1", seed=3, signer="ben")
        await service.until(lambda: bool(service.server.residency.pointers()), "the other signer's")
        assert (await service.ask("acme", max_tokens=1)).revision == signed_again
