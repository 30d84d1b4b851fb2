"""Attempts to reach what is hidden, by the defence that stops them."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from eul_serve.client import AdminClient
from eul_serve.errors import EulError
from eul_serve.format.canaries import Canary
from eul_serve.v1 import bundle_service_pb2 as bundles
from tests.eul_serve.bypass import defences
from tests.eul_serve.bypass.arena import ISSUER, Arena, Attempt
from tests.eul_serve.identity.issuer import Issuer
from tests.eul_serve.identity.test_identity_signed import changed_after_signing, signed_with_the_public_key, unsigned
from tests.eul_serve.registry_files import move_by_hand
from tests.eul_serve.service_home import token_of

Send = Callable[[Arena], Awaitable[bool]]


def adapter_named(name: str) -> Send:
    """Ask by an adapter in which a revision may be named: `{novels}`."""
    return lambda arena: arena.hidden(name.format(**arena.revisions))


def streamed(name: str) -> Send:
    return lambda arena: arena.streamed(name.format(**arena.revisions))


def classified(name: str) -> Send:
    return lambda arena: arena.classified(name.format(**arena.revisions))


BY_NAME = [
    Attempt(name=f"{way} {name}", send=send(name), off=defences.no_policy)
    for name in ("base", "novels", "novels:stable", "novels@{novels}", "poems@{old}", "poems@{stable}")
    for way, send in (("ask", adapter_named), ("stream", streamed), ("classify", classified))
    if name != "poems@{stable}"
]


async def another_s_digest(arena: Arena) -> bool:
    """Under one's own name, every revision of which one may use."""
    arena.policy(bundles=["poems"])
    await arena.settle()
    return await arena.revision(f"poems@{arena.revisions['novels']}") == arena.revisions["novels"]


PAIRS = [Attempt(name="another's digest under one's own name", send=another_s_digest, off=defences.no_pairs)]
PATHS = [
    Attempt(name=f"path {name!r}", send=adapter_named(name), off=defences.names_are_paths)
    for name in (
        "../novels", "poems/../novels", "./novels", "/novels", "poems/../../novels", "poems//..//novels",
        "poems:stable/../novels", "poems\x00novels",
    )
]  # fmt: skip


def with_right(**options: Any) -> Send:
    async def send(arena: Arena) -> bool:
        arena.policy(bundles=["poems:stable"])
        return await arena.revision(**options) != ""

    return send


def streamed_right(**options: Any) -> Send:
    async def send(arena: Arena) -> bool:
        try:
            async with arena.client() as client:
                return bool([part async for part in client.generate_stream("hi", max_tokens=2, **options)])
        except EulError:
            return False

    return send


ASKED: dict[str, dict[str, Any]] = {
    "log-probabilities": {"logprobs": True},
    "the prompt's log-probabilities": {"prompt_logprobs": True},
    "an echo": {"echo": True},
    "a bias": {"logit_bias": {7: 100.0}},
    "allowed tokens": {"allowed_tokens": [7]},
    "a choice": {"constraint": {"choice": ["Zaphod", "Arthur"]}},
    "a grammar": {"constraint": {"grammar": 'root ::= "Zaphod"'}},
    "several answers": {"samples": 8, "temperature": 1.0},
    "beams": {"beams": 4},
}
RIGHTS = [
    Attempt(name=f"{way} {name}", send=send(**options), off=defences.no_rights)
    for name, options in ASKED.items()
    for way, send in (("ask for", with_right), ("stream", streamed_right))
]


def by_token(make: Callable[[], str]) -> Send:
    """Call with a signed token."""

    async def send(arena: Arena) -> bool:
        return await arena.known(("authorization", f"Bearer {make()}"))

    return send


def by_headers(*headers: tuple[str, Any]) -> Send:
    return lambda arena: arena.known(*headers)


