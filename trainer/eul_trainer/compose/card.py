"""The model card of a composite. No path, no clock time, no data."""

from __future__ import annotations

from collections.abc import Mapping

from eul_serve.format import Bundle
from eul_trainer.compose.fine_tune import FineTune
from eul_trainer.compose.recall import Recall

_CARD = """\
# Composite: a fine-tune that keeps {count} forgotten

A bundle with a tenant's LoRA beside it. A fine-tune can bring back what was forgotten, so the two are one revision, and
this one was measured before it was written. An engine applies both; PEFT loads neither from here: load the parts.

| | |
|---|---|
| bundle | `{bundle}`, rank {rank} |
| fine-tune | `{fine_tune}`, rank {lora_rank}, on {targets} |

## Measured

Mean answer loss in nats.

| rows | base model | bundle | fine-tune | both |
|---|---|---|---|---|
{rows}
"""


def composite_card(
    bundle: Bundle, fine_tune: FineTune, found: Mapping[str, Recall], settings: Mapping[str, str]
) -> str:
    """Return the card's Markdown.

    Args:
        bundle: The bundle.
        fine_tune: The fine-tune.
        found: Losses by request.
        settings: The digests of both.

    Returns:
        Markdown.
    """
    requests = len(bundle.manifest.requests)
    return _CARD.format(
        count="one deletion request" if requests == 1 else f"{requests} deletion requests",
        bundle=settings["bundle"],
        rank=bundle.config.rank,
        fine_tune=settings["fine_tune"],
        lora_rank=fine_tune.config.rank,
        targets=", ".join(f"`{target}`" for target in fine_tune.config.target_modules),
        rows="\n".join(
            f"| {name} | {one.base:.3f} | {one.bundle:.3f} | {one.fine_tune:.3f} | {one.both:.3f} |"
            for name, one in found.items()
        ),
    )
