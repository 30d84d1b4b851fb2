"""The PEFT config of an unlearning layer. Saved, it is byte for byte the bundle's `adapter_config.json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peft import PeftConfig

from eul_serve.errors import BundleFormatError, InputError
from eul_serve.format.bundle import CONFIG_FILE
from eul_serve.format.config import FORMAT_VERSION, BundleConfig
from eul_serve.format.files import read_text
from eul_serve.format.lora import LORA_CONFIG_FILE
from eul_serve.peft.method import EUL

_UNSET_FINGERPRINT = "sha256:" + 64 * "0"


@dataclass
class EulConfig(PeftConfig):  # type: ignore[misc]  # peft has no types
    """Settings of an unlearning layer, in the names that PEFT and `adapter_config.json` use."""

    task_type: str | None = "CAUSAL_LM"
    """PEFT's task type: CAUSAL_LM or SEQ_2_SEQ_LM."""
    r: int = 16
    """Hidden units per layer, 1 to 4096."""
    activation: str = "relu"
    """Activation between the projections: relu, gelu or silu."""
    hidden_bias: bool = True
    """Whether each layer has a bias before the activation."""
    target_modules: list[str] | set[str] | str | None = None
    """Last parts of the paths of the wrapped modules; None picks them by the model's type."""
    base_fingerprint: str = ""
    """Fingerprint of the base model, `sha256:<hex>`; needed to save, not to train."""
    format_version: int = FORMAT_VERSION
    """Version of the bundle format."""
    bias: str = "none"
    """PEFT's own field: which biases of the base model train. Always "none"."""
    init_seed: int = field(default=0, repr=False)
    """Seed from which every layer's D is drawn, together with the path of its module. Not saved."""

    def __post_init__(self) -> None:
        self.task_type = self.task_type or "CAUSAL_LM"
        super().__post_init__()
        self.peft_type = EUL
        if self.format_version != FORMAT_VERSION or self.bias != "none":
            raise BundleFormatError(
                f"EulConfig: expected format_version {FORMAT_VERSION} and bias 'none', "
                f"found {self.format_version!r} and {self.bias!r}"
            )
        if isinstance(self.target_modules, str):
            self.target_modules = [self.target_modules]
        self._checked(self.base_fingerprint or _UNSET_FINGERPRINT)

    def bundle_config(self) -> BundleConfig:
        """Return the same settings as the format's own class.

        Returns:
            The settings, checked.

        Raises:
            InputError: No base fingerprint or no target modules are set.
            BundleFormatError: A setting is not acceptable.
        """
        if not self.base_fingerprint:
            raise InputError(
                "EulConfig.base_fingerprint: expected 'sha256:' and 64 hex digits, found nothing; "
                "set it to eul_serve.format.fingerprint(MODEL_DIR) before saving"
            )
        if not self.target_modules:
            raise InputError("EulConfig.target_modules: expected module names, found none; see ffn_modules(model)")
        return self._checked(self.base_fingerprint)

    def _checked(self, fingerprint: str) -> BundleConfig:
        return BundleConfig(
            rank=self.r,
            base_fingerprint=fingerprint,
            target_modules=tuple(sorted(self.target_modules or ["mlp"])),
            activation=self.activation,
            hidden_bias=self.hidden_bias,
            task_type=str(getattr(self.task_type, "value", self.task_type)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the keys of `adapter_config.json` and no others: no path, no version of PEFT."""
        return self.bundle_config().to_json()

    def save_pretrained(self, save_directory: str, **kwargs: object) -> None:
        """Write `adapter_config.json`, equal to `BundleConfig.to_bytes()`.

        Args:
            save_directory: Directory to write to; made when missing.
            **kwargs: PEFT's further settings; none of them changes the file.

        Raises:
            InputError: The settings are not complete.
        """
        data = self.bundle_config().to_bytes()
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        (Path(save_directory) / CONFIG_FILE).write_bytes(data)

    @classmethod
    def from_json_file(cls, path_json_file: str, **kwargs: object) -> dict[str, Any]:
        """Read `adapter_config.json` with every check of the format.

        Args:
            path_json_file: Path of the file.
            **kwargs: Not used.

        Returns:
            The keyword arguments of this class.

        Raises:
            InputError: The file is missing, or lies in a composite.
            BundleFormatError: It breaks the format.
        """
        if Path(path_json_file).with_name(LORA_CONFIG_FILE).exists():
            raise InputError(
                f"bundle {str(Path(path_json_file).parent)!r}: a composite, of which PEFT would load one half; "
                "load the bundle and the fine-tune that it was made of"
            )
        return BundleConfig.from_bytes(read_text(Path(path_json_file))).to_json()
