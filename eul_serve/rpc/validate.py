"""The limits of a request, and what a caller reads who passes one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from eul_serve.engine.base import Constraint, Prompt, Sampling
from eul_serve.errors import InputError

MAX_TEMPERATURE = 2.0
MAX_TOP_K = 1 << 20
MAX_SEED = (1 << 63) - 1
MAX_STOPS = 8
MAX_STOP_CHARACTERS = 128
MAX_SAMPLES = 8
MAX_BEAMS = 8
MAX_BIAS = 100.0
MAX_BIASED = 256
MAX_ALLOWED = 4096
CHOICES = (1, 64)
MAX_CHOICE_CHARACTERS = 256
MAX_CONSTRAINT_CHARACTERS = 16_384
MAX_MESSAGES = 256
LABELS = (2, 64)
MAX_LABEL_CHARACTERS = 256
# No tokenizer in use packs more text than this into a token on average; longer prompts are refused unread.
CHARACTERS_PER_TOKEN = 64


def check_sampling(sampling: Sampling) -> None:
    """Return when every setting is in its range.

    Args:
        sampling: The settings.

    Raises:
        InputError: One is not; names it.
    """
    _within("max_tokens", sampling.max_tokens, 1, 1 << 20)
    _within("temperature", sampling.temperature, 0.0, MAX_TEMPERATURE)
    _within("top_k", sampling.top_k, 0, MAX_TOP_K)
    if sampling.seed is not None:
        _within("seed", sampling.seed, 0, MAX_SEED)
    if not 0 < sampling.top_p <= 1:
        raise InputError(f"sampling.top_p: expected above 0 to 1, found {sampling.top_p:g}")
    _check_choices(sampling)
    if len(sampling.stop) > MAX_STOPS:
        raise InputError(f"sampling.stop: expected at most {MAX_STOPS} texts, found {len(sampling.stop)}")
    for text in sampling.stop:
        if not 1 <= len(text) <= MAX_STOP_CHARACTERS:
            raise InputError(f"sampling.stop: expected 1 to {MAX_STOP_CHARACTERS} characters, found {len(text)}")


def _check_choices(sampling: Sampling) -> None:
    """Check what narrows, bends or multiplies the choice of tokens."""
    _within("samples", sampling.samples, 1, MAX_SAMPLES)
    if sampling.samples > 1 and not sampling.temperature:
        raise InputError("sampling.samples: several greedy answers are one; give a temperature above 0, or ask for 1")
    if sampling.beams:
        _check_beams(sampling)
    _within("logit_bias", len(sampling.logit_bias), 0, MAX_BIASED)
    for bias in sampling.logit_bias.values():
        _within("logit_bias", bias, -MAX_BIAS, MAX_BIAS)
    _within("allowed_tokens", len(sampling.allowed_tokens), 0, MAX_ALLOWED)
    if sampling.constraint is not None:
        _check_constraint(sampling.constraint)


def _check_beams(sampling: Sampling) -> None:
    """Check that nothing else is asked for that a search over whole answers can not do."""
    _within("beams", sampling.beams, 2, MAX_BEAMS)
    others = {
        "temperature": sampling.temperature > 0,
        "samples": sampling.samples > 1,
        "stop": bool(sampling.stop),
        "logit_bias": bool(sampling.logit_bias),
        "allowed_tokens": bool(sampling.allowed_tokens),
        "constraint": sampling.constraint is not None,
        "prompt_logprobs": sampling.prompt_logprobs,
    }
    for name, is_asked in others.items():
        if is_asked:
            raise InputError(f"sampling.beams: goes without sampling.{name}; leave one of the two out")


def _check_constraint(constraint: Constraint) -> None:
    (least, most), longest = ((1, 1), MAX_CONSTRAINT_CHARACTERS)
    if constraint.kind == "choice":
        (least, most), longest = CHOICES, MAX_CHOICE_CHARACTERS
    name = f"constraint.{constraint.kind}"
    _within(name, len(constraint.texts), least, most)
    for text in constraint.texts:
        if not 1 <= len(text) <= longest:
            raise InputError(f"sampling.{name}: expected 1 to {longest} characters, found {len(text)}")


def check_prompt(prompt: Prompt, max_context: int) -> None:
    """Return when a prompt is worth tokenizing.

    Args:
        prompt: The prompt.
        max_context: Longest prompt and answer together, in tokens.

    Raises:
        InputError: It is empty, or certainly too long.
    """
    if isinstance(prompt, str):
        size, limit, what = len(prompt), max_context * CHARACTERS_PER_TOKEN, "characters"
    elif all(isinstance(part, int) for part in prompt):
        size, limit, what = len(prompt), max_context - 1, "tokens"
    else:
        size, limit, what = len(prompt), MAX_MESSAGES, "messages"
    if size > limit:
        raise InputError(f"prompt: {size} {what}, but this server reads at most {limit}; shorten it")
    if not size:
        raise InputError("prompt: it is empty; give text, chat messages or token ids")


def check_length(tokens: int, max_context: int) -> None:
    """Return when a prompt leaves room for an answer of one token.

    Args:
        tokens: Tokens of the prompt.
        max_context: Longest prompt and answer together, in tokens.

    Raises:
        InputError: It does not, or it has no tokens.
    """
    if not tokens:
        raise InputError("prompt: it has no tokens; give text, chat messages or token ids")
    if tokens >= max_context:
        raise InputError(
            f"prompt: {tokens} tokens, but prompt and answer together have at most {max_context}; shorten the prompt"
        )


def fit(sampling: Sampling, tokens: int, max_context: int) -> Sampling:
    """Return the settings with max_tokens cut to what the context still holds."""
    return replace(sampling, max_tokens=min(sampling.max_tokens, max_context - tokens))


def check_labels(labels: Sequence[str]) -> None:
    """Return when there is a choice between different, readable labels.

    Args:
        labels: The labels.

    Raises:
        InputError: There is none.
    """
    least, most = LABELS
    if not least <= len(labels) <= most:
        raise InputError(f"labels: expected {least} to {most}, found {len(labels)}")
    if len(set(labels)) != len(labels):
        raise InputError("labels: one occurs twice; give different texts")
    for label in labels:
        if not 1 <= len(label) <= MAX_LABEL_CHARACTERS:
            raise InputError(f"labels: expected 1 to {MAX_LABEL_CHARACTERS} characters, found {len(label)}")


def _within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise InputError(f"sampling.{name}: expected {least:g} to {most:g}, found {value:g}")