GOOD = token_of("acme")
STRANGERS = [
    Attempt(name="no token", send=by_headers(), off=defences.no_tokens),
    Attempt(name="a wrong token", send=by_headers(("authorization", "Bearer wrong")), off=defences.no_tokens),
    Attempt(name="an empty token", send=by_headers(("authorization", "Bearer ")), off=defences.no_tokens),
    Attempt(
        name="the hash of a token", send=by_headers(("authorization", f"Bearer {'0' * 64}")), off=defences.no_tokens
    ),
]
HEADERS = [
    Attempt(name=f"header {name}", send=by_headers(*headers), off=defences.any_header)
    for name, headers in {
        "twice, the good one last": [("authorization", "Bearer other"), ("authorization", f"Bearer {GOOD}")],
        "twice, the good one first": [("authorization", f"Bearer {GOOD}"), ("authorization", "Bearer other")],
        "of another scheme": [("authorization", f"Basic {GOOD}")],
        "without a scheme": [("authorization", GOOD)],
        "with two tokens": [("authorization", f"Bearer {GOOD}, Bearer other")],
        "of a proxy": [("proxy-authorization", f"Bearer {GOOD}")],
        "forwarded": [("x-forwarded-authorization", f"Bearer {GOOD}")],
        "binary": [("authorization-bin", f"Bearer {GOOD}".encode())],
        "that names the tenant": [("x-tenant", "acme")],
        "in a cookie": [("cookie", f"authorization={GOOD}")],
    }.items()
]
NOW = time.time
SIGNED = [
    Attempt(name=f"a token {name}", send=by_token(make), off=off)
    for name, make, off in (
        ("that is not signed", lambda: unsigned(ISSUER), defences.any_algorithm),
        ("signed with the public key", lambda: signed_with_the_public_key(ISSUER), defences.any_algorithm),
        ("changed after signing", lambda: changed_after_signing(ISSUER), defences.no_signatures),
        ("of an issuer's double", lambda: Issuer("k1").token(), defences.no_signatures),
        ("of an unknown key", lambda: Issuer("k9").token(kid="k9"), defences.any_key),
        ("of the wrong curve", lambda: Issuer("k1", elliptic=True).token(), defences.any_algorithm),
        ("that has expired", lambda: ISSUER.token(exp=int(NOW()) - 600), defences.no_claims),
        ("of tomorrow", lambda: ISSUER.token(nbf=int(NOW()) + 600), defences.no_claims),
        ("for another audience", lambda: ISSUER.token(aud="other"), defences.no_claims),
        ("of another issuer", lambda: ISSUER.token(iss="https://evil.test"), defences.no_claims),
    )
]


async def one_tenant_s_blocks(arena: Arena) -> bool:
    await arena.revision(token=token_of("root"), adapter="poems:stable")
    await arena.revision()
    return len({work.salt for work in arena.service.engine.works}) < len(arena.service.engine.works)


async def another_revision_s_blocks(arena: Arena) -> bool:
    for adapter in ("base", f"poems@{arena.revisions['old']}", "poems:stable"):
        await arena.revision(token=token_of("root"), adapter=adapter)
    return len({work.salt for work in arena.service.engine.works}) < 3


async def an_older_policy_s_blocks(arena: Arena) -> bool:
    await arena.revision()
    arena.policy(priority=2)
    await arena.settle()
    await arena.revision()
    return len({work.salt for work in arena.service.engine.works}) < 2


async def a_salt_of_one_s_own(arena: Arena) -> bool:
    header = ("cache-salt", arena.service.engine.works[-1].salt if arena.service.engine.works else "known")
    await arena.known(("authorization", f"Bearer {token_of('root')}"), header)
    await arena.known(("authorization", f"Bearer {GOOD}"), header)
    salts = [work.salt for work in arena.service.engine.works]
    return len(set(salts)) < len(salts) or "known" in salts


SALTS = [
    Attempt(name=send.__name__.replace("_", " "), send=send, off=defences.no_salts)
    for send in (one_tenant_s_blocks, another_revision_s_blocks, an_older_policy_s_blocks, a_salt_of_one_s_own)
]


async def a_token_that_was_revoked(arena: Arena) -> bool:
    return await arena.outlives(lambda: arena.policy(tokens=[]))


async def a_bundle_that_was_withdrawn(arena: Arena) -> bool:
    return await arena.outlives(lambda: arena.policy(bundles=["poems:next"], default="poems:next"))


async def a_right_that_was_withdrawn(arena: Arena) -> bool:
    arena.policy(rights=["logprobs"])
    await arena.settle()
    return await arena.outlives(lambda: arena.policy(rights=[]), logprobs=True)


async def a_base_that_was_withdrawn(arena: Arena) -> bool:
    arena.policy(base=True)
    await arena.settle()
    return await arena.outlives(lambda: arena.policy(base=False), adapter="base")


async def a_key_that_was_withdrawn(arena: Arena) -> bool:
    return await arena.outlives(lambda: void(Issuer("k2").publish(arena.keys)), ISSUER.token())


async def an_issuer_that_was_taken_out(arena: Arena) -> bool:
    def take_out() -> None:
        arena.home.sections["jwt"] = {**arena.home.sections["jwt"], "issuer": "https://new.test"}
        arena.policy()

    return await arena.outlives(take_out, ISSUER.token())


