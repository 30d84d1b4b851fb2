"""The registry's commands, as a person and as a program use them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from eul_serve.cli.main import group
from eul_serve.format import Bundle
from eul_serve.format.canaries import Canary
from eul_serve.policy import hash_token
from tests.eul_serve.conftest import plain_composite
from tests.eul_serve.registry_files import acts

PlainBundle = Callable[..., Bundle]
Eul = Callable[..., Result]


def _last(result: Result) -> str:
    return result.stdout.splitlines()[-1]


def _json(result: Result) -> Any:
    return json.loads(result.stdout)


def test_publish_prints_the_reference_last_and_again_is_a_no_op(eul: Eul, plain_bundle: PlainBundle) -> None:
    bundle = plain_bundle()
    first = eul("publish", bundle.path, "--name", "poems", "--alias", "stable")
    again = eul("publish", bundle.path, "--name", "poems", "--alias", "stable")
    assert _last(first) == _last(again) == f"poems@{bundle.revision}"
    assert first.stdout.startswith("published (")
    assert again.stdout.startswith("already published; poems:stable points to it already")
    without = eul("publish", bundle.path, "--name", "poems")
    assert without.stdout.startswith("already published\n")


def test_publish_as_json_is_one_document(eul: Eul, plain_bundle: PlainBundle) -> None:
    bundle = plain_bundle(statistics=True)
    words = ["publish", bundle.path, "--name", "poems", "--alias", "next", "--with-statistics", "--json"]
    assert _json(eul(*words)) == {
        "alias": "next",
        "dry_run": False,
        "moved": True,
        "name": "poems",
        "new": True,
        "reference": f"poems@{bundle.revision}",
        "revision": bundle.revision,
        "signatures": 0,
    }


def test_a_dry_run_says_what_would_be_done_and_does_not(eul: Eul, tmp_path: Path, plain_bundle: PlainBundle) -> None:
    result = eul("publish", plain_bundle().path, "--name", "poems", "--alias", "stable", "--dry-run")
    assert result.stdout.startswith("would be published (")
    assert "would be moved" in result.stdout
    assert not (tmp_path / "registry").exists()


def test_list_shows_names_aliases_and_what_is_forgotten(eul: Eul, plain_bundle: PlainBundle) -> None:
    one, two = plain_bundle("r1"), plain_bundle("r1", "r2", seed=1)
    eul("publish", one.path, "--name", "poems", "--alias", "stable")
    eul("publish", two.path, "--name", "prose")
    rows = _json(eul("list", "--json"))["bundles"]
    assert rows == [
        {"aliases": ["stable"], "banned": False, "held": False, "name": "poems", "reference": f"poems@{one.revision}",
         "requests": ["r1"], "revision": one.revision},
        {"aliases": [], "banned": False, "held": False, "name": "prose", "reference": f"prose@{two.revision}",
         "requests": ["r1", "r2"], "revision": two.revision},
    ]  # fmt: skip
    lines = eul("list").stdout.splitlines()
    assert lines[1].split() == [f"poems@{one.revision}", "stable", "r1"]
    assert len(eul("list", "prose").stdout.splitlines()) == 2
    eul("list", "verse", status=4)


def test_list_of_an_empty_registry_says_what_to_do(eul: Eul, tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "registry.json").write_text('{"layout":2}')
    assert "eul publish" in eul("list").stdout
    assert _json(eul("list", "--json")) == {"bundles": []}


def test_show_is_a_card_with_requests_files_and_history(eul: Eul, plain_bundle: PlainBundle) -> None:
    parent = "sha256:" + "9" * 64
    bundle = plain_bundle(
        "r1", "r2", statistics=True, parents=(parent,), metrics={"forget": {"loss": 4.5}}, settings={"method": "concat"}
    )
    eul("publish", bundle.path, "--name", "poems", "--alias", "stable")
    card = eul("show", "poems").stdout
    for words in (f"poems@{bundle.revision}", "LlamaForCausalLM", "2 hidden units", "r1", "r2", parent, "forget.loss",
                  "4.5", "concat", "ann", "(fusion.safetensors)",
                  bundle.manifest.files["README.md"].sha256):  # fmt: skip
        assert words in card
    data = _json(eul("show", f"poems@{bundle.revision}", "--json"))
    assert data["rank"] == 2
    assert data["aliases"] == ["stable"]
    assert data["moves"][0]["actor"] == "ann"
    assert data["parents"] == [parent]


def test_a_composite_is_shown_with_both_of_its_parts(eul: Eul, tmp_path: Path, plain_bundle: PlainBundle) -> None:
    bundle = plain_bundle("r1")
    composite = plain_composite(bundle, tmp_path / "composite")
    eul("publish", composite.path, "--name", "acme", "--alias", "stable")
    card = eul("show", "acme").stdout
    assert f"Made of\nacme@{composite.revision}\n└── {bundle.revision}  not published here" in card
    assert f"fine-tune   {composite.manifest.settings['composite']['fine_tune']}" in card
    assert "Fused from" not in card


def test_canaries_are_counted_and_never_shown(eul: Eul, plain_bundle: PlainBundle) -> None:
    canary = Canary(digest="sha256:" + "5" * 64, least_nats=12.5)
    bundle, bare = plain_bundle("r1", canaries=[canary]), plain_bundle("r1", seed=1)
    for one, name in ((bundle, "poems"), (bare, "prose")):
        eul("publish", one.path, "--name", name, "--alias", "stable")
    card = eul("show", "poems").stdout
    assert "canaries    1, which a server must see pass" in card
    assert canary.digest not in card
    assert "a server must see" not in eul("show", "prose").stdout
    assert "canaries 1; digests and values are right" in eul("verify", "poems").stdout
    assert "canaries" not in eul("verify", "prose").stdout
    for command in ("show", "verify"):
        assert [_json(eul(command, name, "--json"))["canaries"] for name in ("poems", "prose")] == [1, 0]


def test_a_composite_that_has_not_passed_is_not_published(eul: Eul, tmp_path: Path, plain_bundle: PlainBundle) -> None:
    composite = plain_composite(plain_bundle("r1"), tmp_path / "composite", passed=False)
    refused = eul("publish", composite.path, "--name", "acme", status=5)
    assert "has not passed its evaluation" in refused.stderr
    assert not (tmp_path / "registry").exists()


def test_words_from_a_registry_cannot_steer_the_terminal(eul: Eul, plain_bundle: PlainBundle) -> None:
    bundle = plain_bundle(settings={"note": "\x1b]0;owned\x07 [bold]x[/bold]"})
    eul("publish", bundle.path, "--name", "poems", "--alias", "stable")
    card = eul("show", "poems").stdout
    assert "\x1b" not in card
    assert "[bold]x[/bold]" in card
    failed = eul("verify", "./\x1b[31mred", status=2)
    assert "\x1b" not in failed.stderr


def test_units_are_shown_inclusive(eul: Eul, tmp_path: Path, plain_bundle: PlainBundle) -> None:
    from dataclasses import replace

    from eul_serve.format import write_bundle

    old = plain_bundle("r1", rank=4)
    request = replace(old.manifest.requests[0], units=(0, 4))
    files = {name: (old.path / name).read_bytes() for name in old.manifest.files}
    bundle = write_bundle(tmp_path / "units", replace(old.manifest, requests=(request,)), files)
    eul("publish", bundle.path, "--name", "poems", "--alias", "stable")
    assert "0 to 3" in eul("show", "poems").stdout


def test_promote_and_rollback_move_an_alias(eul: Eul, plain_bundle: PlainBundle) -> None:
    one, two = plain_bundle(seed=1), plain_bundle(seed=2)
    eul("publish", one.path, "--name", "poems", "--alias", "stable")
    eul("publish", two.path, "--name", "poems", "--alias", "next")
    moved = eul("promote", "poems:next", "stable")
    assert moved.stdout.splitlines() == ["poems:stable moved to", f"poems@{two.revision}"]
    assert eul("promote", f"poems@{two.revision}", "stable").stdout.startswith("poems:stable points already to")
    assert _json(eul("promote", "poems:next", "stable", "--json"))["moved"] is False
    back = eul("rollback", "poems", "stable")
    assert back.stdout.splitlines() == ["poems:stable moved back to", f"poems@{one.revision}"]
    assert eul("promote", "poems:next", "stable").exit_code == 0
    assert _json(eul("rollback", "poems", "stable", "--json"))["revision"] == one.revision


def test_un_forgetting_needs_a_reason(eul: Eul, plain_bundle: PlainBundle) -> None:
    one, two = plain_bundle("r1"), plain_bundle("r1", "r2", seed=1)
    eul("publish", one.path, "--name", "poems", "--alias", "stable")
    eul("publish", two.path, "--name", "poems", "--alias", "stable")
    acts: list[Sequence[str | Path]] = [
        ("rollback", "poems", "stable"),
        ("promote", f"poems@{one.revision}", "stable"),
        ("publish", one.path, "--name", "poems", "--alias", "stable"),
    ]
    for words in acts:
        failed = eul(*words, status=5)
        assert failed.stderr.startswith("eul: poems:stable: ")
        assert failed.stderr.count("\n") == 1
        assert "'r2'" in failed.stderr
        assert "--allow-unforget" in failed.stderr
        assert _json(eul(*words, "--json", status=5))["error"]["kind"] == "RefusedError"
        eul(*words, "--allow-unforget", "", status=2)
        eul(*words, "--allow-unforget", "ticket 7")
        assert "ticket 7" in eul("show", "poems").stdout
        eul("promote", f"poems@{two.revision}", "stable")


def test_verify_reads_a_directory_and_a_reference(
    eul: Eul, tmp_path: Path, plain_bundle: PlainBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = plain_bundle()
    eul("publish", bundle.path, "--name", "poems", "--alias", "stable")
    assert _last(eul("verify", bundle.path)) == bundle.revision
    assert _last(eul("verify", "poems")) == f"poems@{bundle.revision}"
    assert _json(eul("verify", "poems", "--json"))["verified"] is True
    monkeypatch.chdir(bundle.path.parent)
    assert _last(eul("verify", bundle.path.name)) == bundle.revision


def test_verify_finds_damage_in_a_registry(eul: Eul, tmp_path: Path, plain_bundle: PlainBundle) -> None:
    bundle = plain_bundle()
    eul("publish", bundle.path, "--name", "poems", "--alias", "stable")
    digest = bundle.manifest.files["adapter_model.safetensors"].sha256.removeprefix("sha256:")
    (tmp_path / "registry" / "blobs" / "sha256" / digest).write_bytes(b"\x80\x05pickle")
    failed = eul("verify", "poems", status=2)
    assert "adapter_model.safetensors" in failed.stderr


def test_verify_without_a_registry_says_what_is_missing() -> None:
    result = CliRunner(env={"EUL_REGISTRY": None}).invoke(group, ["verify", "poems"])
    assert result.exit_code == 2
    assert "pass --registry or EUL_REGISTRY" in result.stderr


def test_verify_for_a_model_tells_another_base_model(
    eul: Eul, tmp_path: Path, plain_bundle: PlainBundle, tiny_model: Path
) -> None:
    failed = eul("verify", plain_bundle().path, "--model", tiny_model, status=3)
    assert "made for base model" in failed.stderr


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["publish", "/nowhere", "--name", "poems"], 2, "expected a directory"),
        (["publish", ".", "--name", "../poems"], 2, "bundle name '../poems'"),
        (["publish", ".", "--name", "poems", "--alias", "a/b"], 2, "alias name 'a/b'"),
        (["publish", ".", "--name", "poems", "--registry", "ftp://host"], 2, "unknown scheme 'ftp'"),
        (["publish", "."], 2, "Missing option '--name'"),
        (["show", "poems"], 4, "no registry there"),
        (["show", "poems@sha256:12"], 2, "digest 'sha256:12'"),
        (["promote", "poems:a:b", "stable"], 2, "alias name 'a:b'"),
        (["rollback", "poems", "stable"], 4, "no registry there"),
        (["list", "--colour"], 2, "No such option"),
        (["lst"], 2, "No such command 'lst'"),
    ],
)
def test_bad_input_gives_one_line_and_its_status(eul: Eul, tmp_path: Path, words: list[str], status: int,
                                                 message: str) -> None:  # fmt: skip
    failed = eul(*words, status=status)
    assert failed.stdout == ""
    assert failed.stderr.startswith("eul: ")
    assert failed.stderr.count("\n") == 1
    assert message in failed.stderr
    error = _json(eul(*words, "--json", status=status))["error"]
    assert error["exit_status"] == status
    assert not (tmp_path / "registry").exists()


def test_a_missing_registry_is_named_with_its_variable() -> None:
    result = CliRunner(env={"EUL_REGISTRY": None}).invoke(group, ["list"])
    assert result.exit_code == 2
    assert "--registry" in result.stderr
    assert "EUL_REGISTRY" in result.stderr


def test_token_makes_a_token_and_the_hash_that_a_policy_stores(eul: Eul) -> None:
    made = _json(eul("token", "--json"))
    assert hash_token(made["token"]) == made["sha256"]
    words = eul("token").stdout.split()
    assert hash_token(words[1]) == words[3]
    assert words[1] != made["token"]
    assert len(words[1]) > 43  # 32 random bytes in base64, after the prefix


def test_no_actor_is_known_where_the_system_knows_no_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plain_bundle: PlainBundle
) -> None:
    import os

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_001)
    words = ["publish", str(plain_bundle().path), "--name", "poems", "--alias", "stable"]
    result = CliRunner(env={"EUL_REGISTRY": str(tmp_path / "registry")}).invoke(group, words)
    assert result.exit_code == 0, result.output
    assert [act["actor"] for act in acts(tmp_path / "registry")] == [None, None]
