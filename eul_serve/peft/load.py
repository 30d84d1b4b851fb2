"""A base model with a bundle on top, each checked against the other."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from eul_serve.format import fingerprint, read_bundle

_MODELS = {"CAUSAL_LM": AutoModelForCausalLM, "SEQ_2_SEQ_LM": AutoModelForSeq2SeqLM}


def load(
    model_dir: Path,
    bundle_dir: Path,
    *,
    adapter_name: str = "default",
    dtype: torch.dtype = torch.float32,
    is_trainable: bool = False,
) -> PeftModel:
    """Load a base model and a bundle made for it; plain `PeftModel.from_pretrained` cannot check that they match.

    Args:
        model_dir: Local directory of the base model.
        bundle_dir: Directory of the bundle.
        adapter_name: Name of the adapter in the PEFT model.
        dtype: dtype of the base model; the layers stay float32.
        is_trainable: Whether the layers get gradients.

    Returns:
        The model in eval mode, with the adapter active.

    Raises:
        InputError: A directory is missing or not what it should be.
        BundleFormatError: The bundle breaks the format.
        BundleMismatchError: The bundle was made for another base model.
    """
    bundle = read_bundle(bundle_dir, fingerprint(model_dir))
    model = _MODELS[bundle.config.task_type].from_pretrained(model_dir, dtype=dtype, local_files_only=True)
    return PeftModel.from_pretrained(model, bundle_dir, adapter_name=adapter_name, is_trainable=is_trainable).eval()