def void(_: Path) -> None:
    """Nothing; for calls whose value is not wanted."""


STALE = [
    Attempt(name=f"go on with {send.__name__.replace('_', ' ')}", send=send, off=defences.no_rechecks)
    for send in (
        a_token_that_was_revoked, a_bundle_that_was_withdrawn, a_right_that_was_withdrawn, a_base_that_was_withdrawn,
        a_key_that_was_withdrawn, an_issuer_that_was_taken_out,
    )
]  # fmt: skip


def blob_of(arena: Arena, revision: str) -> Path:
    manifest = arena.home.registry.manifest("poems", revision)
    name = manifest.files["adapter_model.safetensors"].sha256.removeprefix("sha256:")
    return arena.home.root / "registry" / "blobs" / "sha256" / name


def next_revision(touch: Callable[[Arena, str], None], **options: Any) -> Send:
    """Publish a revision, spoil it, and ask for it."""

    async def send(arena: Arena) -> bool:
        revision = arena.home.publish("poems", "next", "r1", "r2", "r5", seed=5, **options)
        touch(arena, revision)
        arena.policy(bundles=["poems"])
        await arena.settle()
        return await arena.revision(f"poems@{revision}") == revision

    return send


def flip(arena: Arena, revision: str) -> None:
    blob = blob_of(arena, revision)
    data = blob.read_bytes()
    blob.chmod(0o600)
    blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def cut(arena: Arena, revision: str) -> None:
    blob = blob_of(arena, revision)
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[:-8])


def take_away(arena: Arena, revision: str) -> None:
    blob_of(arena, revision).unlink()


def exchange(arena: Arena, revision: str) -> None:
    """The weights of the older revision in the place of the new one's."""
    blob = blob_of(arena, revision)
    blob.chmod(0o600)
    blob.write_bytes(blob_of(arena, arena.revisions["old"]).read_bytes())


BYTES = [
    Attempt(name=f"a bundle {name}", send=send, off=defences.no_verification)
    for name, send in {
        "with one flipped bit": next_revision(flip),
        "that was cut": next_revision(cut),
        "without its weights": next_revision(take_away),
        "with an older one's weights": next_revision(exchange),
        "of another base model": next_revision(lambda *_: None, base="sha256:" + "e" * 64),
    }.items()
]


async def a_draining_revision(arena: Arena) -> bool:
    """Ask for the revision that was replaced, while a request of before still runs on it."""
    running = asyncio.create_task(long_answer(arena))
    await arena.service.until(lambda: sum(arena.service.engine.running.values()) == 1, "the request")
    arena.home.publish("poems", "stable", "r1", "r2", "r6", seed=6)
    old = arena.service.server.residency.entry(arena.revisions["stable"])
    assert old is not None
    await arena.settle()
    assert old.state.stage.value == "draining"
    try:
        with arena.service.server.residency.admit(old):
            return True
    except EulError:
        return False
    finally:
        running.cancel()


async def long_answer(arena: Arena) -> None:
    async with arena.client() as client:
        await client.generate("hi", max_tokens=60)


STAGES = [Attempt(name="a revision that drains", send=a_draining_revision, off=defences.no_stages)]


def back_by_hand(arena: Arena) -> None:
    move_by_hand(arena.home.root / "registry", "poems", "stable", arena.revisions["old"])


async def a_rollback_without_a_reason(arena: Arena) -> bool:
    try:
        arena.home.registry.rollback("poems", "stable")
    except EulError:
        return False
    await arena.settle()
    return await arena.revision() == arena.revisions["old"]


async def a_promotion_without_a_reason(arena: Arena) -> bool:
    try:
        arena.home.registry.promote("poems", arena.revisions["old"], "stable")
    except EulError:
        return False
    await arena.settle()
    return await arena.revision() == arena.revisions["old"]


async def publishing_less_under_the_alias(arena: Arena) -> bool:
    try:
        less = arena.home.publish("poems", "stable", "r1", seed=8)
    except EulError:
        return False
    await arena.settle()
    return await arena.revision() == less


async def an_alias_written_by_hand(arena: Arena) -> bool:
    back_by_hand(arena)
    await arena.settle()
    return await arena.revision() == arena.revisions["old"]


async def an_administrator_s_word(arena: Arena) -> bool:
    back_by_hand(arena)

    def activate() -> str:
        with arena.service.admin() as client:
            return client.activate("poems:stable")

    try:
        return await asyncio.to_thread(activate) == arena.revisions["old"]
    except EulError:
        return False


