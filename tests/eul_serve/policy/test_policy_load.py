"""Reading a policy: every slip of the pen is an error, and equal rules have equal epochs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eul_serve.errors import InputError
from eul_serve.policy import BASE, Policy, hash_token, load_policy

MakePolicy = Callable[..., Policy]
HASH = hash_token("one")
DIGEST = "sha256:" + "a" * 64

FULL = f"""
[tenants.acme]
default = "poems:stable"
bundles = ["poems", "fused:stable", "x@{DIGEST}"]
rights = ["logprobs", "echo"]
token_sha256 = ["{HASH}"]

[tenants.open]
default = "base"
base = true
"""


def test_a_full_policy_reads_as_written(policy_of: MakePolicy) -> None:
    policy = policy_of(FULL)
    acme, open_tenant = policy.tenants["acme"], policy.tenants["open"]
    assert str(acme.default) == "poems:stable"
    assert [str(grant) for grant in acme.bundles] == ["poems", "fused:stable", f"x@{DIGEST}"]
    assert acme.rights == {"logprobs", "echo"}
    assert not acme.base
    assert (open_tenant.default, open_tenant.base, open_tenant.bundles) == (BASE, True, ())
    assert policy.identify("one") is acme


def test_an_empty_tenant_may_do_nothing(policy_of: MakePolicy) -> None:
    tenant = policy_of("[tenants.quiet]\n").tenants["quiet"]
    assert (tenant.default, tenant.bundles, tenant.base, tenant.rights) == (None, (), False, frozenset())
    assert policy_of("").tenants == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[tenant.acme]",
            "unknown key 'tenant'; allowed are admins, canaries, derived_from, jwt, signers, tenants, trust",
        ),
        ("tenants = 1", "tenants: expected a table, found int"),
        ("[tenants]\nacme = 1", "tenants.acme: expected a table, found int"),
        ("[tenants.acme]\nbundle = []", "tenants.acme: unknown key 'bundle'; allowed are base, bundles"),
        ("[tenants.Acme]", "tenant name 'Acme'"),
        ('[tenants."../x"]', "tenant name '../x'"),
        ("[tenants.acme]\nbase = 1", "base: expected true or false, found 1"),
        ('[tenants.acme]\nbase = "true"', "base: expected true or false, found 'true'"),
        ('[tenants.acme]\nbundles = "poems"', "bundles: expected a list of strings, found 'poems'"),
        ("[tenants.acme]\nbundles = [1]", "bundles: expected a list of strings"),
        ('[tenants.acme]\nbundles = ["*"]', "bundles: bundle name '*'"),
        ('[tenants.acme]\nbundles = ["poems:"]', "bundles: alias name ''"),
        ('[tenants.acme]\nbundles = ["poems@abc"]', "bundles: digest 'abc'"),
        ('[tenants.acme]\nbundles = ["base"]', "write `base = true`"),
        ('[tenants.acme]\nrights = ["logprob"]', "unknown right 'logprob'; allowed are allowed_tokens, beams"),
        ("[tenants.acme]\ndefault = 3", "default: expected a string, found 3"),
        (
            '[tenants.acme]\ndefault = "poems"',
            "default: 'poems' is not allowed to this tenant; add `bundles = ['poems']`",
        ),
        ('[tenants.acme]\ndefault = "base"', "add `base = true`"),
        ('[tenants.acme]\ndefault = "a/b"', "default: bundle name 'a/b'"),
        ("[tenants.acme", "expected TOML, found"),
        ("[tenants.acme]\n[tenants.acme]", "expected TOML, found"),
        ("\udcff", "expected TOML, found"),
    ],
)
def test_a_slip_is_named_with_its_place_and_what_is_allowed(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError) as caught:
        load_policy(path)
    assert message in str(caught.value)
    assert "policy.toml" in str(caught.value)


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(InputError, match="cannot read"):
            load_policy(path)


def test_a_file_without_end_is_refused() -> None:
    with pytest.raises(InputError, match="at most 16777216 bytes"):
        load_policy(Path("/dev/zero"))


def test_tokens_may_come_from_a_second_file_through_links(tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "policy").write_text("[tenants.acme]\n")
    (tmp_path / "..data" / "tokens").write_text(f'[tokens]\n"{HASH}" = "acme"\n')
    for name in ("policy", "tokens"):
        (tmp_path / name).symlink_to(tmp_path / "..data" / name)
    policy = load_policy(tmp_path / "policy", tmp_path / "tokens")
    assert policy.identify("one").name == "acme"


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (f'[tokens]\n"{HASH}" = "bob"', "tenant 'bob': no such tenant in the policy"),
        (f'[tokens]\n"{HASH}" = 1', "expected a string"),
        (f'[tokens]\n"{HASH}" = "other"', "held by two tenants, 'acme' and 'other'"),
        ('[tokens]\n"secret-token" = "acme"', "expected 64 hex digits"),
        ("[tenants.acme]\nbase = true", "unknown key 'tenants'; allowed are tokens"),
    ],
)
def test_a_wrong_file_of_tokens_is_refused_and_never_shown(policy_of: MakePolicy, tokens: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        policy_of(f'[tenants.acme]\ntoken_sha256 = ["{HASH}"]\n[tenants.other]\n', tokens)
    assert message in str(caught.value)
    assert "secret-token" not in str(caught.value)


def test_a_token_pasted_in_the_place_of_its_hash_is_not_shown(policy_of: MakePolicy) -> None:
    with pytest.raises(InputError, match="expected 64 hex digits") as caught:
        policy_of('[tenants.acme]\ntoken_sha256 = ["secret-token"]')
    assert "secret-token" not in str(caught.value)


def test_the_epoch_tells_rules_apart_and_not_spellings(policy_of: MakePolicy) -> None:
    epoch = policy_of(FULL).epoch
    assert epoch == policy_of("# a comment\n" + FULL.replace('"logprobs", "echo"', '"echo", "logprobs", "echo"')).epoch
    moved = FULL.replace(f'token_sha256 = ["{HASH}"]', "")
    assert epoch == policy_of(moved, f'[tokens]\n"{HASH}" = "acme"').epoch
    changes = [
        FULL.replace('"echo"', '"beams"'),
        FULL.replace("poems:stable", "poems:next"),
        FULL.replace(HASH, hash_token("two")),
        FULL.replace("fused:stable", "fused"),
        FULL.replace("base = true", "base = true\nrights = []\nbundles = ['y']"),
        moved,
        "",
    ]
    assert len({epoch, *(policy_of(text).epoch for text in changes)}) == len(changes) + 1


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=200))
def test_any_text_is_a_policy_or_an_error_of_ours(policy_of: MakePolicy, text: str) -> None:
    try:
        policy_of(f"[tenants.acme]\n{text}")
    except InputError:
        pass
    except UnicodeEncodeError:  # a lone surrogate cannot be written to the file
        pass


def test_a_copy_names_what_it_was_made_from(policy_of: MakePolicy) -> None:
    copy, first = DIGEST, "sha256:" + "b" * 64
    policy = policy_of(f'{FULL}\n[derived_from]\n"{copy}" = "{first}"\n')
    assert policy.derived_from == {copy: first}
    assert policy_of(FULL).derived_from == {}
    assert policy.epoch != policy_of(FULL).epoch


@pytest.mark.parametrize("line", ['"q8" = "sha256:0"', f'"{DIGEST}" = "first"', f'"{DIGEST}" = 1', f'"x" = "{DIGEST}"'])
def test_a_copy_is_named_by_fingerprints_alone(policy_of: MakePolicy, line: str) -> None:
    with pytest.raises(InputError, match=r"derived_from"):
        policy_of(f"[derived_from]\n{line}\n")


def test_where_canaries_fail_nothing_serves_unless_the_policy_says_so(policy_of: MakePolicy) -> None:
    plain = policy_of(FULL)
    assert plain.canaries.on_failure == "refuse"
    for text in ("[canaries]\n", '[canaries]\non_failure = "refuse"\n'):
        found = policy_of(f"{FULL}\n{text}")
        assert (found.canaries, found.epoch) == (plain.canaries, plain.epoch)  # as before there were canaries
    other = policy_of(f'{FULL}\n[canaries]\non_failure = "previous"\n')
    assert other.canaries.on_failure == "previous"
    assert other.epoch != plain.epoch


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('on_failure = "serve"', "canaries: on_failure: expected one of refuse, previous, found 'serve'"),
        ("on_failure = false", "canaries: on_failure: expected a string, found False"),
        ('on_fail = "refuse"', "canaries: unknown key 'on_fail'; allowed are on_failure"),
    ],
)
def test_a_slip_about_canaries_is_named(policy_of: MakePolicy, line: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        policy_of(f"[canaries]\n{line}\n")
    assert message in str(caught.value)
