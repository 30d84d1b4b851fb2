"""Greedy text in bfloat16: how often our engine parts from transformers with PEFT, beside how often base vLLM does.

    python tests/benchmarks/engine/bench_bfloat16.py --model MODEL --bundle BUNDLE [--prompts 200] [--tokens 64] \
        [--threads N] [--out docs/benchmarks/engine]

One engine answers every prompt twice in the same batches, without and with the bundle; transformers answers in bfloat16
without and with it in PEFT. Two programs that sum in another order part where two tokens are nearly tied: each parting
is judged by the gap of the two tokens in float32. The prompts are the demonstration's questions.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1] / "trainer"))  # for `common`, which all benchmarks share

import click
import torch
from common.entry import guarded
from common.machine import describe_machine
from common.output import command_line, deliver
from measuring.divergence import Parting, Tokens, greedy, partings

import eul_serve.peft
import eul_trainer.demo
from eul_serve.engine.base import ChatMessage, ResidentBundle, Sampling, Work
from eul_serve.engine.settings import EngineSettings
from eul_serve.errors import InputError
from eul_serve.format import Bundle, read_bundle
from eul_trainer.records import read_rows

assert eul_serve.peft  # registers the method
NEAR_TIE = 0.1
"""Gap in float32 below which a parting is a near tie, nats."""
DATA = Path(eul_trainer.demo.__file__).parent / "data"


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="directory of the base model")
    parser.add_argument("--bundle", type=Path, required=True, help="directory of a bundle for it")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=64, help="most tokens of an answer")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="directory for bfloat16.json")
    return parser.parse_args(arguments)


def questions(count: int) -> list[str]:
    """Return the first questions of the demonstration's data, each once."""
    names = ("retain.train", "forget_einstein.train", "forget_potter.train", "retain.heldout")
    rows = [row for name in names for row in read_rows(DATA / f"{name}.jsonl")]
    found = list(dict.fromkeys(row.prompt for row in rows))
    if not 1 <= count <= len(found):
        raise InputError(f"--prompts: expected 1 to {len(found)}, found {count}")
    return found[:count]


async def serve(
    chosen: argparse.Namespace, bundle: Bundle, asked: Sequence[str]
) -> tuple[list[Tokens], dict[str, list[Tokens]]]:
    """Return the prompts' tokens and the engine's answers, without and with the bundle."""
    from eul_serve.engine.vllm_engine import VllmEngine

    resident = ResidentBundle(revision=bundle.revision, id=1, path=bundle.path, rank=bundle.config.rank)
    settings = EngineSettings(
        model=chosen.model.absolute(), dtype="bfloat16", max_context=512, slots=1, capacity=2, deny_base=False,
        max_rank=bundle.config.rank, kv_cache_gib=1.0,
    )  # fmt: skip
    engine = await VllmEngine.start(settings)
    try:
        await engine._residents.add(resident)  # a bundle where it lies, without a cache named by digests
        prompts = [engine.encode((ChatMessage(role="user", content=question),)) for question in asked]

        async def ask(number: int, kind: ResidentBundle | None) -> Tokens:
            sampling = Sampling(max_tokens=chosen.tokens)
            job = Work(id=f"{kind}-{number}", token_ids=prompts[number], bundle=kind, salt="s", sampling=sampling)
            return tuple([token async for piece in engine.generate(job) for token in piece.token_ids])

        jobs = [ask(number, kind) for number in range(len(prompts)) for kind in (None, resident)]
        answers = await asyncio.gather(*jobs)
        return prompts, {"base": answers[::2], "bundle": answers[1::2]}
    finally:
        await engine.close()


def load(model: Path, bundle: Bundle | None, dtype: torch.dtype) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).eval()
    return network if bundle is None else PeftModel.from_pretrained(network, str(bundle.path)).eval()


def judge(found: Sequence[Parting], count: int) -> dict[str, Any]:
    """Return one system's entry of the record."""
    gaps = [parting.gap for parting in found]
    return {
        "parted": len(found),
        "share": len(found) / count,
        "gap_nats_median": statistics.median(gaps) if gaps else 0.0,
        "gap_nats_max": max(gaps, default=0.0),
        "near_ties": sum(gap < NEAR_TIE for gap in gaps),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the record."""
    chosen = options(arguments)
    torch.set_num_threads(chosen.threads or torch.get_num_threads())
    bundle, asked = read_bundle(chosen.bundle.absolute()), questions(chosen.prompts)
    prompts, answers = asyncio.run(serve(chosen, bundle, asked))
    systems = {}
    for name, applied in (("base", None), ("bundle", bundle)):
        theirs = greedy(load(chosen.model, applied, torch.bfloat16), prompts, chosen.tokens)
        exact = load(chosen.model, applied, torch.float32)
        systems[name] = judge(partings(exact, prompts, answers[name], theirs), len(prompts))
        click.echo(f"{name}: {systems[name]}", err=True)
    record = {
        "command": command_line("bench_bfloat16.py", sys.argv[1:] if arguments is None else arguments, "engine"),
        "machine": describe_machine(),
        "prompts": len(prompts),
        "tokens": chosen.tokens,
        "systems": systems,
        "bundle_minus_base_points": 100 * (systems["bundle"]["share"] - systems["base"]["share"]),
        "answers_changed_by_the_bundle": sum(a != b for a, b in zip(answers["base"], answers["bundle"], strict=True)),
    }
    deliver(record, chosen.out, "bfloat16")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
