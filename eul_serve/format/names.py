"""The grammar of tensor names and of the names people give: bundles, aliases, tenants, references."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from eul_serve.errors import BundleFormatError, InputError

Part = Literal["eul_down.weight", "eul_down.bias", "eul_up.weight"]

PARTS: tuple[Part, ...] = ("eul_down.weight", "eul_down.bias", "eul_up.weight")
RESERVED_PARTS = ("eul_gate.weight", "eul_gate.bias")
"""Names kept free for gated bundles: (N, d) and (N,) for N requests. A reader of version 1 refuses them."""
PREFIX = "base_model.model."
MAX_TENSOR_NAME = 512
DEFAULT_ALIAS = "stable"

_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, order=True)
class TensorName:
    """A parsed tensor name: which module of the base model, and which part of its layer."""

    module: str
    """Path of the feed-forward module in the base model, e.g. `model.layers.0.mlp`."""
    part: Part
    """Which tensor of the layer."""

    @classmethod
    def parse(cls, name: str) -> TensorName:
        """Parse `base_model.model.<module>.<part>`.

        Args:
            name: Name of a tensor in a bundle.

        Returns:
            Its parts.

        Raises:
            BundleFormatError: The name does not follow the grammar, or is reserved for a later version.
        """
        if name.endswith(tuple("." + part for part in RESERVED_PARTS)):
            raise BundleFormatError(
                f"tensor {name[:200]!r}: gates are reserved for a later version of the format; "
                "this reader knows version 1, so upgrade eul-serve"
            )
        for part in PARTS:
            if len(name) <= MAX_TENSOR_NAME and name.startswith(PREFIX) and name.endswith("." + part):
                module = name[len(PREFIX) : -len(part) - 1]
                if _MODULE.fullmatch(module):
                    return cls(module, part)
        allowed = ", ".join(PARTS)
        raise BundleFormatError(
            f"tensor {name[:200]!r}: expected a name '{PREFIX}<module>.<part>' with part one of {allowed}"
        )

    def __str__(self) -> str:
        return f"{PREFIX}{self.module}.{self.part}"


@dataclass(frozen=True, slots=True)
class Reference:
    """How a person names a bundle: `name`, `name:alias` or `name@sha256:<64 hex digits>`."""

    name: str
    """Name of the bundle."""
    alias: str | None
    """The alias, `stable` where the text gave none; None for a reference by revision."""
    revision: str | None
    """`sha256:` and 64 hex digits; None for a reference by alias."""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse a reference; a bare name means its alias `stable`.

        Args:
            text: What a person gave.

        Returns:
            The reference.

        Raises:
            InputError: The text is no reference.
        """
        if len(text) > 200:
            raise InputError(f"reference {text[:100]!r}...: expected at most 200 characters, found {len(text)}")
        name, at, revision = text.partition("@")
        if at:
            return cls(check_name(name, "bundle"), None, check_digest(revision))
        name, colon, alias = text.partition(":")
        return cls(check_name(name, "bundle"), check_name(alias, "alias") if colon else DEFAULT_ALIAS, None)

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else f"{self.name}:{self.alias}"


def check_name(text: str, what: str) -> str:
    """Return the name of a bundle, alias or tenant when it is acceptable.

    Args:
        text: The name to check.
        what: The word for the kind of name, for the message.

    Returns:
        The name, unchanged.

    Raises:
        InputError: Not 1 to 63 of a-z, 0-9, dot, dash and underscore, starting with a letter or digit, or with `..`.
    """
    if not isinstance(text, str) or not _NAME.fullmatch(text) or ".." in text:
        raise InputError(
            f"{what} name {text!r:.100}: expected 1 to 63 characters of a-z, 0-9, '.', '_' and '-', "
            "starting with a letter or digit and without '..'"
        )
    return text


def check_digest(text: str) -> str:
    """Return a digest when it reads `sha256:` and 64 lower-case hex digits.

    Args:
        text: The digest to check.

    Returns:
        The digest, unchanged.

    Raises:
        InputError: Anything else.
    """
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise InputError(f"digest {text!r:.100}: expected 'sha256:' and 64 hex digits")
    return text
