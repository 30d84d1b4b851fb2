"""A deletion request as a manifest names it: an opaque id and a digest, never text."""

from __future__ import annotations

from dataclasses import dataclass

from eul_serve.errors import BundleFormatError
from eul_serve.format.config import MAX_RANK, check_keys
from eul_serve.format.names import check_digest, check_name


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgottenRequest:
    """One deletion request that the bundle covers; never its text."""

    id: str
    """Opaque id: 1 to 63 of a-z, 0-9, dot, dash and underscore."""
    data: str
    """Digest of the request's rows."""
    units: tuple[int, int] | None
    """First and one past the last hidden unit that belong to the request; None where all requests share them."""


def parse_request(raw: object) -> ForgottenRequest:
    """Parse one entry of the manifest's `requests`.

    Args:
        raw: The entry as JSON.

    Returns:
        The request.

    Raises:
        BundleFormatError: A key is missing or unknown, or the units are no range.
        InputError: The id or the digest is not acceptable.
    """
    where = "manifest.json: request"
    if not isinstance(raw, dict):
        raise BundleFormatError(f"{where}: expected an object, found {type(raw).__name__}")
    units = raw.get("units")
    check_keys(raw, {"id": str, "data": str, "units": type(None) if units is None else list}, where)
    name, data = check_name(raw["id"], "request"), check_digest(raw["data"])
    if units is None:
        return ForgottenRequest(id=name, data=data, units=None)
    if len(units) != 2 or not all(type(unit) is int for unit in units) or not 0 <= units[0] < units[1] <= MAX_RANK:
        raise BundleFormatError(
            f"{where} {name!r}: units: expected [first, end] within 0 to {MAX_RANK}, found {units!r:.100}"
        )
    return ForgottenRequest(id=name, data=data, units=(units[0], units[1]))


def check_units(requests: tuple[ForgottenRequest, ...]) -> None:
    """Check that all requests have units or none has, and that ranges ascend and are equal or apart.

    Args:
        requests: All requests of a bundle, in order.

    Raises:
        BundleFormatError: Names the first request that breaks the rule.
    """
    end, previous = 0, None
    for request in requests:
        if (request.units is None) != (requests[0].units is None):
            raise BundleFormatError("manifest.json: requests: expected units for all requests or for none")
        if request.units is None or request.units == previous:
            continue
        if request.units[0] < end:
            raise BundleFormatError(
                f"manifest.json: request {request.id!r}: units: expected to start at {end} or later, or to be those of "
                f"the request before it, found {list(request.units)}"
            )
        end, previous = request.units[1], request.units
