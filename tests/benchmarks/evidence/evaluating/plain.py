"""The evaluation one row at a time, as the published scripts do it. The numbers are those of the product's evaluator.

What each piece stands for:

- One row, one forward pass, logits of the whole row: OpenUnlearning's evaluation of probability, memorisation and
  membership with its batches of one, and TOFU's `evaluate_util.py`, whose losses come from the logits of whole rows.
- The paraphrased and each perturbed answer have a pass of their own, question included, as in both.
- The greedy answer by transformers' `generate`, with its key-value cache.
- Every system is evaluated by itself, as by one call of a script for each checkpoint. How far a bundle moved the
  predictions is read against the base model's pass over the same row, as with a reference model beside it.
- An answer is judged under the base model by one more pass, as perplexity of generations is, and a strange one by two.

Nothing is slower than those need: the token distributions are made at answer positions alone, the variants get a loss
and no more, the answer of a row that is its own paraphrase is not run again, and no text is tokenised twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from eul_trainer.evaluation.ratios import variants
from eul_trainer.evaluation.roles import BASE
from eul_trainer.evaluation.systems import Systems
from eul_trainer.forward.encoding import Example, encode, encode_alone
from eul_trainer.metrics.exact_memorisation import exact_memorisation
from eul_trainer.metrics.extraction_strength import extraction_strength
from eul_trainer.metrics.gibberish import STRANGE, is_gibberish
from eul_trainer.metrics.result import Result
from eul_trainer.metrics.rouge import rouge_f1, rouge_l_recall
from eul_trainer.metrics.truth_ratio import RATIOS
from eul_trainer.records import Row
from evaluating.clock import Clock

LIMIT = 2048
"""Tokens of a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What membership inference reads of an answer's tokens, each (T,)."""

    logprobs: torch.Tensor
    ranks: torch.Tensor
    means: torch.Tensor
    deviations: torch.Tensor


class PlainEvaluator:
    """Evaluates systems one after another, and each one row after another."""

    def __init__(self, systems: Systems, tokens: int) -> None:
        self.systems, self.tokens, self.clock = systems, tokens, Clock()
        self.views: dict[str, list[Tokens]] = {}

    def evaluate(self, rows: Sequence[Row]) -> dict[str, list[Result]]:
        """Return each system's results, in the order of the rows."""
        return {name: [self._row(name, row) for row in rows] for name in self.systems.revisions}

    def _row(self, name: str, row: Row) -> Result:
        with self.clock.of("scoring"):
            logprobs, targets = self._logprobs(name, row)
            view = _tokens(logprobs, targets)
            divergence = None if name == BASE else _divergence(self._logprobs(BASE, row)[0], logprobs)
            loss = -view.logprobs.mean().item()
            ratios = self._ratios(name, row, loss)
        with self.clock.of("answering"):
            answer = self._answer(name, row)
        with self.clock.of("scoring"):
            strangeness = self._strangeness(row.prompt, answer) if answer else math.inf
        self.views.setdefault(name, []).append(view)
        first = [rank == 0 for rank in view.ranks.tolist()]
        return Result(
            loss=loss,
            accuracy=exact_memorisation(first),
            extraction_strength=extraction_strength(first),
            divergence=divergence,
            rouge_l=rouge_l_recall(row.completion, answer),
            rouge_l_f1=rouge_f1(row.completion, answer)["rougeL"],
            gibberish=is_gibberish(answer, strangeness),
            answer=answer,
            truth_ratio=ratios["geometric"],
            truth_ratio_arithmetic=ratios["arithmetic"],
        )

    def _ratios(self, name: str, row: Row, loss: float) -> dict[str, float]:
        right, *wrong = (loss if other == _bare(row) else self._loss(name, other) for other in variants(row))
        return {kind: ratio(right, wrong) for kind, ratio in RATIOS.items()}

    def _example(self, row: Row) -> Example:
        return encode(self.systems.model.tokenizer, [row], limit=LIMIT)[0]

    def _strangeness(self, prompt: str, answer: str) -> float:
        row = Row(prompt=prompt, completion=answer)
        if (loss := self._loss(BASE, row)) <= STRANGE:
            return loss
        alone = encode_alone(self.systems.model.tokenizer, [row], limit=LIMIT)[0]
        return min(loss, self._example_loss(BASE, alone))

    @torch.no_grad()
    def _logits(self, name: str, example: Example) -> torch.Tensor:
        with self.systems.on(name):
            ids = torch.tensor([[*example.prompt, *example.answer]], device=self.systems.model.device)
            logits: torch.Tensor = self.systems.model.network(input_ids=ids, use_cache=False).logits[0]
        return logits[len(example.prompt) - 1 : -1].float()

    def _logprobs(self, name: str, row: Row) -> tuple[torch.Tensor, torch.Tensor]:
        example = self._example(row)
        logits = self._logits(name, example)
        return logits.log_softmax(1), torch.tensor(example.answer, device=logits.device)

    def _loss(self, name: str, row: Row) -> float:
        return self._example_loss(name, self._example(row))

    def _example_loss(self, name: str, example: Example) -> float:
        logits = self._logits(name, example)
        return functional.cross_entropy(logits, torch.tensor(example.answer, device=logits.device)).item()

    @torch.no_grad()
    def _answer(self, name: str, row: Row) -> str:
        model = self.systems.model
        ids = torch.tensor([self._example(row).prompt], device=model.device)
        with self.systems.on(name):
            found = model.network.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=self.tokens,
                do_sample=False,
                top_p=None,
                top_k=None,
                use_cache=True,
                pad_token_id=model.tokenizer.pad_token_id,
            )
        text: str = model.tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True)
        return text.strip()


def _bare(row: Row) -> Row:
    return Row(prompt=row.prompt, completion=row.completion)


def _tokens(logprobs: torch.Tensor, targets: torch.Tensor) -> Tokens:
    chances = logprobs.exp()
    means = (chances * logprobs).sum(1)
    chosen = logprobs.gather(1, targets[:, None])[:, 0]
    return Tokens(
        logprobs=chosen,
        ranks=(logprobs > chosen[:, None]).sum(1),
        means=means,
        deviations=((chances * logprobs.square()).sum(1) - means.square()).clamp_min(0).sqrt(),
    )


def _divergence(base: torch.Tensor, found: torch.Tensor) -> float:
    return functional.kl_div(found, base, reduction="none", log_target=True).sum(1).mean().item()
