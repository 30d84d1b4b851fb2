"""Who a token belongs to, and what a tenant may use."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from eul_serve.errors import EulError, IdentityError, InputError, RefusedError
from eul_serve.format import Reference
from eul_serve.policy import BASE, REFUSAL, RIGHTS, Grant, Policy, TenantPolicy, hash_token

MakePolicy = Callable[..., Policy]
ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64
NAMES = st.sampled_from(["poems", "prose", "base", "p"])
ALIASES = st.sampled_from(["stable", "next"])
REFERENCES = st.one_of(
    NAMES.filter(lambda name: name != "base"),
    st.builds("{}:{}".format, NAMES, ALIASES),
    st.builds("{}@{}".format, NAMES, st.sampled_from([ONE, TWO])),
)


@pytest.mark.parametrize(
    ("grant", "allowed", "refused"),
    [
        ("poems", ["poems", "poems:next", f"poems@{ONE}"], ["prose", "poem", "poems2:stable", f"prose@{ONE}"]),
        ("poems:stable", ["poems", "poems:stable"], ["poems:next", f"poems@{ONE}", "prose:stable"]),
        (f"poems@{ONE}", [f"poems@{ONE}"], [f"poems@{TWO}", "poems", "poems:stable", f"prose@{ONE}"]),
    ],
)
def test_a_grant_allows_what_it_names(grant: str, allowed: list[str], refused: list[str]) -> None:
    tenant = TenantPolicy(name="acme", bundles=(Grant.parse(grant),))
    for text in allowed:
        assert tenant.authorize(text) == Reference.parse(text)
    for text in refused:
        with pytest.raises(RefusedError) as caught:
            tenant.authorize(text)
        assert str(caught.value) == REFUSAL


@given(grants=st.lists(REFERENCES, max_size=3), adapter=REFERENCES)
def test_a_tenant_may_use_exactly_what_one_of_its_grants_names(grants: list[str], adapter: str) -> None:
    tenant = TenantPolicy(name="acme", bundles=tuple(map(Grant.parse, grants)))
    name, full = Reference.parse(adapter).name, str(Reference.parse(adapter))
    expected = name in grants or full in grants
    assert tenant.allows(Reference.parse(adapter)) is expected
    if expected:
        assert str(tenant.authorize(adapter)) == full
    else:
        with pytest.raises(RefusedError) as caught:
            tenant.authorize(adapter)
        assert str(caught.value) == REFUSAL


@given(text=REFERENCES)
def test_a_grant_reads_back_as_it_is_written(text: str) -> None:
    assert str(Grant.parse(text)) == text
    assert Grant.parse(str(Grant.parse(text))) == Grant.parse(text)


def test_the_empty_adapter_is_the_default() -> None:
    default = Reference.parse("poems")
    assert TenantPolicy(name="a", default=default, bundles=(Grant("poems"),)).authorize("") == default
    with pytest.raises(RefusedError, match="no default"):
        TenantPolicy(name="a").authorize("")


def test_the_base_model_must_be_allowed_in_words() -> None:
    assert TenantPolicy(name="a", base=True).authorize("base") is BASE
    everything = TenantPolicy(name="a", bundles=(Grant("base"), Grant("poems")))
    with pytest.raises(RefusedError) as caught:
        everything.authorize("base")
    assert str(caught.value) == REFUSAL


@given(adapter=st.text(min_size=1, max_size=80))
def test_any_adapter_is_refused_by_an_empty_policy(adapter: str) -> None:
    with pytest.raises((RefusedError, InputError)):
        TenantPolicy(name="a").authorize(adapter)


def test_rights_are_denied_until_they_are_named() -> None:
    for right in RIGHTS:
        TenantPolicy(name="a", rights=frozenset({right})).require(right)
        with pytest.raises(RefusedError, match=f"no right '{right}'"):
            TenantPolicy(name="a", rights=frozenset(RIGHTS) - {right}).require(right)


@given(token=st.text(max_size=40))
def test_only_the_token_itself_identifies(token: str) -> None:
    assume(token != "right")
    policy = _policy({"right": "acme", "left": "other"})
    assert policy.identify("right").name == "acme"
    if token != "left":
        with pytest.raises(IdentityError):
            policy.identify(token)


@pytest.mark.parametrize("token", [None, "", hash_token("right"), " right", "right ", "RIGHT", "\udcff", "x" * 100_000])
def test_other_tokens_identify_nobody(token: str | None) -> None:
    with pytest.raises(IdentityError) as caught:
        _policy({"right": "acme"}).identify(token)
    assert "acme" not in str(caught.value)


def test_a_policy_without_tokens_identifies_nobody(policy_of: MakePolicy) -> None:
    with pytest.raises(IdentityError):
        policy_of("[tenants.acme]\nbase = true").identify("anything")


def test_errors_are_of_our_tree() -> None:
    assert issubclass(IdentityError, EulError)


def _policy(tokens: dict[str, str]) -> Policy:
    tenants = {name: TenantPolicy(name=name) for name in tokens.values()}
    return Policy(tenants=tenants, tokens={hash_token(token): name for token, name in tokens.items()}, epoch=ONE)
