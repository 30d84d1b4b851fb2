"""Who may sign what: slips are named, key files count by their bytes, and strict policies refuse what is unsigned."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.errors import InputError, RefusedError
from eul_serve.format import Bundle
from eul_serve.policy import DEFAULT_UNSIGNED, Policy, SignerRules, TrustRules, admit_bundle, load_policy
from eul_serve.signing import Signer, TrustedSigner, key_fingerprint, make_keys, sign_bundle

PlainBundle = Callable[..., Bundle]
MakePolicy = Callable[..., Policy]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with keys of two signers."""
    place = tmp_path_factory.mktemp("keys")
    for name in ("ana", "ben"):
        make_keys(place / f"{name}.pem", place / f"{name}.pub")
    return place


@pytest.fixture
def load(keys: Path, tmp_path: Path) -> Callable[[str], Policy]:
    """Load a policy that lies beside `ana.pub`, `ben.pub` and `text`."""
    for name in ("ana", "ben"):
        (tmp_path / f"{name}.pub").write_bytes((keys / f"{name}.pub").read_bytes())
    (tmp_path / "text").write_text("secret words")

    def make(text: str) -> Policy:
        (tmp_path / "policy.toml").write_text(text)
        return load_policy(tmp_path / "policy.toml")

    return make


ANA = '[signers.ana]\npublic_key = "ana.pub"\n'
BEN = '[signers.ben]\npublic_key = "ben.pub"\nbundles = ["tofu-*", "poems"]\n'


def test_signers_read_as_written(load: Callable[[str], Policy], keys: Path) -> None:
    policy = load(ANA + BEN + 'not_after = "2027-01-01T00:00:00Z"\n[trust]\nunsigned = "refuse"\n')
    ana, ben = policy.signers.by_name["ana"], policy.signers.by_name["ben"]
    assert ana.trusted == TrustedSigner(name="ana", public_key=(keys / "ana.pub").read_bytes())
    assert (ana.bundles, ben.bundles) == (("*",), ("tofu-*", "poems"))
    assert ben.trusted.not_after == datetime(2027, 1, 1, tzinfo=UTC)
    assert policy.trust == TrustRules(unsigned="refuse")


def test_a_policy_without_a_word_on_signatures_serves_nothing_unsigned(load: Callable[[str], Policy]) -> None:
    policy = load("")
    assert (policy.signers.by_name, policy.trust.unsigned) == ({}, "refuse")
    assert load('[trust]\nunsigned = "refuse"\n').epoch == policy.epoch


def test_a_signer_signs_the_bundles_of_its_list_alone(load: Callable[[str], Policy]) -> None:
    signers = load(ANA + BEN).signers
    for name, expected in {
        "poems": ["ana", "ben"],
        "tofu-": ["ana", "ben"],
        "tofu-1.a": ["ana", "ben"],
        "poems2": ["ana"],
        "my-tofu-1": ["ana"],
    }.items():
        assert [signer.name for signer in signers.for_bundle(name)] == expected, name


