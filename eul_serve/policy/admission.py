"""Whether a bundle may be served by what is known before any file of it is fetched: its manifest and signature."""

from __future__ import annotations

from eul_serve.errors import RefusedError
from eul_serve.format import Manifest
from eul_serve.policy.policy import Policy
from eul_serve.signing import SignerIdentity, verify_bundle_signature


def admit_bundle(policy: Policy, name: str, manifest: Manifest, signature: bytes | None) -> SignerIdentity | None:
    """Refuse a bundle that the policy's signers did not sign.

    Args:
        policy: The policy.
        name: The name that the bundle is published under.
        manifest: Its manifest.
        signature: The file of its signature; None where there is none.

    Returns:
        Who signed it; None where nobody did, or the policy names nobody to believe, and it is served all the same.

    Raises:
        InputError: The package for signatures is not installed.
        RefusedError: The policy refuses bundles without a signature, or this one does not hold.
    """
    serves_unsigned = policy.trust.unsigned == "serve"
    if serves_unsigned and (signature is None or not policy.signers.by_name):
        return None
    where = f"bundle {name}@{manifest.revision}"
    if not (signers := policy.signers.for_bundle(name)):
        raise RefusedError(
            f"{where}: no signer of the policy may sign {name!r}; add one as [signers.NAME], or to its `bundles`"
        )
    if signature is None:
        names = ", ".join(signer.name for signer in signers)
        raise RefusedError(
            f"{where}: nobody signed it; publish it again with `eul publish --sign KEY` as one of {names:.200}"
        )
    return verify_bundle_signature(signature, manifest, signers)
