"""Small random stand-ins for the hub models that vLLM's tests name, in a hub cache of their own.

What vLLM does with an adapter does not depend on what was trained into it: the same names and layouts of tensors are
enough for tests that load, count, pin and evict adapters.
"""

from __future__ import annotations

from pathlib import Path

COMMIT = "0" * 40
BASE = "Qwen/Qwen3-0.6B"
QWEN3_LORA = "charent/self_cognition_Alice"
LLAMA_LORA = "jeeejeee/llama32-3b-text2sql-spider"
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
HEADS = ["embed_tokens", "lm_head"]


def make_hub(hub: Path) -> Path:
    """Write the stand-ins and return the hub cache."""
    if not hub.exists():
        part = hub.with_name(f"{hub.name}.part")
        base = snapshot(part, BASE)
        make_base(base)
        make_lora(base, snapshot(part, QWEN3_LORA), TARGETS)
        make_lora(base, snapshot(part, LLAMA_LORA), TARGETS + HEADS)
        part.rename(hub)
    return hub


def snapshot(hub: Path, name: str) -> Path:
    """Return the folder of a model's files in a hub cache."""
    root = hub / f"models--{name.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / "main").write_text(COMMIT)
    folder = root / "snapshots" / COMMIT
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def make_base(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=4096, tie_word_embeddings=True,
    )  # fmt: skip
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    inner = Tokenizer(models.WordLevel({"<unk>": 0, "<end>": 1, **{f"w{n}": n for n in range(2, 512)}}, "<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="<end>").save_pretrained(folder)


def make_lora(base: Path, folder: Path, targets: list[str]) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    config = LoraConfig(r=8, lora_alpha=32, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
