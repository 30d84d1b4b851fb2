"""The identity of a base model, computed from its files and never read from a config's word."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from eul_serve.errors import BundleFormatError, InputError
from eul_serve.format.config import parse_object
from eul_serve.format.digest import digest_bytes, digest_file, open_regular
from eul_serve.format.header import read_header
from eul_serve.format.manifest import BaseModel

_DTYPES = {
    "F64": 8, "F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
_ARCHITECTURE = (
    "architectures", "attention_bias", "d_ff", "d_kv", "d_model", "head_dim", "hidden_act", "hidden_size",
    "intermediate_size", "mlp_bias", "model_type", "n_embd", "n_head", "n_inner", "n_layer", "num_attention_heads",
    "num_decoder_layers", "num_heads", "num_hidden_layers", "num_key_value_heads", "num_layers", "rms_norm_eps",
    "rope_parameters", "rope_scaling", "rope_theta", "sliding_window", "tie_word_embeddings", "vocab_size",
)  # fmt: skip
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "merges.txt", "special_tokens_map.json",
    "added_tokens.json",
)  # fmt: skip
_CHUNK = 1 << 20


def read_base(model: Path) -> BaseModel:
    """Identify a base model in a local Hugging Face directory.

    Args:
        model: Directory with `config.json`, safetensors weights and a tokenizer.

    Returns:
        Fingerprint, architecture, and digests of tokenizer and chat template.

    Raises:
        InputError: The directory is not a model, or its weights are not safetensors.
    """
    config = read_model_config(model)
    architectures = config.get("architectures") or ["unknown"]
    return BaseModel(
        fingerprint=fingerprint(model),
        architecture=str(architectures[0]),
        tokenizer=_tokenizer_digest(model),
        chat_template=_template_digest(model),
    )


def fingerprint(model: Path) -> str:
    """Return sha256 over the sorted (tensor name, shape, dtype, sha256) and the architecture fields of a model.

    Raises:
        InputError: The directory is not a model, or its weights are not safetensors.
    """
    config = read_model_config(model)
    files = sorted(model.glob("*.safetensors"))
    if not files:
        raise InputError(f"model {str(model)!r}: expected *.safetensors weights, found none; convert the model first")
    rows: list[tuple[str, list[int], str, str]] = []
    for path in files:
        try:
            rows += _tensor_rows(path)
        except BundleFormatError as error:
            raise InputError(f"model {str(model)!r}: {error}") from error
    fields = {key: config[key] for key in _ARCHITECTURE if config.get(key) is not None}
    return digest_bytes(json.dumps([fields, sorted(rows)], sort_keys=True, separators=(",", ":")).encode())


def read_model_config(model: Path) -> dict[str, Any]:
    """Read `config.json` of a model directory.

    Raises:
        InputError: The directory or the file is missing, or not JSON.
    """
    path = model / "config.json"
    if not path.is_file():
        raise InputError(
            f"model {str(model)!r}: expected a local model directory with config.json; "
            "make one with: eul-train base --out DIR"
        )
    try:
        return parse_object(path.read_bytes(), "config.json")
    except BundleFormatError as error:
        raise InputError(f"model {str(model)!r}: {error}") from error


def _tensor_rows(path: Path) -> list[tuple[str, list[int], str, str]]:
    # A hub snapshot links its weights into a blob store, so links are resolved here; a bundle's are refused.
    path = path.resolve()
    header = read_header(path, _DTYPES)
    rows = []
    with os.fdopen(open_regular(path), "rb") as file:
        for name, entry in header.tensors.items():
            file.seek(entry.begin)
            state, left = hashlib.sha256(), entry.end - entry.begin
            while left:
                data = file.read(min(left, _CHUNK))
                state.update(data)
                left -= len(data)
            rows.append((name, list(entry.shape), entry.dtype, state.hexdigest()))
    return rows


def _tokenizer_digest(model: Path) -> str:
    parts = [(name, digest_file((model / name).resolve())) for name in _TOKENIZER_FILES if (model / name).is_file()]
    if not parts:
        raise InputError(f"model {str(model)!r}: expected a tokenizer (tokenizer.json or the like), found none")
    return digest_bytes(json.dumps(parts).encode())


def _template_digest(model: Path) -> str | None:
    path = model / "chat_template.jinja"
    if path.is_file():
        return digest_bytes(path.read_bytes())
    path = model / "tokenizer_config.json"
    template = json.loads(path.read_bytes()).get("chat_template") if path.is_file() else None
    return digest_bytes(json.dumps(template, sort_keys=True).encode()) if template else None
