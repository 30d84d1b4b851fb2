"""The base model as a manifest names it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from eul_serve.errors import BundleFormatError
from eul_serve.format.config import check_keys
from eul_serve.format.names import check_digest

_CLASS_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    """The base model that the bundle was trained on."""

    fingerprint: str
    """Digest of weights and architecture, `eul_serve.format.fingerprint`."""
    architecture: str
    """Class name in the model's config, e.g. LlamaForCausalLM."""
    tokenizer: str
    """Digest of the tokenizer's files."""
    chat_template: str | None
    """Digest of the chat template's text; None where the tokenizer has none."""


def parse_base(raw: dict[str, Any]) -> BaseModel:
    """Parse the manifest's `base`.

    Args:
        raw: The entry as JSON.

    Returns:
        The base model.

    Raises:
        BundleFormatError: A key is missing or unknown, or the architecture is no class name.
        InputError: A digest is not acceptable.
    """
    where, template = "manifest.json: base", raw.get("chat_template")
    kinds: dict[str, type] = {"fingerprint": str, "architecture": str, "tokenizer": str, "chat_template": str}
    if template is None:
        kinds["chat_template"] = type(None)
    check_keys(raw, kinds, where)
    for digest in (raw["fingerprint"], raw["tokenizer"], *([] if template is None else [template])):
        check_digest(digest)
    if not _CLASS_NAME.fullmatch(raw["architecture"]):
        raise BundleFormatError(f"{where}: architecture: expected a class name, found {raw['architecture']!r:.100}")
    return BaseModel(**raw)
