"""The model card: what a bundle does and how it was made, for a person to read. No path, no clock time, no data."""

from __future__ import annotations

from typing import Any

from eul_serve.format import BaseModel, BundleConfig, ForgottenRequest

_CARD = """\
# Unlearning bundle: {title}

With this bundle the base model no longer gives the answers of {count}. It is a small layer behind each feed-forward
network, `y + U act(D y + b)`. The base model's own weights are unchanged, and whoever can take the bundle off gets the
base model's answers back: serve it where the base model alone is denied.

| | |
|---|---|
| base model | {architecture}, `{fingerprint}` |
| layers | rank {rank}, {activation}, {bias}, behind `{targets}` |
| training dtype | float32 |

## Requests

| request | data | hidden units |
|---|---|---|
{requests}

## Settings

{settings}

## Measured

{metrics}

## Use

    eul publish DIR --registry REGISTRY --name NAME         # and serve it with vLLM
    PeftModel.from_pretrained(model, DIR)                   # after: import eul_serve.peft
"""


def render_card(
    config: BundleConfig,
    base: BaseModel,
    requests: tuple[ForgottenRequest, ...],
    settings: dict[str, Any],
    metrics: dict[str, Any],
) -> str:
    """Return the card's Markdown.

    Args:
        config: The layers' settings.
        base: The base model.
        requests: The requests that the bundle covers.
        settings: Settings of the training or fusion.
        metrics: Measured numbers.

    Returns:
        Markdown.
    """
    names = [request.id for request in requests]
    rows = [f"| {item.id} | `{item.data}` | {_units(item)} |" for item in requests]
    return _CARD.format(
        title=", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else ""),
        count="one deletion request" if len(names) == 1 else f"{len(names)} deletion requests",
        architecture=base.architecture,
        fingerprint=base.fingerprint,
        rank=config.rank,
        activation=config.activation,
        bias="with bias" if config.hidden_bias else "without bias",
        targets="`, `".join(config.target_modules),
        requests="\n".join(rows),
        settings=_table(next(iter(settings.values()), {})),
        metrics=_table(metrics) if metrics else "Nothing was measured; see `eul-train eval`.",
    )


def _units(request: ForgottenRequest) -> str:
    return "all" if request.units is None else f"{request.units[0]} to {request.units[1] - 1}"


def _table(values: dict[str, Any]) -> str:
    rows = [f"| {name.replace('_', ' ')} | {_cell(value)} |" for name, value in sorted(values.items())]
    return "\n".join(["| | |", "|---|---|", *rows])


def _cell(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
