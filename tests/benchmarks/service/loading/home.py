"""A registry, a policy and bundles in a folder: of random weights for a model, or for the fake engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eul_serve.format import Bundle
from tests.conftest import make_tiny_model, random_bundle
from tests.eul_serve.conftest import PLAIN_BASE, write_plain_bundle
from tests.eul_serve.service_home import ServiceHome, token_of

ALIAS = "stable"


def model_of(chosen: Path | None, root: Path) -> Path:
    """Return the chosen model; where there is none, the tests' tiny one, made below a folder."""
    return make_tiny_model(root / "model") if chosen is None else chosen.absolute()


def model_home(root: Path, model: Path, rank: int, scale: float) -> ServiceHome:
    """Return an empty registry whose bundles are random layers behind every block of a model.

    Args:
        root: The folder.
        model: The model's directory.
        rank: Hidden units of every layer.
        scale: Deviation of U's values; 1 changes every answer of the tiny model, 0.01 keeps text text-like.

    Returns:
        The folder's registry and policy.
    """

    def make(*requests: str, seed: int, base: str) -> Bundle:
        return random_bundle(made(root, seed), model, rank=rank, seed=seed, requests=requests or ("r1",), scale=scale)

    return ServiceHome(root, make, "")


def fake_home(root: Path) -> ServiceHome:
    """Return an empty registry whose bundles are for the fake engine."""

    def make(*requests: str, seed: int, base: str) -> Bundle:
        return write_plain_bundle(made(root, seed), requests or ("r1",), seed=seed, base=base)

    return ServiceHome(root, make, PLAIN_BASE)


def made(root: Path, seed: int) -> Path:
    """Return where a bundle lies that was made with a seed, before and after its publication."""
    return root / "made" / str(seed)


def publish_each(home: ServiceHome, count: int) -> dict[str, str]:
    """Publish `b0` to `b<count - 1>`, made with the seeds 0 to count - 1; return their revisions by name."""
    return {f"b{number}": home.publish(f"b{number}", ALIAS, seed=number) for number in range(count)}


def grant(home: ServiceHome, bundles: dict[str, str], **more: Any) -> dict[str, str]:
    """Write a policy in which each tenant has one bundle as its default, and return the tenants' tokens.

    Args:
        home: Where the policy lies.
        bundles: Name of the bundle by tenant.
        **more: Further settings of every tenant.

    Returns:
        Tokens by tenant, in the order of `bundles`.
    """
    home.appoint()
    sections = {tenant: {"default": f"{name}:{ALIAS}", "bundles": [name], **more} for tenant, name in bundles.items()}
    home.write_policy(**sections)
    return {tenant: token_of(tenant) for tenant in bundles}


def ending_tokens(model: Path) -> tuple[int, ...]:
    """Return the tokens that end an answer of a model, as its configuration names them."""
    found: set[int] = set()
    for name in ("config.json", "generation_config.json"):
        path = model / name
        told = json.loads(path.read_text()).get("eos_token_id") if path.exists() else None
        found |= set(told if isinstance(told, list) else [] if told is None else [told])
    return tuple(sorted(found))
