"""The salt of the prefix cache: no two tenants, revisions or policies ever share a cached block."""

from __future__ import annotations

import hashlib
import hmac


class Salter:
    """Makes salts under a key that only this server knows."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "Salter(...)"

    def salt(self, tenant: str, revision: str, epoch: str) -> str:
        """Return the salt of a request.

        Args:
            tenant: Name of the tenant.
            revision: `sha256:<hex>`, or `base`.
            epoch: Digest of the policy.

        Returns:
            64 hex digits.
        """
        # Names, digests and `base` hold no NUL, so no two triples read the same.
        message = "\x00".join((tenant, revision, epoch)).encode()
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()

    def tag(self, tenant: str) -> str:
        """Return what a log has in the place of a tenant's name: the same for the same tenant, for nobody to guess."""
        return hmac.new(self._key, b"tag\x00" + tenant.encode(), hashlib.sha256).hexdigest()[:16]
