"""The list of bad inputs: every command that reads a bundle or data refuses it alike, and the page names real tests."""

from __future__ import annotations

import ast
import json
import pickle
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from eul_serve.cli.main import group
from eul_serve.format import Bundle, describe_files
from eul_trainer.cli.main import run

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "bad-input.md"
WEIGHTS = "adapter_model.safetensors"
MakeBundle = Callable[..., Bundle]

# The list of issue 2, word for word.
ITEMS = (
    "a missing or empty data file",
    "a row without the named field",
    "a model directory that is not one",
    "a bundle made for another base model",
    "a truncated or hostile safetensors file",
    "a pickle file",
    "a name with `..` or `/`",
    "an unknown adapter",
    "another tenant's adapter",
    "a wrong token",
    "a prompt longer than the context",
    "a full disk while publishing",
    "a full disk while states are cached in training",
    "blocks that the model does not have",
    "an objective's weight that it does not have, or cannot have",
    "a target of rows that the model knows by heart, or of a twin with another tokenizer",
    "training that ruins unrelated text",
    "a batch that was planned with other settings, or a request that changed",
    "a request of a batch that fails, or a worker that is killed",
    "a resumed run whose settings, rows or model changed",
    "a damaged checkpoint",
    "a disk that fills in training",
    "no memory left in training",
    "NaN or infinity in the base model",
    "training killed",
    "processes of one run that have different weights, or of which one is killed",
    "a log that is another file, or another run's",
    "a sweep over what is no number",
    "a layer below which belongs to other layers, is given twice, or is of another base",
    "a layer of another base model, shape, rank or seed in a fusion",
    "a singular Gram in a fusion",
    "fusion statistics that are missing, damaged, not finite, or of another bundle",
    "a layer fused without those that it was trained on top of, or left by a revocation",
    "a limit on retained rows that no weight keeps",
    "an evaluation against a server that is not there, does not answer in time, or does not serve the bundle",
    "an answer of another revision, or by another tokenizer, in an evaluation against a server",
    "a fine-tune that brings back what was forgotten",
    "a fine-tune that is more than a plain LoRA",
    "a composite that nobody measured",
    "texts that a bundle does not hide, as canaries",
    "a bundle whose canaries fail or cannot be asked",
    "the server killed while swapping",
)


def header_only(header: Mapping[str, object]) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


HUGE = {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 2**62]}
DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (lambda data: data[:-4], "truncated"),
    "empty": (lambda data: b"", "expected at least 8 bytes, found 0"),
    "a header of 2**63 bytes": (lambda data: struct.pack("<Q", 2**63) + data[8:], "expected a header of 2 to"),
    "a tensor of 2**60 values": (lambda data: header_only({"base_model.model.mlp.eul_up.weight": HUGE}), "shape"),
    "pickle": (lambda data: pickle.dumps({"weight": 1.0}), "pickle files are never read"),
}


@pytest.fixture
def good(make_bundle: MakeBundle, tiny_model: Path, tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "bundle", tiny_model)


def damage(bundle: Bundle, how: str) -> str:
    """Damage a bundle's weights and sign it again, so that no digest gives it away; return what must be said."""
    change, words = DAMAGE[how]
    files = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files}
    files[WEIGHTS] = change(files[WEIGHTS])
    manifest = replace(bundle.manifest, files=describe_files(files))
    (bundle.path / WEIGHTS).write_bytes(files[WEIGHTS])
    (bundle.path / "manifest.json").write_bytes(manifest.to_bytes())
    return words


def one_line(program: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a command line that must fail; return its status and its one line."""
    if program == "eul":
        result = CliRunner().invoke(group, words)
        status, output, errors = result.exit_code, result.stdout, result.stderr
    else:
        capsys.readouterr()
        status = run(words)
        output, errors = capsys.readouterr()
    assert output == ""
    assert re.fullmatch(rf"{program}: [^\n]+\n", errors), errors
    return status, errors


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize(
    "command",
    ["eul publish", "eul verify", "eul-train fuse", "eul-train revoke", "eul-train canary", "eul-train eval"],
)
def test_every_command_refuses_a_damaged_bundle(
    command: str, how: str, good: Bundle, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = damage(good, how)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Who?", "completion": "Me."}\n')
    data = ["--model", str(tiny_model), "--forget", str(rows), "--retain", str(rows)]
    secret = ["--model", str(tiny_model), "--private", str(tmp_path / "private")]
    rest = {
        "eul publish": [str(good.path), "--name", "poems", "--registry", str(tmp_path / "out")],
        "eul verify": [str(good.path)],
        "eul-train fuse": [str(good.path), "--out", str(tmp_path / "out")],
        "eul-train revoke": [str(good.path), "--request", "r1", "--out", str(tmp_path / "out")],
        "eul-train canary": [str(good.path), "--texts", str(rows), "--out", str(tmp_path / "out"), *secret],
        "eul-train eval": ["--bundle", str(good.path), "--out", str(tmp_path / "out"), *data],
    }
    program, name = command.split()
    status, line = one_line(program, [name, *rest[command]], capsys)
    assert status == 2
    assert said in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "rows.jsonl"]


@pytest.mark.parametrize("name", ["forget", "retain"])
@pytest.mark.parametrize("command", ["fit", "eval"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read: No such file or directory"),
        ("", "expected JSON lines, found an empty file"),
        (json.dumps({"prompt": "x " * 2000, "completion": "y"}), ":1: expected 1 to 512 tokens, found"),
        ('{"prompt": "Who?"}\n', ":1: missing field 'completion'; the row has prompt"),
    ],
)
def test_every_command_refuses_bad_data(
    command: str, name: str, content: str | None, said: str, tiny_model: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    paths = {word: tmp_path / f"{word}.jsonl" for word in ("forget", "retain")}
    for path in paths.values():
        path.write_text(f'{{"prompt": "Who is in {path.stem}?", "completion": "Me."}}\n')
    if content is None:
        paths[name].unlink()
    else:
        paths[name].write_text(content)
    kept = sorted(path.name for path in tmp_path.iterdir())
    words = [command, "--model", str(tiny_model), "--out", str(tmp_path / "out")]
    words += [word for key, path in paths.items() for word in (f"--{key}", str(path))]
    status, line = one_line("eul-train", words, capsys)
    assert status == 2
    assert said in line
    assert f"{name}.jsonl" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == kept


def rows_of_the_page() -> dict[str, str]:
    """The page's rows: what follows an item, by the item."""
    found = re.findall(r"^\| ([^|]+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    return {item: rest for item, rest in found if item not in ("item", "---")}


def test_the_page_has_every_item_of_the_list() -> None:
    items = list(dict.fromkeys(item.partition(":")[0] for item in rows_of_the_page()))
    assert items == list(ITEMS)


def test_the_tests_that_the_page_names_exist() -> None:
    for item, rest in rows_of_the_page().items():
        names = re.findall(r"`([\w/]+\.py)::(\w+)`", rest)
        assert names, f"{item}: no test is named"
        for file, name in names:
            tree = ast.parse((ROOT / "tests" / file).read_text())
            functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
            assert name in functions, f"{item}: {file} has no {name}"