@given(
    parts=st.lists(st.text("ab.-", max_size=3), min_size=1, max_size=4),
    name=st.text("ab.-", max_size=8).map("a".__add__),
)
def test_a_star_is_any_characters_and_nothing_else_is_special(parts: list[str], name: str) -> None:
    pattern = "*".join(parts)
    rules = SignerRules(trusted=TrustedSigner(name="ana", public_key=b"key"), bundles=(pattern,))
    expected = re.fullmatch(".*".join(map(re.escape, parts)), name) is not None
    assert rules.may_sign(name) is expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[signers]\nana = 1", "signers.ana: expected a table, found int"),
        ("[signers.Ana]", "signers.Ana: name: signer name 'Ana'"),
        ("[signers.ana]", "signers.ana: expected public_key or certificates; give one of the two"),
        (
            "[signers.ana]\nkey = 1",
            "unknown key 'key'; allowed are bundles, certificates, identity, not_after, public_",
        ),
        (ANA + 'certificates = ["ana.pub"]', "expected public_key or certificates"),
        (ANA + 'identity = "ana"', "identity: belongs to certificates"),
        ('[signers.ana]\ncertificates = ["ana.pub"]', "identity: belongs to certificates"),
        ('[signers.ana]\ncertificates = ["ana.pub"]\nidentity = "a"', "ana.pub': expected X.509 certificates in PEM"),
        ('[signers.ana]\ncertificates = "ana.pub"\nidentity = "a"', "certificates: expected a list of strings"),
        ("[signers.ana]\npublic_key = 1", "public_key: expected a string, found 1"),
        ('[signers.ana]\npublic_key = "none"', "none': cannot read: No such file or directory; expected a file in PEM"),
        ('[signers.ana]\npublic_key = "."', "cannot read: Is a directory"),
        ('[signers.ana]\npublic_key = "a\\u0000"', "cannot read"),
        ('[signers.ana]\npublic_key = "/dev/zero"', "expected at most 1048576 bytes"),
        ('[signers.ana]\npublic_key = "text"', "text': expected an elliptic-curve public key in PEM"),
        (ANA + "bundles = []", "bundles: expected a name or more; left out, it means every bundle"),
        (ANA + 'bundles = "poems"', "bundles: expected a list of strings, found 'poems'"),
        (ANA + 'bundles = ["Poems"]', "bundles: 'Poems': expected the name of a bundle, with '*'"),
        (ANA + 'bundles = ["poems:stable"]', "bundles: 'poems:stable': expected the name of a bundle"),
        (ANA + 'bundles = ["p?ems"]', "bundles: 'p?ems': expected the name of a bundle"),
        (ANA + 'bundles = ["[a]"]', "bundles: '[a]': expected the name of a bundle"),
        (ANA + 'not_after = "2027-01-01"', "not_after: '2027-01-01': expected a moment in UTC, such as 2027-01-01T00:"),
        (ANA + 'not_after = "2027-02-30T00:00:00Z"', "expected a moment in UTC"),
        (ANA + "not_after = 2027-01-01T00:00:00Z", "not_after: expected a string"),
        (ANA + ANA.replace("ana]", "ben]"), "signers.ben: public_key: 'ana' has the same key; name it once"),
        ('[trust]\nunsigned = "allow"', "trust: unsigned: expected one of refuse, serve, found 'allow'"),
        ("[trust]\nunsigned = true", "trust: unsigned: expected a string, found True"),
        ("[trust]\nsigned = true", "trust: unknown key 'signed'; allowed are unsigned"),
    ],
)
def test_a_slip_about_signers_is_named(load: Callable[[str], Policy], text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load(text)
    assert message in str(caught.value)
    assert "policy.toml" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_private_key_in_the_place_of_a_public_one_is_not_shown(
    load: Callable[[str], Policy], keys: Path, tmp_path: Path
) -> None:
    (tmp_path / "key.pem").write_bytes(secret := (keys / "ana.pem").read_bytes())
    with pytest.raises(InputError, match="expected an elliptic-curve public key") as caught:
        load('[signers.ana]\npublic_key = "key.pem"\n')
    assert secret.decode().splitlines()[1][:20] not in str(caught.value)


def test_another_key_in_the_same_file_is_another_epoch(load: Callable[[str], Policy], tmp_path: Path) -> None:
    policy = load(ANA)
    epochs = {policy.epoch, load("").epoch, load(BEN).epoch, load(ANA + BEN).epoch}
    epochs |= {load(ANA + f"{line}\n").epoch for line in ('bundles = ["poems"]', 'not_after = "2027-01-01T00:00:00Z"')}
    other = "serve" if DEFAULT_UNSIGNED == "refuse" else "refuse"
    epochs |= {load(ANA + f'[trust]\nunsigned = "{other}"\n').epoch}
    assert len(epochs) == 7
    assert load(f"# a comment\n{ANA}").epoch == policy.epoch
    (tmp_path / "ana.pub").write_bytes((tmp_path / "ben.pub").read_bytes())
    assert load(ANA).epoch not in epochs


def test_keys_may_lie_behind_links_as_kubernetes_mounts_them(
    load: Callable[[str], Policy], keys: Path, tmp_path: Path
) -> None:
    (tmp_path / "linked.pub").symlink_to(keys / "ana.pub")
    found = load('[signers.ana]\npublic_key = "linked.pub"\n').signers.by_name["ana"]
    assert found.trusted.public_key == (keys / "ana.pub").read_bytes()


@pytest.fixture(scope="module")
def bundle(plain_bundle: PlainBundle) -> Bundle:
    return plain_bundle("r1")


@pytest.fixture(scope="module")
def signature(bundle: Bundle, keys: Path) -> bytes:
    pytest.importorskip("model_signing")
    return sign_bundle(bundle, Signer(private_key=keys / "ben.pem"))


def test_a_strict_policy_admits_what_a_signer_of_that_bundle_signed(
    load: Callable[[str], Policy], bundle: Bundle, signature: bytes, keys: Path
) -> None:
    strict = load(BEN + '[trust]\nunsigned = "refuse"\n')
    found = admit_bundle(strict, "poems", bundle.manifest, signature)
    assert found is not None
    assert (found.name, found.fingerprint) == ("ben", key_fingerprint(keys / "ben.pub"))
    with pytest.raises(RefusedError, match=r"nobody signed it; publish it again with `eul publish --sign KEY` .* ben"):
        admit_bundle(strict, "poems", bundle.manifest, None)
    for given_ in (None, signature):
        with pytest.raises(RefusedError, match="no signer of the policy may sign 'prose'"):
            admit_bundle(strict, "prose", bundle.manifest, given_)
    with pytest.raises(RefusedError, match="the signature does not hold"):
        admit_bundle(strict, "poems", bundle.manifest, signature.replace(b"a", b"b", 1))


def test_a_policy_that_serves_unsigned_bundles_still_refuses_a_signature_that_does_not_hold(
    load: Callable[[str], Policy], bundle: Bundle, signature: bytes
) -> None:
    lax = load(ANA + '[trust]\nunsigned = "serve"\n')
    assert admit_bundle(lax, "poems", bundle.manifest, None) is None
    with pytest.raises(RefusedError, match="ana: made with another key"):
        admit_bundle(lax, "poems", bundle.manifest, signature)
    nobody = load('[trust]\nunsigned = "serve"\n')
    assert admit_bundle(nobody, "poems", bundle.manifest, signature) is None
    with pytest.raises(RefusedError, match="no signer of the policy may sign"):
        admit_bundle(load('[trust]\nunsigned = "refuse"\n'), "poems", bundle.manifest, signature)


def test_a_key_is_rotated_and_withdrawn_by_the_policy_alone(
    load: Callable[[str], Policy], bundle: Bundle, signature: bytes, keys: Path
) -> None:
    strict = '[trust]\nunsigned = "refuse"\n'
    new = sign_bundle(bundle, Signer(private_key=keys / "ana.pem"))
    both = load(ANA + BEN + strict)
    names = [admit_bundle(both, "poems", bundle.manifest, one) for one in (signature, new)]
    assert [found.name for found in names if found] == ["ben", "ana"]
    for withdrawn in (ANA, ANA + BEN + 'not_after = "2026-01-01T00:00:00Z"\n'):
        policy = load(withdrawn + strict)
        assert admit_bundle(policy, "poems", bundle.manifest, new) is not None
        with pytest.raises(RefusedError, match="the signature does not hold"):
            admit_bundle(policy, "poems", bundle.manifest, signature)
