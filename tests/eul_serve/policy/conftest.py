"""A policy from TOML text."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from eul_serve.policy import Policy, load_policy

MakePolicy = Callable[..., Policy]


@pytest.fixture(scope="session")
def policy_of(tmp_path_factory: pytest.TempPathFactory) -> MakePolicy:
    """Load a policy from the text of its file, and of a file of tokens where one is given."""
    place = tmp_path_factory.mktemp("policy")

    def make(text: str, tokens: str | None = None) -> Policy:
        (place / "policy.toml").write_text(text)
        if tokens is None:
            return load_policy(place / "policy.toml")
        (place / "tokens.toml").write_text(tokens)
        return load_policy(place / "policy.toml", place / "tokens.toml")

    return make
