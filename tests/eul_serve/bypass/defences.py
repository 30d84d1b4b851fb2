"""The defences, each with the way to switch it off: the controls that show what an attempt would reach without it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jwt
import pytest

from eul_serve.errors import IdentityError
from eul_serve.format import Bundle, BundleConfig, Reference
from eul_serve.identity import decide, signed
from eul_serve.identity import keys as jwt_keys
from eul_serve.identity.proofs import JwtProof
from eul_serve.openai.fields import Fields
from eul_serve.policy import BASE, Policy, TenantPolicy
from eul_serve.registry import aliases, cache
from eul_serve.registry.cache import Cache
from eul_serve.registry.local import LocalRegistry
from eul_serve.rpc import auth
from eul_serve.rpc.adapters import Adapters
from eul_serve.rpc.salt import Salter
from eul_serve.swap import fallback
from eul_serve.swap.canaries import Canaries
from eul_serve.swap.leases import Leases
from eul_serve.swap.revision import RevisionState
from eul_serve.web import callers


def no_policy(patch: pytest.MonkeyPatch) -> None:
    """Every tenant may use everything that it can name."""

    def authorize(self: TenantPolicy, adapter: str) -> Any:
        if not adapter:
            return self.default
        return BASE if adapter == "base" else Reference.parse(adapter)

    patch.setattr(TenantPolicy, "authorize", authorize)
    patch.setattr(TenantPolicy, "allows", lambda *_: True)


def no_pairs(patch: pytest.MonkeyPatch) -> None:
    """A digest is looked up alone, under whatever name it came."""

    def anywhere(method: str) -> Any:
        real = getattr(LocalRegistry, method)

        def look(self: LocalRegistry, name: str, revision: str, *rest: Any, **options: Any) -> Any:
            found = next((one for one in self.names() if revision in self.revisions(one)), name)
            return real(self, found, revision, *rest, **options)

        return look

    for method in ("manifest", "fetch"):
        patch.setattr(LocalRegistry, method, anywhere(method))


def names_are_paths(patch: pytest.MonkeyPatch) -> None:
    """A name is joined to a directory, as a file server would, and only its beginning is compared."""

    def authorize(self: TenantPolicy, adapter: str) -> Any:
        return Reference.parse(os.path.basename(os.path.normpath(adapter.partition("\x00")[2] or adapter)))

    patch.setattr(TenantPolicy, "authorize", authorize)
    patch.setattr(TenantPolicy, "allows", lambda *_: True)


def no_rights(patch: pytest.MonkeyPatch) -> None:
    """Nothing that reads through a layer needs a right."""
    patch.setattr(TenantPolicy, "require", lambda *_: None)


def no_tokens(patch: pytest.MonkeyPatch) -> None:
    """Whoever comes is the first tenant."""
    patch.setattr(auth, "identify", lambda credentials, policy, ring: _first(policy))
    patch.setattr(auth, "bearer_token", lambda metadata: "x")


def any_web_caller(patch: pytest.MonkeyPatch) -> None:
    """Whoever comes over HTTP is the first tenant."""
    patch.setattr(callers, "identify", lambda credentials, policy, ring: _first(policy))
    patch.setattr(callers, "bearer_token", lambda headers: "x")


def every_field(patch: pytest.MonkeyPatch) -> None:
    """A field that nobody knows is passed over."""
    patch.setattr(Fields, "end", lambda *_: None)


def _first(policy: Policy) -> Any:
    from eul_serve.identity import Caller

    return Caller(tenant=policy.tenants["acme"], epoch=policy.epoch, proofs=())


def any_header(patch: pytest.MonkeyPatch) -> None:
    """A token is taken from wherever it stands in the metadata."""

    def found(metadata: Any) -> str | None:
        for _, value in reversed(list(metadata or ())):
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            for word in text.replace("=", " ").replace(",", " ").split():
                if word.startswith("token-of-"):
                    return word
                if word == "acme":
                    return "token-of-acme"
        return None

    patch.setattr(auth, "bearer_token", found)


def no_signatures(patch: pytest.MonkeyPatch) -> None:
    """What a signed token says is believed."""

    def verify(token: str, rules: Any, ring: Any) -> JwtProof:
        claims = jwt.decode(token, options={"verify_signature": False})
        return JwtProof(tenant=str(claims["tenant"]), key_id="any", rules=rules, keys={"any"})

    patch.setattr(decide, "verify", verify)


def no_claims(patch: pytest.MonkeyPatch) -> None:
    """A signature is enough: times, issuer and audience are not looked at."""
    real = jwt.decode

    def decode(token: str, key: Any, **options: Any) -> Any:
        kept = {name: options[name] for name in ("algorithms",)}
        off = dict.fromkeys(("verify_exp", "verify_nbf", "verify_iss", "verify_aud"), False)
        return real(token, key, options=off, **kept)

    patch.setattr(signed.jwt, "decode", decode)


def any_algorithm(patch: pytest.MonkeyPatch) -> None:
    """The token says how it is signed, and a public key will do as a secret."""
    no_signatures(patch)


def any_key(patch: pytest.MonkeyPatch) -> None:
    """A key that is not known is taken for one that is, and its signature for granted."""
    patch.setattr(jwt_keys.KeyRing, "get", lambda self, key_id: next(iter(self._keys.items())))
    no_signatures(patch)


def no_salts(patch: pytest.MonkeyPatch) -> None:
    """All requests share the prefix cache."""
    patch.setattr(Salter, "salt", lambda *_: "one")


def no_rechecks(patch: pytest.MonkeyPatch) -> None:
    """What runs goes on, whatever is taken away."""
    patch.setattr(Leases, "recheck", lambda *_: None)


def no_verification(patch: pytest.MonkeyPatch) -> None:
    """What the registry names is served, whatever its bytes are and whichever base model it was made for."""

    def pull(self: Cache, registry: Any, name: str, revision: str, base_fingerprint: str | None = None) -> Bundle:
        target = Path(self._root).resolve() / "sha256" / revision.removeprefix("sha256:")
        target.mkdir(parents=True, exist_ok=True)
        manifest = registry.manifest(name, revision)
        config = BundleConfig(rank=2, base_fingerprint=manifest.base.fingerprint)
        return Bundle(path=target, config=config, manifest=manifest, widths={})

    patch.setattr(cache.Cache, "pull", pull)


def no_unforget_rule(patch: pytest.MonkeyPatch) -> None:
    """An alias may move to whatever is published."""
    patch.setattr(aliases, "check_unforget", lambda *_: ())
    patch.setattr(fallback, "check_move", lambda *_: {})


def no_canaries(patch: pytest.MonkeyPatch) -> None:
    """Nobody asks whether a bundle hides what it is there to hide."""

    async def nothing(*_: Any) -> None:
        return None

    patch.setattr(Canaries, "check", nothing)


def any_earlier_revision(patch: pytest.MonkeyPatch) -> None:
    """Whatever an alias pointed to before may stand in."""
    patch.setattr(fallback, "dropped_requests", lambda *_: ())
    patch.setattr(fallback, "check_move", lambda *_: {})


def no_stages(patch: pytest.MonkeyPatch) -> None:
    """A request may run on a revision that drains."""
    from eul_serve.swap.revision import Stage

    admits = property(lambda self: self.stage in (Stage.WARM, Stage.ACTIVE, Stage.DRAINING))
    patch.setattr(RevisionState, "admits", admits)


def no_administrators(patch: pytest.MonkeyPatch) -> None:
    """Whoever reaches the port may use it."""
    patch.setattr(Policy, "identify_admin", lambda *_: "anybody")
    patch.setattr(auth, "bearer_token", lambda metadata: "x")


def no_filter(patch: pytest.MonkeyPatch) -> None:
    """Lists have everything, and whatever exists is described."""

    def references(self: Adapters, tenant: TenantPolicy) -> list[Reference]:
        names = self._registry.names()
        return [Reference(name, alias, None) for name in names for alias in self._registry.alias_names(name)]

    patch.setattr(Adapters, "references", references)
    no_policy(patch)


def honest_refusals(patch: pytest.MonkeyPatch) -> None:
    """A refusal says whether the bundle exists."""
    real = TenantPolicy.authorize

    def authorize(self: TenantPolicy, adapter: str) -> Any:
        try:
            return real(self, adapter)
        except Exception as error:
            if adapter.startswith("novels"):
                raise IdentityError("novels belongs to somebody else") from error
            raise

    patch.setattr(TenantPolicy, "authorize", authorize)
