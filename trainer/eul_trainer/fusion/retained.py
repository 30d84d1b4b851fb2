"""The retain Gram: second moments of all members' hidden units on retained rows, on the base model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from eul_serve.errors import BundleMismatchError
from eul_serve.format import Bundle
from eul_serve.peft import eul_layers
from eul_trainer.adapter import fresh_layers
from eul_trainer.encoding import context_limit, encode
from eul_trainer.forward import Runner
from eul_trainer.fusion.concat import concat
from eul_trainer.fusion.members import Member
from eul_trainer.model import LoadedModel
from eul_trainer.records import Row, digest_rows
from eul_trainer.statistics import second_moments


@dataclass(slots=True, kw_only=True)
class RetainGram:
    """Retained rows and the base model to measure them on."""

    model: LoadedModel
    """The base model; its modules are wrapped in place."""
    rows: Sequence[Row]
    """Retained rows."""
    tokens: int = field(default=0, init=False)
    """Tokens of the rows, prompts included."""

    @property
    def digest(self) -> str:
        """Digest of the rows."""
        return digest_rows(self.rows)

    def measure(self, members: Sequence[Member], like: Bundle) -> dict[str, torch.Tensor]:
        """Return R by module path, (N r, N r), its units in the order of the members.

        Args:
            members: The layers.
            like: One of their bundles, for its settings.

        Returns:
            Mean second moments per token.

        Raises:
            BundleMismatchError: The layers were made for another base model.
        """
        if like.config.base_fingerprint != self.model.base.fingerprint:
            raise BundleMismatchError(
                f"bundle {str(like.path)!r}: made for base model {like.config.base_fingerprint}, but --model is "
                f"{self.model.base.fingerprint}; name the model that the layers were trained on"
            )
        layers = concat(members)
        rank = len(next(iter(layers.values())).down)
        # Fresh layers have U = 0: what they see is the base model, whatever D is.
        peft = fresh_layers(self.model, replace(like.config, rank=rank), init_seed=0)
        with torch.no_grad():
            for path, layer in eul_layers(peft).items():
                mine = layer.weights("default")  # shares memory with the parameters
                mine.down.copy_(layers[path].down)
                if mine.bias is not None and (bias := layers[path].bias) is not None:
                    mine.bias.copy_(bias)
        examples = encode(self.model.tokenizer, self.rows, limit=context_limit(self.model.network))
        self.tokens = sum(example.length - 1 for example in examples)
        moments = second_moments(Runner(self.model, examples), peft, examples, whole_rows=True)
        return {module: found.units for module, found in moments.items()}
