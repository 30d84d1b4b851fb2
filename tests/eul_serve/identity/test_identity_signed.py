"""Signed tokens: what is accepted, and every way in which one is not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from eul_serve.errors import IdentityError, InputError
from eul_serve.identity import Credentials, KeyRing, identify
from eul_serve.identity.keys import MAX_KEYS, URL_SECONDS, parse_keys
from eul_serve.policy import JwtRules, Policy, TenantPolicy, hash_token
from eul_serve.policy.jwt_rules import read_jwt
from eul_serve.policy.section import Section
from tests.eul_serve.identity.issuer import AUDIENCE, NAME, Issuer, rules

STATIC = "a-static-token"


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer("k1", "k2")


def policy_of(found: JwtRules | None, **tenant: Any) -> Policy:
    return Policy(
        tenants={"acme": TenantPolicy(name="acme", **tenant), "zeta": TenantPolicy(name="zeta")},
        tokens={hash_token(STATIC): "zeta"},
        jwt=found,
        epoch="e",
    )


def parsed(section: dict[str, Any]) -> JwtRules:
    found = read_jwt(Section("policy", section))
    assert found is not None
    return found


@pytest.fixture
def setting(issuer: Issuer, tmp_path: Path) -> tuple[Policy, KeyRing]:
    found, ring = parsed(rules(issuer.publish(tmp_path / "keys.json"))), KeyRing()
    assert ring.put(ring.read(found))
    return policy_of(found), ring


def caller(setting: tuple[Policy, KeyRing], token: str) -> str:
    return identify(Credentials(token=token), *setting).tenant.name


def test_a_token_in_order_names_its_tenant(setting: tuple[Policy, KeyRing], issuer: Issuer) -> None:
    assert caller(setting, issuer.token()) == "acme"
    assert caller(setting, issuer.token("zeta", kid="k2")) == "zeta"
    assert caller(setting, issuer.token(aud=[AUDIENCE, "other"])) == "acme"
    assert caller(setting, STATIC) == "zeta"  # hashed tokens go on to work beside them


def unsigned(issuer: Issuer) -> str:
    return jwt.encode({"iss": NAME, "aud": AUDIENCE, "exp": time.time() + 60, "tenant": "acme"}, None, algorithm="none")


def signed_with_the_public_key(issuer: Issuer) -> str:
    """Algorithm confusion: the public key, which everybody has, as the secret of an HMAC."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    secret = issuer.keys["k1"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header, payload = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in (
            {"alg": "HS256", "typ": "JWT", "kid": "k1"},
            {"iss": NAME, "aud": AUDIENCE, "exp": int(time.time()) + 60, "tenant": "acme"},
        )
    )
    body = header + b"." + payload
    signature = base64.urlsafe_b64encode(hmac.new(secret, body, hashlib.sha256).digest()).rstrip(b"=")
    return (body + b"." + signature).decode()


def changed_after_signing(issuer: Issuer) -> str:
    header, payload, signature = issuer.token("zeta").split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    forged = base64.urlsafe_b64encode(json.dumps({**claims, "tenant": "acme"}).encode()).rstrip(b"=").decode()
    return f"{header}.{forged}.{signature}"


