"""What a certificate states of a bundle, in the shape of an in-toto statement (version 1).

It binds the requests, the base model and the bundle to what was measured and to the policy that judged it. Of the rows
it holds digests and means alone: a certificate may be shown to anybody, and must not hold what was forgotten.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eul_serve.errors import BundleFormatError

TYPE = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:eul-serve:unlearning-certificate:1"
LIMITS = (
    "The bundle hides what was forgotten; it does not erase it. Whoever has the base model's weights has the data.",
    "It holds for the base model, bundle and rows named here, as they were measured, and for nothing else.",
    "Attacks that are not named here were not tried.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What was shown of one bundle."""

    revision: str
    """Revision of the bundle, `sha256:<64 hex digits>`."""
    base: str
    """Fingerprint of the base model."""
    requests: Mapping[str, str]
    """Digest of the rows of each request, by its id."""
    policy: str
    """Digest of the policy file."""
    verdict: Mapping[str, Any]
    """What the policy says: `passed`, `sentence`, `findings`."""
    measured: Mapping[str, Any]
    """Means by set, comparisons, gaps and attacks, plain JSON."""
    evidence: Mapping[str, str]
    """Digest of each file that it rests on, by name."""
    evaluator: Mapping[str, Any]
    """Digest of the code that measured, and versions."""
    issued: str
    """When it was issued, ISO 8601 in UTC."""
    limits: tuple[str, ...] = field(default=LIMITS)
    """What it does not say, in plain words."""

    def dump(self) -> bytes:
        """Return the statement as JSON."""
        predicate = {
            "base": self.base,
            "requests": dict(self.requests),
            "policy": self.policy,
            "verdict": dict(self.verdict),
            "measured": dict(self.measured),
            "evidence": dict(self.evidence),
            "evaluator": dict(self.evaluator),
            "issued": self.issued,
            "limits": list(self.limits),
        }
        subject = [{"name": "bundle", "digest": {"sha256": self.revision.removeprefix("sha256:")}}]
        found = {"_type": TYPE, "subject": subject, "predicateType": PREDICATE, "predicate": predicate}
        return (json.dumps(found, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def parse(cls, data: bytes) -> Statement:
        """Read what `dump` gave.

        Args:
            data: The file.

        Returns:
            The statement.

        Raises:
            BundleFormatError: It is something else.
        """
        try:
            found = json.loads(data)
            predicate = found["predicate"]
            if (found["_type"], found["predicateType"]) != (TYPE, PREDICATE):
                other = f"{found['predicateType']!r:.80}"
                raise BundleFormatError(
                    f"statement.json: expected {PREDICATE}, found {other}; is it of a newer version?"
                )
            (subject,) = found["subject"]
            return cls(
                revision=f"sha256:{subject['digest']['sha256']}", **{**predicate, "limits": tuple(predicate["limits"])}
            )
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise BundleFormatError(f"statement.json: expected a certificate's statement: {error!r:.200}") from error
