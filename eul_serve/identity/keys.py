"""The public keys of the issuer of signed tokens: read again and again, as issuers rotate them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jwt

from eul_serve.errors import EulError, InputError
from eul_serve.policy import JwtRules

_log = logging.getLogger("eul_serve.identity")
URL_SECONDS = 60.0
"""Between two looks at an issuer's address; a file is read at every poll."""
TIMEOUT_SECONDS = 5.0
MAX_BYTES = 1 << 20
MAX_KEYS = 64


class KeyRing:
    """The keys of one issuer, by id."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with none.

        Args:
            clock: Monotonic seconds.
        """
        self._clock = clock
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._source, self._read_at = "", -URL_SECONDS
        self._complaint = ""

    def __contains__(self, key_id: object) -> bool:
        return key_id in self._keys

    def get(self, key_id: object) -> tuple[str, jwt.PyJWK] | None:
        """Return a key with its id; without an id, the only one there is."""
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.items()))
        return (key_id, self._keys[key_id]) if isinstance(key_id, str) and key_id in self._keys else None

    def read(self, rules: JwtRules | None) -> Mapping[str, jwt.PyJWK] | None:
        """Return the keys as they are now; blocks.

        Args:
            rules: The policy's rules for signed tokens; None where there are none.

        Returns:
            Keys for `put`; None where it is not time to look, or they cannot be read, which is logged once.
        """
        if rules is None:
            return {}
        is_url, now = "://" in rules.keys, self._clock()
        if is_url and rules.keys == self._source and now - self._read_at < URL_SECONDS:
            return None
        self._read_at = now
        try:
            keys = parse_keys(_fetch(rules.keys) if is_url else _read(Path(rules.keys)), rules)
        except EulError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                _log.error("the issuer's keys stay as they are: %s", error)
            # Keys of another issuer are no substitute.
            return None if rules.keys == self._source else {}
        self._complaint, self._source = "", rules.keys
        return keys

    def put(self, keys: Mapping[str, jwt.PyJWK] | None) -> bool:
        """Take up keys that `read` returned; return whether they differ from those before."""
        if keys is None or _contents(keys) == _contents(self._keys):
            return False
        self._keys = keys
        _log.info("%d keys of the issuer are accepted", len(keys))
        return True


def parse_keys(data: object, rules: JwtRules) -> dict[str, jwt.PyJWK]:
    """Return the keys of a JWK set that can verify the pinned algorithms, by id.

    Args:
        data: The parsed JSON.
        rules: The rules.

    Returns:
        The keys; others in the set, such as those for encryption, are left out.

    Raises:
        InputError: It is no JWK set, has too many keys, or none that fits.
    """
    listed = data.get("keys") if isinstance(data, dict) else None
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise InputError(f"keys {rules.keys!r}: expected a JWK set of at most {MAX_KEYS} keys")
    found: dict[str, jwt.PyJWK] = {}
    for entry in listed:
        key = _key(entry)
        if key is not None and key.algorithm_name in rules.algorithms and key.public_key_use in (None, "sig"):
            found[key.key_id or ""] = key
    if not found:
        raise InputError(f"keys {rules.keys!r}: expected a key for {', '.join(rules.algorithms)}, found none")
    return found


def _key(entry: object) -> jwt.PyJWK | None:
    # A secret in the place of a public key must never verify anything.
    if not isinstance(entry, dict) or entry.get("kty") == "oct":
        return None
    try:
        return jwt.PyJWK.from_dict(entry)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None


def _contents(keys: Mapping[str, jwt.PyJWK]) -> dict[str, str]:
    return {name: json.dumps(key._jwk_data, sort_keys=True) for name, key in keys.items()}


def _read(path: Path) -> Any:  # noqa: ANN401  # JSON
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        return json.loads(data) if len(data) <= MAX_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"keys {str(path)!r}: cannot read: {error}") from error


def _fetch(url: str) -> Any:  # noqa: ANN401  # JSON
    try:
        return jwt.PyJWKClient(url, cache_jwk_set=False, timeout=TIMEOUT_SECONDS).fetch_data()
    except (jwt.PyJWTError, ValueError, OSError) as error:
        raise InputError(f"keys {url!r}: cannot fetch: {error}") from error