BAD: dict[str, Any] = {
    "unsigned": unsigned,
    "signed with the public key as a secret": signed_with_the_public_key,
    "changed after signing": changed_after_signing,
    "of another issuer's key under a known id": lambda issuer: Issuer("k1").token(),
    "of an unknown key": lambda issuer: Issuer("k9").token(kid="k9"),
    "of the other key than it says": lambda issuer: issuer.token(header={"kid": "k2"}),
    "with a key of its own in the header": lambda issuer: Issuer("k9").token(
        kid="k9", header={"jwk": Issuer("k9").jwks()["keys"][0]}
    ),
    "without a key id where there are two keys": lambda issuer: issuer.token(kid=None),
    "with a key id that is no text": lambda issuer: issuer.token(header={"kid": "../../dev/null"}),
    "of another issuer": lambda issuer: issuer.token(iss="https://evil.test"),
    "of no issuer": lambda issuer: issuer.token(iss=None),
    "for another audience": lambda issuer: issuer.token(aud="other"),
    "for no audience": lambda issuer: issuer.token(aud=None),
    "without an end": lambda issuer: issuer.token(exp=None),
    "not yet valid": lambda issuer: issuer.token(nbf=int(time.time()) + 600),
    "of no tenant": lambda issuer: issuer.token(tenant=None),
    "of an unknown tenant": lambda issuer: issuer.token("nobody"),
    "of a tenant that is a list": lambda issuer: issuer.token(tenant=["acme"]),
    "with another signature algorithm": lambda issuer: Issuer("k1", elliptic=True).token(),
    "cut": lambda issuer: issuer.token()[:-10],
    "of three empty parts": lambda issuer: "..",
    "of noise": lambda issuer: "a.b.c",
    "longer than any": lambda issuer: issuer.token(x="y" * 9000),
    "with an end that is no number": lambda issuer: issuer.token(exp="tomorrow"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_token_that_is_not_in_order_is_nobody_s(setting: tuple[Policy, KeyRing], issuer: Issuer, name: str) -> None:
    with pytest.raises(IdentityError) as error:
        caller(setting, BAD[name](issuer))
    assert len(str(error.value)) < 200
    assert "acme" not in str(error.value)


def test_whoever_has_a_real_token_is_told_that_it_has_expired(setting: tuple[Policy, KeyRing], issuer: Issuer) -> None:
    with pytest.raises(IdentityError, match="has expired"):
        caller(setting, issuer.token(exp=int(time.time()) - 60))
    with pytest.raises(IdentityError, match="unknown bearer token"):  # a forger is not
        caller(setting, Issuer("k1").token(exp=int(time.time()) - 60))
    assert caller(setting, issuer.token(exp=int(time.time()) - 20)) == "acme"  # within the leeway of 30 seconds


def test_without_rules_no_signed_token_is_accepted(issuer: Issuer) -> None:
    with pytest.raises(IdentityError):
        identify(Credentials(token=issuer.token()), policy_of(None), KeyRing())


def test_before_keys_are_there_nothing_is_accepted(issuer: Issuer, tmp_path: Path) -> None:
    found, ring = parsed(rules(tmp_path / "missing.json")), KeyRing()
    assert not ring.put(ring.read(found))
    with pytest.raises(IdentityError):
        identify(Credentials(token=issuer.token()), policy_of(found), ring)


def test_a_proof_ends_with_its_signer_its_rules_and_its_tenant(
    setting: tuple[Policy, KeyRing], issuer: Issuer, tmp_path: Path
) -> None:
    policy, ring = setting
    assert policy.jwt is not None
    (proof,) = identify(Credentials(token=issuer.token()), policy, ring).proofs
    assert proof.tenant_in(policy).name == "acme"
    for other in (
        policy_of(None),
        policy_of(parsed(rules(tmp_path / "keys.json", audience="new"))),
        Policy(tenants={}, tokens={}, jwt=policy.jwt, epoch="x"),
    ):
        with pytest.raises(IdentityError, match="not accepted any more"):
            proof.tenant_in(other)
    rotated = Issuer("k3")
    rotated.publish(tmp_path / "keys.json")
    assert ring.put(ring.read(policy.jwt))
    with pytest.raises(IdentityError, match="not accepted any more"):
        proof.tenant_in(policy)
    assert identify(Credentials(token=rotated.token(kid="k3")), policy, ring).tenant.name == "acme"


def test_keys_that_cannot_be_read_leave_those_before(
    setting: tuple[Policy, KeyRing], issuer: Issuer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy, ring = setting
    for wrong in ("", "[]", '{"keys": 7}', '{"keys": []}', "{" * 100_000, "x" * (1 << 21)):
        (tmp_path / "keys.json").write_text(wrong)
        assert not ring.put(ring.read(policy.jwt))
        assert not ring.put(ring.read(policy.jwt))
    assert caller(setting, issuer.token()) == "acme"
    said = [record.message for record in caplog.records if "stay as they are" in record.message]
    assert len(said) == 5  # six readings twice, of which two in a row say the same
    # Keys of another source are no substitute: a policy that names a new one accepts nothing until it is read.
    moved = parsed(rules(tmp_path / "other.json"))
    assert ring.put(ring.read(moved))
    assert "k1" not in ring


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256", "kid": "k"},
        {"kty": "oct", "k": "c2VjcmV0", "alg": "RS256", "kid": "k"},
        {"kty": "RSA", "kid": "k"},
        {"kty": "none"},
        "text",
        None,
    ],
)
def test_what_is_no_public_key_verifies_nothing(key: object) -> None:
    with pytest.raises(InputError, match="found none"):
        parse_keys({"keys": [key]}, parsed(rules("keys.json")))


def test_a_key_for_another_use_or_algorithm_is_left_out(issuer: Issuer) -> None:
    first, second = issuer.jwks()["keys"]
    found = parse_keys({"keys": [{**first, "use": "enc"}, second]}, parsed(rules("keys.json")))
    assert list(found) == ["k2"]
    with pytest.raises(InputError, match="expected a key for ES256"):
        parse_keys(issuer.jwks(), parsed(rules("keys.json", algorithms=["ES256"])))
    with pytest.raises(InputError, match=f"at most {MAX_KEYS}"):
        parse_keys({"keys": [first] * (MAX_KEYS + 1)}, parsed(rules("keys.json")))


@pytest.fixture
def address(issuer: Issuer) -> Iterator[tuple[str, list[str]]]:
    """An issuer's address, and what was asked of it."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = json.dumps(issuer.jwks()).encode()
            self.send_response(200 if self.path == "/jwks" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_an_issuer_s_address_is_asked_now_and_then(address: tuple[str, list[str]], issuer: Issuer) -> None:
    url, asked = address
    now = 1000.0
    found, ring = parsed(rules(f"{url}/jwks")), KeyRing(lambda: now)
    for _ in range(50):  # a poll each second does not mean a request each second
        ring.put(ring.read(found))
    assert asked == ["/jwks"]
    assert identify(Credentials(token=issuer.token()), policy_of(found), ring).tenant.name == "acme"
    # And tokens of unknown keys ask nothing of anybody.
    for number in range(20):
        with pytest.raises(IdentityError):
            identify(Credentials(token=issuer.token(header={"kid": f"x{number}"})), policy_of(found), ring)
    assert asked == ["/jwks"]
    now += URL_SECONDS
    ring.put(ring.read(found))
    assert asked == ["/jwks"] * 2


def test_an_address_that_does_not_answer_is_one_line(
    address: tuple[str, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    found, ring = parsed(rules(f"{address[0]}/nothing")), KeyRing()
    assert not ring.put(ring.read(found))
    assert "cannot fetch" in caplog.text


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"issuer": ""}, "issuer: expected a text"),
        ({"audience": ""}, "audience: expected a text"),
        ({"keys": ""}, "keys: expected a text"),
        ({"algorithms": []}, "algorithms: expected some of RS256"),
        ({"algorithms": ["HS256"]}, "algorithms: expected some of RS256"),
        ({"algorithms": ["none"]}, "algorithms: expected some of RS256"),
        ({"algorithms": ["RS256", "HS256"]}, "algorithms: expected some of RS256"),
        ({"keys": "http://login.test/jwks"}, "expected a file or an https URL"),
        ({"keys": "ftp://login.test/jwks"}, "expected a file or an https URL"),
        ({"keys": "https:///jwks"}, "expected a file or an https URL"),
        ({"leeway_seconds": 301}, "leeway_seconds: expected a whole number, 0 to 300"),
        ({"leeway_seconds": True}, "leeway_seconds: expected a whole number"),
        ({"secret": "x"}, "unknown key 'secret'"),
    ],
)
def test_rules_that_cannot_be_are_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        parsed({**rules("keys.json"), **change})
