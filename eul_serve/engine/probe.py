"""The proof at start that bundles are applied, by a bundle whose answer is known in closed form.

Each block's layer has one unit that is always on (D = 0, b = 1) and adds a huge constant vector v_i to the residual
stream. Against their sum everything the model itself computes is rounding error, so the final hidden state is that of
sum(v_i), and the log-probabilities follow from the final norm and the output head as they stand in the model's files,
with no second run of the model. A block whose layer does not run takes its v_i out of the sum and shows.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from eul_serve.engine.model_files import read_tensor
from eul_serve.engine.settings import EngineSettings
from eul_serve.errors import EngineError, InputError
from eul_serve.format import Bundle, BundleConfig, ForgottenRequest, Manifest, describe_files, read_base, write_bundle
from eul_serve.format.digest import digest_bytes
from eul_serve.format.fingerprint import read_model_config
from eul_serve.format.weights import LayerWeights, dump_layers

ARCHITECTURES = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "GemmaForCausalLM",
    "Qwen2MoeForCausalLM",
    "Qwen3MoeForCausalLM",
)
"""Models whose answer the closed form knows: residual blocks, a final RMS norm, a linear head.

Gemma 2 and 3 are not among them: they norm a block's output before it is added, so that no constant outweighs the rest.
"""
NORM_OFFSET = {"GemmaForCausalLM": 1.0}
"""What is added to the stored weights of the final norm."""
SIZE = {"float32": 2.0**20, "bfloat16": 2.0**20, "float16": 2.0**11}
"""Size of the constants, as large as the dtype's range lets them be."""
TOLERANCE = {"float32": 2e-3, "bfloat16": 0.5, "float16": 0.2}
"""Largest difference of a log-probability, in nats."""
_SEED = 20231206


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe bundle and the answer that it must give."""

    bundle: Bundle
    """The bundle."""
    logprobs: torch.Tensor
    """Expected log-probabilities of the next token after any prompt, (vocabulary)."""
    tolerance: float
    """Largest difference allowed, in nats."""


def make_probe(path: Path, settings: EngineSettings, modules: dict[str, int], fingerprint: str) -> Probe:
    """Write the probe bundle for a model and compute its answer.

    Args:
        path: Directory to make.
        settings: How the engine was started: its model and dtype.
        modules: Width of every wrapped module, by path.
        fingerprint: Fingerprint that the engine's bundles must name.

    Returns:
        The probe.

    Raises:
        InputError: The model's layout is not one whose answer is known.
    """
    model, dtype = settings.model, settings.dtype
    base = replace(read_base(model), fingerprint=fingerprint)
    if base.architecture not in ARCHITECTURES:
        raise InputError(
            f"model {str(model)!r}: architecture: expected one of {', '.join(ARCHITECTURES)}, found "
            f"{base.architecture}; for others the engine cannot prove at start that bundles are applied"
        )
    generator = torch.Generator().manual_seed(_SEED)
    constants = {
        module: (torch.randn(width, generator=generator) * SIZE[dtype]).to(getattr(torch, dtype))
        for module, width in modules.items()
    }
    config = BundleConfig(rank=1, base_fingerprint=base.fingerprint)
    layers = {
        module: LayerWeights(torch.zeros(1, len(constant)), constant.float().unsqueeze(1), torch.ones(1))
        for module, constant in constants.items()
    }
    files = {
        "adapter_config.json": config.to_bytes(),
        "adapter_model.safetensors": dump_layers(layers),
        "README.md": b"A probe of the engine; it forgets nothing.\n",
    }
    request = ForgottenRequest(id="probe", data=digest_bytes(b""), units=None)
    bundle = write_bundle(path, Manifest(base=base, requests=(request,), files=describe_files(files)), files)
    total = torch.stack([constant.double() for constant in constants.values()]).sum(0)
    return Probe(bundle, _answer(model, total, NORM_OFFSET.get(base.architecture, 0.0)), TOLERANCE[dtype])


def _answer(model: Path, hidden: torch.Tensor, offset: float) -> torch.Tensor:
    """Return the log-probabilities that a final hidden state (d) leads to."""
    norm = read_tensor(model, "model.norm.weight")
    tied = bool(read_model_config(model).get("tie_word_embeddings", False))
    head = None if tied else read_tensor(model, "lm_head.weight")
    if head is None:
        head = read_tensor(model, "model.embed_tokens.weight")
    if norm is None or head is None:
        raise InputError(f"model {str(model)!r}: expected model.norm.weight and an output head, found none")
    normed = hidden * hidden.square().mean().rsqrt()
    return torch.log_softmax((head @ (normed.float() * (norm + offset))).double(), 0)


def compare(probe: Probe, found: dict[int, float]) -> None:
    """Check the engine's most likely tokens against the probe's answer.

    Args:
        probe: The probe.
        found: Log-probability in nats by token, as the engine gave them under the probe bundle.

    Raises:
        EngineError: A log-probability differs, or there are none.
    """
    if not found:
        raise EngineError("probe: expected log-probabilities from the engine, found none")
    for token, value in found.items():
        expected = float(probe.logprobs[token])
        if not abs(value - expected) <= probe.tolerance:
            raise EngineError(
                f"probe: token {token}: log-probability: expected {expected:.4f}, found {value:.4f}; bundles are not "
                "applied as they should be in this engine, so it does not serve"
            )


class ProbeDirectory:
    """A directory for the probe bundle, removed at the end."""

    def __init__(self, root: Path | None) -> None:
        """Choose the place: under the verified cache where there is one, as workers load from nowhere else."""
        self._root = root

    def __enter__(self) -> Path:
        if self._root is not None:
            self._root.mkdir(parents=True, exist_ok=True)
        made = tempfile.mkdtemp(prefix=".probe-", dir=self._root)
        self._path = Path(made if self._root is not None else os.path.realpath(made))
        return self._path / "bundle"

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)
