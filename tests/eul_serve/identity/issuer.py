"""An issuer of signed tokens: keys of its own, a JWK set, and tokens as bad as a test wants them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

NAME, AUDIENCE = "https://login.test", "eul"


class Issuer:
    """Keys by id."""

    def __init__(self, *ids: str, elliptic: bool = False) -> None:
        self.elliptic = elliptic
        self.keys: dict[str, Any] = {}
        for name in ids or ("k1",):
            self.add(name)

    @property
    def algorithm(self) -> str:
        return "ES256" if self.elliptic else "RS256"

    def add(self, name: str) -> None:
        self.keys[name] = (
            ec.generate_private_key(ec.SECP256R1())
            if self.elliptic
            else rsa.generate_private_key(public_exponent=65537, key_size=2048)
        )

    def jwks(self) -> dict[str, Any]:
        kind = jwt.algorithms.ECAlgorithm if self.elliptic else jwt.algorithms.RSAAlgorithm
        return {
            "keys": [
                {**json.loads(kind.to_jwk(key.public_key())), "kid": name, "alg": self.algorithm, "use": "sig"}
                for name, key in self.keys.items()
            ]
        }

    def publish(self, path: Path) -> Path:
        part = path.with_suffix(".part")
        part.write_text(json.dumps(self.jwks()))
        part.replace(path)
        return path

    def token(
        self, tenant: str = "acme", kid: str | None = "k1", key: Any = None, header: Any = None, **claims: Any
    ) -> str:
        """A token that is in order, but for what the test changes; a claim of None is left out."""
        now = int(time.time())
        content = {"iss": NAME, "aud": AUDIENCE, "exp": now + 600, "tenant": tenant, **claims}
        return jwt.encode(
            {name: value for name, value in content.items() if value is not None},
            key or self.keys[kid or "k1"],
            algorithm=self.algorithm,
            headers={"kid": kid, **(header or {})} if kid else header,
        )


def rules(keys: str | Path, **changes: Any) -> dict[str, Any]:
    """The section `[jwt]` of a policy."""
    return {"issuer": NAME, "audience": AUDIENCE, "algorithms": ["RS256"], "keys": str(keys), **changes}
