"""`eul hold`, `ban`, `gc` and `log`: what they do, what they tell, and what they refuse."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from eul_serve.audit.chain import START, Entry
from eul_serve.format import Bundle
from tests.eul_serve.registry_files import acts, alias_files, move_by_hand

PlainBundle = Callable[..., Bundle]
Eul = Callable[..., Result]
KEY = "sha256:" + "5" * 64


def _json(result: Result) -> Any:
    return json.loads(result.stdout)


def _aged(root: Path) -> None:
    """Make everything look as old as 31 days."""
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - 31 * 86400,) * 2)


def test_a_hold_keeps_a_revision_until_it_is_released(eul: Eul, tmp_path: Path, plain_bundle: PlainBundle) -> None:
    old, new = plain_bundle(seed=1), plain_bundle(seed=2)
    eul("publish", old.path, "--name", "poems")
    eul("publish", new.path, "--name", "poems", "--alias", "stable")
    _aged(tmp_path / "registry")
    reference = f"poems@{old.revision}"
    assert eul("hold", reference, "--reason", "case 17").stdout.splitlines() == ["held", reference]
    assert eul("hold", reference, "--reason", "case 18").stdout.startswith("held already; the reason given before")
    assert _json(eul("hold", reference, "--reason", "x", "--json")) == {
        "changed": False, "held": True, "name": "poems", "revision": old.revision
    }  # fmt: skip
    kept = _json(eul("gc", "--yes", "--json"))
    assert kept["removed"] == []
    assert "case 17" in {one["reference"]: one["reason"] for one in kept["kept"]}[reference]
    assert "held" in eul("list").stdout
    assert _json(eul("list", "--json"))["bundles"][0]["held"] is (old.revision < new.revision)
    card = _json(eul("show", reference, "--json"))
    assert (card["held"]["reason"], card["held"]["actor"], card["banned"]) == ("case 17", "ann", None)
    assert "by ann: case 17" in eul("show", reference).stdout
    released = eul("hold", "--release", reference, "--reason", "case 17 is closed")
    assert released.stdout.splitlines() == ["released: `eul gc` may remove it", reference]
    assert eul("hold", "--release", reference, "--reason", "again").stdout.startswith("it was not held")
    assert _json(eul("gc", "--yes", "--json"))["removed"] == [reference]


def test_a_ban_stops_publishing_and_moving_until_it_is_lifted(eul: Eul, plain_bundle: PlainBundle) -> None:
    bad, good = plain_bundle(seed=1), plain_bundle(seed=2)
    eul("publish", bad.path, "--name", "poems", "--alias", "stable")
    eul("publish", bad.path, "--name", "verse", "--alias", "next")
    eul("publish", good.path, "--name", "poems")
    banned = eul("ban", "poems", "--reason", "brings back r1").stdout
    assert banned.splitlines()[:2] == ["banned", bad.revision]
    assert "poems:stable points to it" in banned
    assert "verse:next points to it" in banned
    assert _json(eul("ban", "poems", "--reason", "x", "--json")) == {
        "aliases": ["poems:stable", "verse:next"], "banned": True, "changed": False, "revision": bad.revision
    }  # fmt: skip
    assert [row["banned"] for row in _json(eul("list", "verse", "--json"))["bundles"]] == [True]
    assert "banned" in eul("list", "verse").stdout
    assert "by ann: brings back r1" in eul("show", "poems").stdout
    for words in (
        ("publish", bad.path, "--name", "prose"),
        ("promote", f"poems@{bad.revision}", "next"),
        ("copy", "poems", "--to", "elsewhere"),
    ):
        failed = eul(*words, status=5)
        assert "is banned since" in failed.stderr
        assert failed.stderr.count("\n") == 1
    eul("promote", f"poems@{good.revision}", "stable")
    eul("rollback", "poems", "stable", status=5)
    assert eul("ban", "--lift", f"poems@{bad.revision}", "--reason", "measured anew").stdout.startswith(
        "the ban is lifted\n"
    )
    assert eul("ban", "--lift", f"poems@{bad.revision}", "--reason", "again").stdout.startswith("it was not banned")
    eul("rollback", "poems", "stable")


def test_a_damaged_alias_elsewhere_stops_no_ban(eul: Eul, tmp_path: Path, plain_bundle: PlainBundle) -> None:
    eul("publish", plain_bundle(seed=1).path, "--name", "poems", "--alias", "stable")
    eul("publish", plain_bundle(seed=2).path, "--name", "verse", "--alias", "stable")
    _spoil(alias_files(tmp_path / "registry", "verse", "stable")[0])
    assert _json(eul("ban", "poems", "--reason", "x", "--json"))["aliases"] == ["poems:stable"]


def test_a_revision_may_be_banned_before_it_is_published(eul: Eul, plain_bundle: PlainBundle) -> None:
    bad, good = plain_bundle(seed=1), plain_bundle(seed=2)
    eul("publish", good.path, "--name", "poems")
    eul("ban", f"poems@{bad.revision}", "--reason", "seen elsewhere")
    assert "seen elsewhere" in eul("publish", bad.path, "--name", "poems", status=5).stderr


def test_a_signer_is_banned_by_the_fingerprint_of_its_key(eul: Eul, tmp_path: Path, plain_bundle: PlainBundle) -> None:
    eul("publish", plain_bundle().path, "--name", "poems")
    assert _json(eul("ban", "--signer", KEY, "--reason", "stolen", "--json")) == {
        "aliases": [], "banned": True, "changed": True, "signer": KEY
    }  # fmt: skip
    assert eul("ban", "--signer", KEY, "--lift", "--reason", "it was not").stdout == f"the ban is lifted\n{KEY}\n"
    told = [(act["act"], act["digest"], act["reason"], act["actor"]) for act in acts(tmp_path / "registry")[-2:]]
    assert told == [("ban_signer", KEY, "stolen", "ann"), ("lift_signer", KEY, "it was not", "ann")]


def test_gc_only_says_what_would_go_until_it_is_told(eul: Eul, tmp_path: Path, plain_bundle: PlainBundle) -> None:
    old, new = plain_bundle(seed=1), plain_bundle(seed=2)
    eul("publish", old.path, "--name", "poems")
    eul("publish", new.path, "--name", "poems", "--alias", "stable")
    _aged(tmp_path / "registry")
    before = len(acts(tmp_path / "registry"))
    for words in (["gc"], ["gc", "--dry-run"]):
        told = eul(*words).stdout
        assert f"poems@{old.revision}" in told
        assert "would go: revisions 1, files 1; revisions that stay: 1" in told
        assert "aliased by poems:stable" in told
        assert told.endswith("nothing was removed; --yes removes it\n")
    assert _json(eul("gc", "--json")) == {
        "blobs": 1,
        "dry_run": True,
        "kept": [{"reason": "aliased by poems:stable", "reference": f"poems@{new.revision}"}],
        "removed": [f"poems@{old.revision}"],
    }
    assert len(acts(tmp_path / "registry")) == before
    assert eul("gc", "--keep-days", "32").stdout.endswith("would go: revisions 0, files 0; revisions that stay: 2\n")
    assert "gone: revisions 1, files 1" in eul("gc", "--yes").stdout
    assert [row["revision"] for row in _json(eul("list", "--json"))["bundles"]] == [new.revision]
    assert eul("gc", "--yes").stdout.endswith("gone: revisions 0, files 0; revisions that stay: 1\n")


def test_gc_deletes_a_request_altogether(eul: Eul, plain_bundle: PlainBundle) -> None:
    one, both = plain_bundle("r1", seed=1), plain_bundle("r1", "r2", seed=2)
    eul("publish", one.path, "--name", "poems", "--alias", "stable")
    eul("publish", both.path, "--name", "verse")
    words = ["gc", "--request", "r1", "--reason", "withdrawn, ticket 7"]
    refused = eul(*words, "--yes", status=5)
    assert "is aliased by poems:stable (move the alias)" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert len(_json(eul("list", "--json"))["bundles"]) == 2
    other = plain_bundle("r2", seed=3)
    eul("publish", other.path, "--name", "poems", "--alias", "stable", "--allow-unforget", "ticket 7")
    told = _json(eul("gc", "--request", "r1", "--json"))  # only to look, no reason is needed
    assert (told["dry_run"], sorted(told["removed"])) == (True, [f"poems@{one.revision}", f"verse@{both.revision}"])
    assert len(_json(eul("list", "--json"))["bundles"]) == 3
    done = eul(*words, "--yes").stdout
    assert "gone: revisions 2, files 2" in done
    assert [row["reference"] for row in _json(eul("list", "--json"))["bundles"]] == [f"poems@{other.revision}"]
    assert "withdrawn, ticket 7" in eul("publish", one.path, "--name", "poems", status=5).stderr
    assert "no revision covers it" in eul(*words, "--yes", status=4).stderr


def test_the_log_says_who_did_what_when_and_why(eul: Eul, plain_bundle: PlainBundle) -> None:
    one, two = plain_bundle("r1", seed=1), plain_bundle("r2", seed=2)
    eul("publish", one.path, "--name", "poems", "--alias", "stable")
    eul("publish", two.path, "--name", "poems", "--alias", "stable", "--allow-unforget", "ticket 7")
    eul("hold", "poems", "--reason", "case 17", "--actor", "bob")
    entries = _json(eul("log", "--json"))["entries"]
    assert [entry["act"] for entry in entries] == ["store", "publish", "store", "publish", "hold"]
    assert [entry["number"] for entry in entries] == [1, 2, 3, 4, 5]
    assert (entries[3]["reason"], entries[3]["dropped"], entries[3]["actor"]) == ("ticket 7", ["r1"], "ann")
    assert (entries[4]["digest"], entries[4]["reason"], entries[4]["actor"]) == (two.revision, "case 17", "bob")
    lines = eul("log").stdout.splitlines()
    assert lines[4].split()[1:] == ["ann", "publish", "poems:stable", "to", two.revision, "ticket", "7"]
    assert lines[5].split()[1:] == ["bob", "hold", two.revision, "case", "17"]
    assert [line.split()[2] for line in eul("log", "-n", "2").stdout.splitlines()[1:]] == ["publish", "hold"]
    assert _json(eul("log", "-n", "2", "--json"))["entries"] == entries[3:]
    assert _json(eul("log", "-n", "0", "--json"))["entries"] == []


def test_the_log_does_not_show_an_entry_that_does_not_follow(
    eul: Eul, tmp_path: Path, plain_bundle: PlainBundle
) -> None:
    eul("publish", plain_bundle().path, "--name", "poems", "--alias", "stable")
    eul("hold", "poems", "--reason", "case 17")
    path = tmp_path / "registry" / "log" / "0000000002.json"
    path.write_bytes(Entry(2, "2026-01-01T00:00:00+00:00", "publish", {"name": "poems"}, START).to_line())
    assert "entry 2 of its log was changed" in eul("log", status=2).stderr
    assert [entry["act"] for entry in _json(eul("log", "-n", "1", "--json"))["entries"]] == ["hold"]
    assert "log/0000000002.json was changed" in eul("log", "-n", "1", "--check", status=2).stderr


def test_a_check_reads_every_chain(eul: Eul, plain_bundle: PlainBundle) -> None:
    eul("publish", plain_bundle(seed=1).path, "--name", "poems", "--alias", "stable")
    eul("publish", plain_bundle(seed=2).path, "--name", "verse", "--alias", "next")
    eul("hold", "poems", "--reason", "case 17")
    found = _json(eul("log", "--check", "--json"))
    head = found["entries"][-1]["entry"]
    assert found["checked"] == {"aliases": 2, "head": head, "log": 5, "orders": 1, "revisions": 2}
    told = eul("log", "--check").stdout
    assert (
        f"checked: log entries 5, orders 1, aliases 2, revisions 2; nothing changed; the log's last is {head}" in told
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: _spoil(root / "log" / "0000000001.json"), "log/0000000001.json was changed"),
        (lambda root: (root / "log" / "0000000002.json").unlink(), "verse: store"),
        (lambda root: _spoil(root / "orders" / "0000000001.json"), "orders/0000000001.json was changed"),
        (lambda root: _spoil(alias_files(root, "poems", "stable")[0]), "aliases/stable/0000000001.json was changed"),
        (lambda root: move_by_hand(root, "poems", "stable", "sha256:" + "0" * 64), "poems:stable: promote sha256:0000"),
    ],
)
def test_a_check_finds_what_was_changed(
    eul: Eul, tmp_path: Path, plain_bundle: PlainBundle, change: Callable[[Path], object], words: str
) -> None:
    eul("publish", plain_bundle(seed=1).path, "--name", "poems", "--alias", "stable")
    eul("publish", plain_bundle(seed=2).path, "--name", "verse")
    eul("hold", f"verse@{plain_bundle(seed=2).revision}", "--reason", "case 17")
    change(tmp_path / "registry")
    failed = eul("log", "--check", status=2)
    assert words in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert failed.stdout == ""


def _spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"ann", b"eve", 1))


def test_an_empty_log_says_so(eul: Eul, tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "registry.json").write_text('{"layout":2}')
    assert eul("log").stdout == "nothing was done here yet\n"
    assert _json(eul("log", "--check", "--json"))["checked"]["head"] is None


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["hold", "poems"], 2, "Missing option '--reason'"),
        (["hold", "poems", "--reason", " "], 2, "expected a reason in words"),
        (["hold", "poems", "--reason", "x"], 4, "no registry there"),
        (["hold", "--release", "poems", "--reason", "x"], 4, "no registry there"),
        (["ban", "poems", "--reason", "x"], 4, "no registry there"),
        (["ban", f"poems@{KEY}", "--reason", "x"], 4, "no registry there"),
        (["ban", "--reason", "x"], 2, "expected a REF or --signer FINGERPRINT"),
        (["ban", "poems", "--signer", KEY, "--reason", "x"], 2, "give one of the two"),
        (["ban", "--signer", "sha256:12", "--reason", "x"], 2, "digest 'sha256:12'"),
        (["gc"], 4, "no registry there"),
        (["gc", "--yes"], 4, "no registry there"),
        (["gc", "--yes", "--dry-run"], 2, "give one of the two"),
        (["gc", "--keep-days", "-1"], 2, "--keep-days"),
        (["gc", "--keep-days", "nan"], 2, "--keep-days"),
        (["gc", "--request", "r1", "--yes"], 2, "give both"),
        (["gc", "--reason", "x"], 2, "give both"),
        (["gc", "--request", "r1", "--reason", "", "--yes"], 2, "expected a reason in words"),
        (["gc", "--request", "../r1", "--reason", "x", "--yes"], 2, "request name '../r1'"),
        (["log"], 4, "no registry there"),
        (["log", "--check"], 4, "no registry there"),
        (["log", "-n", "-1"], 2, "--number"),
        (["log", "--registry", "ftp://host"], 2, "unknown scheme 'ftp'"),
    ],
)
def test_bad_input_gives_one_line_and_writes_nothing(
    eul: Eul, tmp_path: Path, words: list[str], status: int, message: str
) -> None:
    failed = eul(*words, status=status)
    assert (failed.stdout, failed.stderr.count("\n")) == ("", 1)
    assert failed.stderr.startswith("eul: ")
    assert message in failed.stderr
    assert _json(eul(*words, "--json", status=status))["error"]["exit_status"] == status
    assert not (tmp_path / "registry").exists()


def test_a_hold_of_what_is_not_published_is_not_found(eul: Eul, tmp_path: Path, plain_bundle: PlainBundle) -> None:
    eul("publish", plain_bundle().path, "--name", "poems")
    for words in (["hold", f"poems@{KEY}"], ["hold", "verse"], ["ban", "verse"]):
        eul(*words, "--reason", "x", status=4)
    assert not (tmp_path / "registry" / "orders").exists()
