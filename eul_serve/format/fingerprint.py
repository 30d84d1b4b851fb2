"""The identity of a base model, computed from its files and never read from a config's word."""

from __future__ import annotations

import hashlib
import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

from eul_serve.errors import BundleFormatError, InputError
from eul_serve.format.base import BaseModel
from eul_serve.format.config import parse_object
from eul_serve.format.digest import digest_bytes, digest_file, reading
from eul_serve.format.header import parse_header

_DTYPES = {
    "F64": 8, "F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
_ARCHITECTURE = (
    "activation_function", "architectures", "attention_bias", "attention_multiplier", "attn_logit_softcapping", "d_ff",
    "d_kv", "d_model", "embedding_multiplier", "feed_forward_proj", "final_logit_softcapping", "head_dim", "hidden_act",
    "hidden_activation", "hidden_size", "intermediate_size", "layer_norm_eps", "layer_norm_epsilon", "layer_types",
    "logits_scaling", "max_window_layers", "mlp_bias", "model_type", "n_embd", "n_head", "n_inner", "n_layer",
    "num_attention_heads", "num_decoder_layers", "num_heads", "num_hidden_layers", "num_key_value_heads", "num_layers",
    "partial_rotary_factor", "query_pre_attn_scalar", "relative_attention_max_distance",
    "relative_attention_num_buckets", "reorder_and_upcast_attn", "residual_multiplier", "rms_norm_eps",
    "rope_parameters", "rope_scaling", "rope_theta", "scale_attn_by_inverse_layer_idx", "scale_attn_weights",
    "sliding_window", "tie_word_embeddings", "use_sliding_window", "vocab_size",
)  # fmt: skip
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "merges.txt", "special_tokens_map.json",
    "added_tokens.json",
)  # fmt: skip
_CHUNK = 1 << 20
_MAX_JSON_BYTES = 64 << 20


def read_base(model: Path) -> BaseModel:
    """Identify a base model in a local Hugging Face directory.

    Args:
        model: Directory with `config.json`, safetensors weights and a tokenizer.

    Returns:
        Fingerprint, architecture, and digests of tokenizer and chat template.

    Raises:
        InputError: The directory is not a model, or its weights are not safetensors.
    """
    architectures = read_model_config(model).get("architectures") or ["unknown"]
    if not isinstance(architectures, list) or not isinstance(architectures[0], str):
        raise InputError(f"model {str(model)!r}: architectures: expected class names, found {architectures!r:.100}")
    return BaseModel(
        fingerprint=fingerprint(model),
        architecture=architectures[0],
        tokenizer=_tokenizer_digest(model),
        chat_template=_template_digest(model),
    )


def fingerprint(model: Path) -> str:
    """Return sha256 over the sorted (tensor name, shape, dtype, sha256) and the architecture fields of a model.

    Args:
        model: Directory of the model.

    Returns:
        The fingerprint, `sha256:<hex>`.

    Raises:
        InputError: The directory is not a model, or its weights are not safetensors.
    """
    config = read_model_config(model)
    files = sorted(model.glob("*.safetensors"))
    if not files:
        raise InputError(f"model {str(model)!r}: expected *.safetensors weights, found none; convert the model first")
    rows = sorted(row for path in files for row in _tensor_rows(model, path))
    if twice := [row[0] for row, following in pairwise(rows) if row[0] == following[0]]:
        raise InputError(f"model {str(model)!r}: tensor {twice[0][:200]!r} is in two files; remove one of them")
    fields = {key: config[key] for key in _ARCHITECTURE if config.get(key) is not None}
    return digest_bytes(json.dumps([fields, rows], sort_keys=True, separators=(",", ":")).encode())


def read_model_config(model: Path) -> dict[str, Any]:
    """Read `config.json` of a model directory.

    Args:
        model: Directory of the model.

    Returns:
        The config as JSON.

    Raises:
        InputError: The directory or the file is missing, or not JSON.
    """
    if not os.path.isfile(model / "config.json"):
        raise InputError(
            f"model {str(model)!r}: expected a local model directory with config.json; "
            "make one with: eul-train base --out DIR"
        )
    return _read_json(model, "config.json")


def _read_json(model: Path, name: str) -> dict[str, Any]:
    try:
        return parse_object(_read(model / name), name)
    except BundleFormatError as error:
        raise InputError(f"model {str(model)!r}: {error}") from error


def _read(path: Path) -> bytes:
    with reading(_resolve(path)) as file:
        data = file.read(_MAX_JSON_BYTES + 1)
    if len(data) > _MAX_JSON_BYTES:
        raise InputError(f"file {str(path)!r}: expected at most {_MAX_JSON_BYTES} bytes")
    return data


def _resolve(path: Path) -> Path:
    # A hub snapshot links its files into a blob store, so links are resolved here; a bundle's are refused.
    return Path(os.path.realpath(path))


def _tensor_rows(model: Path, path: Path) -> list[tuple[str, list[int], str, str]]:
    rows = []
    with reading(_resolve(path)) as file:
        try:
            header = parse_header(file, path.name, _DTYPES)
        except BundleFormatError as error:
            raise InputError(f"model {str(model)!r}: {error}") from error
        for name, entry in header.tensors.items():
            file.seek(entry.begin)
            state, left = hashlib.sha256(), entry.end - entry.begin
            while left:
                data = file.read(min(left, _CHUNK))
                if not data:
                    raise InputError(f"file {str(path)!r}: ended early; it was changed while it was read")
                state.update(data)
                left -= len(data)
            rows.append((name, list(entry.shape), entry.dtype, state.hexdigest()))
    return rows


def _tokenizer_digest(model: Path) -> str:
    parts = [(name, digest_file(_resolve(model / name))) for name in _TOKENIZER_FILES if os.path.isfile(model / name)]
    if not parts:
        raise InputError(f"model {str(model)!r}: expected a tokenizer (tokenizer.json or the like), found none")
    return digest_bytes(json.dumps(parts).encode())


def _template_digest(model: Path) -> str | None:
    if os.path.isfile(model / "chat_template.jinja"):
        return digest_bytes(_read(model / "chat_template.jinja"))
    if not os.path.isfile(model / "tokenizer_config.json"):
        return None
    template = _read_json(model, "tokenizer_config.json").get("chat_template")
    if isinstance(template, str):  # the same text gives the same digest wherever it is kept
        return digest_bytes(template.encode("utf-8", "surrogatepass"))
    return digest_bytes(json.dumps(template, sort_keys=True).encode()) if template else None
