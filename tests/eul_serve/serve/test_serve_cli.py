"""What `eul serve` makes of its options, before it starts anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eul_serve.cli.engine_options import engine_settings
from eul_serve.cli.serve import command, serve_settings
from eul_serve.errors import InputError
from eul_serve.policy import Policy, TenantPolicy

DENIES = Policy(tenants={}, tokens={}, epoch="e")
GRANTS = Policy(tenants={"a": TenantPolicy(name="a", default=None, bundles=(), base=True)}, tokens={}, epoch="e")
MAIN = "from eul_serve.cli.main import main; main()"


def options(tmp_path: Path, *words: str) -> dict[str, Any]:
    """The command's options by name, as click parses them."""
    required = ["--model", str(tmp_path), "--registry", "r", "--policy", "p"]
    context = command.make_context("serve", [*required, *words])
    return {name: value for name, value in context.params.items() if name != "as_json"}


def write_config(tmp_path: Path, **config: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))


def test_the_settings_follow_the_options(tmp_path: Path) -> None:
    words = ["--listen", "[::1]:0", "--cache", "here", "--poll-seconds", "0.5", "--max-tenant-requests", "7"]
    words += ["--canaries", "c.jsonl"]
    settings = serve_settings(options(tmp_path, *words))
    assert str(settings.transport.listen) == "[::1]:0"
    assert settings.cache == Path.cwd() / "here"
    assert settings.canaries == Path("c.jsonl")
    assert (settings.poll_seconds, settings.limits.tenant, settings.limits.total) == (0.5, 7, 256)


@pytest.mark.parametrize(
    ("config", "dtype", "context"),
    [
        ({"dtype": "bfloat16", "max_position_embeddings": 100_000}, "bfloat16", 2048),
        ({"torch_dtype": "float32", "max_position_embeddings": 512}, "float32", 512),
        ({"torch_dtype": "float16"}, "float16", 2048),
    ],
)
def test_auto_is_what_the_model_says(tmp_path: Path, config: dict[str, Any], dtype: str, context: int) -> None:
    write_config(tmp_path, **config)
    settings = engine_settings(options(tmp_path), DENIES)
    assert (settings.dtype, settings.max_context, settings.deny_base) == (dtype, context, True)
    assert settings.bundles == (Path.cwd() / "build/cache")
    given = engine_settings(options(tmp_path, "--dtype", "float32", "--max-context", "99"), GRANTS)
    assert (given.dtype, given.max_context, given.deny_base) == ("float32", 99, False)


SIZES = {"dtype": "float32", "num_hidden_layers": 30, "hidden_size": 576}
# SmolLM2-135M at rank 64 in float32: 30 blocks of D (64, 576), b (64) and U (576, 64), four bytes each.
EACH = 30 * (64 * 576 + 64 + 576 * 64) * 4


@pytest.mark.parametrize(
    ("words", "slots", "capacity"),
    [
        ([], 4, 16),
        (["--slots", "20"], 20, 21),
        (["--slots", "2", "--capacity", "3"], 2, 3),
        (["--slot-memory-gib", str(7.5 * EACH / 2**30)], 7, 16),
        (["--slot-memory-gib", str(7.5 * EACH / 2**30), "--dtype", "bfloat16"], 15, 16),
        (["--slot-memory-gib", str(7.5 * EACH / 2**30), "--pipeline-parallel", "4"], 28, 29),  # 8 of 30 blocks
        (["--slot-memory-gib", str(8.5 * EACH / 2**30), "--max-rank", "33"], 8, 16),  # taken up to 64
        (["--host-memory-gib", str(50.1 * EACH / 2**30)], 4, 50),
    ],
)
def test_a_memory_budget_sets_slots_and_capacity(tmp_path: Path, words: list[str], slots: int, capacity: int) -> None:
    write_config(tmp_path, **SIZES)
    settings = engine_settings(options(tmp_path, *words), DENIES)
    assert (settings.slots, settings.capacity) == (slots, capacity)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--slot-memory-gib", "0.008"], r"expected 0\.00825 GiB or more, for 1 bundles of 8\.44 MiB, found 0\.008"),
        (["--host-memory-gib", "0.03"], "for 5 bundles"),  # four slots, and one to spare
        (["--slot-memory-gib", "-1"], "found -1"),
        (["--slots", "0"], "slots: expected 1 or more"),
        (["--capacity", "0"], "capacity: expected"),
        (["--slots", "2", "--slot-memory-gib", "1"], "expected one of the two"),
    ],
)
def test_a_budget_that_holds_nothing_is_refused(tmp_path: Path, words: list[str], text: str) -> None:
    write_config(tmp_path, **SIZES)
    with pytest.raises(InputError, match=text):
        engine_settings(options(tmp_path, *words), DENIES)


def test_a_model_whose_size_is_not_known_has_no_budget(tmp_path: Path) -> None:
    write_config(tmp_path, dtype="float32")
    with pytest.raises(InputError, match="give --slots instead"):
        engine_settings(options(tmp_path, "--slot-memory-gib", "1"), DENIES)


def test_a_model_that_names_no_dtype(tmp_path: Path) -> None:
    write_config(tmp_path)
    with pytest.raises(InputError, match="--dtype"):
        engine_settings(options(tmp_path), DENIES)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--listen", "nowhere"], "HOST:PORT"),
        (["--listen", "0.0.0.0:0"], "plaintext"),
        (["--tls-cert", "x"], "give both"),
        (["--poll-seconds", "0"], "poll_seconds"),
        (["--policy", "missing.toml"], "missing.toml"),
        ([], "config.json"),
    ],
)
def test_a_wrong_option_is_one_line_and_status_2(tmp_path: Path, words: list[str], text: str) -> None:
    """Without torch or vLLM being imported, so it comes at once."""
    (tmp_path / "policy.toml").write_text("")
    line = [sys.executable, "-c", MAIN, "serve", "--model", str(tmp_path), "--registry", str(tmp_path / "registry")]
    line += ["--policy", str(tmp_path / "policy.toml"), "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
    done = subprocess.run([*line, *words], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert text in done.stderr