UNFORGET = [
    Attempt(name=send.__name__.replace("_", " "), send=send, off=defences.no_unforget_rule)
    for send in (
        a_rollback_without_a_reason, a_promotion_without_a_reason, publishing_less_under_the_alias,
        an_alias_written_by_hand, an_administrator_s_word,
    )
]  # fmt: skip


CANARY = Canary(digest="sha256:" + "0" * 64, least_nats=1.0)  # of which the arena has no text


async def a_revision_whose_canaries_fail(arena: Arena) -> bool:
    failing = arena.home.publish("poems", None, "r1", "r2", seed=10, canaries=[CANARY])
    arena.policy(bundles=["poems"])
    await arena.settle()
    return await arena.hidden(f"poems@{failing}")


async def an_alias_that_was_moved_to_it(arena: Arena) -> bool:
    arena.home.publish("poems", "stable", "r1", "r2", seed=10, canaries=[CANARY])
    await arena.settle()
    return await arena.hidden()


async def what_served_before_and_forgets_less(arena: Arena) -> bool:
    arena.home.sections["canaries"] = {"on_failure": "previous"}
    arena.policy()
    await arena.settle()
    arena.home.publish("poems", "stable", "r1", "r2", "r5", seed=10, canaries=[CANARY])
    await arena.settle()
    return await arena.revision() != ""


CANARIES = [
    Attempt(name=send.__name__.replace("_", " "), send=send, off=off)
    for send, off in (
        (a_revision_whose_canaries_fail, defences.no_canaries),
        (an_alias_that_was_moved_to_it, defences.no_canaries),
        (what_served_before_and_forgets_less, defences.any_earlier_revision),
    )
]


def administer(act: Callable[[AdminClient], object], token: str | None) -> Send:
    async def send(arena: Arena) -> bool:
        def run() -> bool:
            with arena.service.admin(token) as client:
                act(client)
            return True

        try:
            return await asyncio.to_thread(run)
        except EulError:
            return False

    return send


ADMIN = [
    Attempt(name=f"administer: {name} {who}", send=administer(act, token), off=defences.no_administrators)
    for name, act in {
        "status": AdminClient.status,
        "watch": lambda client: next(client.watch()),
        "activate": lambda client: client.activate("poems:stable"),
        "drain": lambda client: client.drain("x"),
        "reload": AdminClient.reload_policy,
    }.items()
    for who, token in {"without a token": None, "with a tenant's": GOOD}.items()
]


async def the_list_of_another(arena: Arena) -> bool:
    async with arena.client() as client:
        return {bundle.name for bundle in await client.bundles()} != {"poems"}


async def a_watch_of_another(arena: Arena) -> bool:
    async with arena.client() as client:
        return {bundle.name for bundle in await anext(client.watch_bundles())} != {"poems"}


async def a_description_of_another(arena: Arena) -> bool:
    async with grpc.aio.insecure_channel(arena.service.address) as channel:
        try:
            await arena.bundles(channel).GetBundle(
                bundles.GetBundleRequest(adapter="novels"), metadata=[("authorization", f"Bearer {GOOD}")], timeout=20
            )
        except grpc.aio.AioRpcError:
            return False
    return True


async def a_refusal_that_tells(arena: Arena) -> bool:
    """Whether unknown and forbidden can be told apart, by code, text, or any detail."""
    seen = set()
    async with grpc.aio.insecure_channel(arena.service.address) as channel:
        for adapter in ("novels", "nothing"):
            metadata = [("authorization", f"Bearer {GOOD}"), ("x-request-id", "same")]
            try:
                await arena.bundles(channel).GetBundle(
                    bundles.GetBundleRequest(adapter=adapter), metadata=metadata, timeout=20
                )
            except grpc.aio.AioRpcError as error:
                trailing = [(key, value) for key, value in error.trailing_metadata() or ()]
                seen.add((error.code(), error.details(), base64.b64encode(repr(sorted(map(str, trailing))).encode())))
    return len(seen) != 1


SIGHT = [
    Attempt(name="see the list of another", send=the_list_of_another, off=defences.no_filter),
    Attempt(name="watch the list of another", send=a_watch_of_another, off=defences.no_filter),
    Attempt(name="describe a bundle of another", send=a_description_of_another, off=defences.no_filter),
    Attempt(name="tell forbidden from unknown", send=a_refusal_that_tells, off=defences.honest_refusals),
]

ATTEMPTS = [
    *BY_NAME, *PAIRS, *PATHS, *RIGHTS, *STRANGERS, *HEADERS, *SIGNED, *SALTS, *STALE, *BYTES, *STAGES, *UNFORGET,
    *CANARIES, *ADMIN, *SIGHT,
]  # fmt: skip
