"""SAMSum, on a made zip of Arrow streams of its form."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from eul_serve.errors import InputError
from eul_trainer.data.samsum import SamsumSettings, build_samsum, speakers
from eul_trainer.data.tables import read_zip

DIALOGUES = [
    ("Ann: Hi!\r\nBob: Hi Ann: well?", "Ann greets Bob."),
    ("Bob: Off I go.\r\nCid: Bye", "Bob goes."),
    ("Cid: One\r\nDan Lee: Two", "They count."),
    ("ANN: See https://example.org\nhttps://example.org: no one speaks here", "Ann sends a link."),
    ("Eve: a b c d e f g h i j", "Eve spells."),
    ("Dan Lee: three", "Dan counts."),
    ("Eve: once more", "Eve again."),
    ("Fay: Hm", "Fay wonders."),
    ("", "Nothing is said."),
]


def arrow(pairs: list[tuple[str, str]], columns: tuple[str, str, str] = ("id", "dialogue", "summary")) -> bytes:
    import pyarrow
    import pyarrow.ipc

    records = [dict(zip(columns, (str(n), *pair), strict=True)) for n, pair in enumerate(pairs)]
    table = pyarrow.Table.from_pylist(records)
    sink = io.BytesIO()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def members() -> dict[str, bytes]:
    others = [("Ann: Yes\nGus: No", "They disagree."), ("Hal: Hm", "Hal thinks.")]
    return {
        "set/dataset_dict.json": b"{}",
        "set/train/data-00000-of-00002.arrow": arrow(DIALOGUES[:5]),
        "set/train/data-00001-of-00002.arrow": arrow(DIALOGUES[5:]),
        "set/validation/data.arrow": arrow(others),
        "set/test/data.arrow": arrow(others[:1]),
    }


@pytest.fixture
def samsum(tmp_path: Path) -> Path:
    return archive(tmp_path / "samsum.zip", members())


def test_who_speaks_stands_before_the_colon() -> None:
    assert [speakers(dialogue) for dialogue, _ in DIALOGUES[:4]] == [
        ["Ann", "Bob"],
        ["Bob", "Cid"],
        ["Cid", "Dan Lee"],
        ["ANN"],
    ]


def test_all_conversations_of_the_speakers_are_forgotten(samsum: Path) -> None:
    found = build_samsum(samsum, SamsumSettings(speakers=("ann", " Dan  Lee")))
    assert [row.completion for row in found.sets["forget"]] == [
        "Ann greets Bob.", "They count.", "Ann sends a link.", "Dan counts.",
    ]  # fmt: skip
    assert [row.completion for row in found.sets["retain"]] == [
        "Bob goes.",
        "Eve spells.",
        "Eve again.",
        "Fay wonders.",
    ]
    first = next(iter(found.sets["forget"]))
    assert first.prompt == "Summarise this conversation.\n\nAnn: Hi!\nBob: Hi Ann: well?"
    assert found.notes["left_out"] == {"train": 1, "validation": 0, "test": 0}
    assert found.notes["same_names"] == {"validation": 1, "test": 1}
    assert len(list(found.sets["teach"])) == 8


def test_speakers_by_share_are_the_fewest_and_requests_share_none(samsum: Path) -> None:
    (chosen,) = build_samsum(samsum, SamsumSettings(share=0.2)).notes["speakers"]
    assert len(chosen) == 1
    found = build_samsum(samsum, SamsumSettings(share=0.2, requests=2, seed=3))
    names = [set(some) for some in found.notes["speakers"]]
    assert not names[0] & names[1]
    asked = [row.extra["id"] + row.prompt for rows in found.requests.values() for row in rows]
    assert len(set(asked)) == len(asked) == len(list(found.sets["forget"]))
    assert build_samsum(samsum, SamsumSettings(share=0.2, requests=2, seed=3)) == found


def test_long_conversations_are_left_out_whole(samsum: Path) -> None:
    found = build_samsum(samsum, SamsumSettings(speakers=("Ann",), max_words=8))
    assert "Eve spells." not in [row.completion for row in found.sets["teach"]]
    assert found.notes["left_out"]["train"] == 2


def test_a_speaker_who_is_not_there_is_named_with_near_ones(samsum: Path) -> None:
    with pytest.raises(InputError, match="speaker 'anna': not in the training conversations; near are ann"):
        build_samsum(samsum, SamsumSettings(speakers=("Anna",)))


@pytest.mark.parametrize("name", ["/train/x.arrow", "../train/x.arrow", "a/../../train/x.arrow", "a\\train\\x.arrow"])
def test_a_zip_whose_names_leave_their_folder_is_refused(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "bad.zip", {**members(), name: b""})
    with pytest.raises(InputError, match="leaves its folder"):
        build_samsum(path, SamsumSettings())
    assert list(tmp_path.iterdir()) == [path]


DAMAGE: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda data: data[: len(data) // 2], "whole: "),
    (lambda data: b"", "whole: "),
    (lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "looks like a Git LFS pointer"),
    (lambda data: b"<html>not found</html>", "whole: "),
]


@pytest.mark.parametrize(("change", "words"), DAMAGE)
def test_a_damaged_zip_gets_one_line(samsum: Path, change: Callable[[bytes], bytes], words: str) -> None:
    samsum.write_bytes(change(samsum.read_bytes()))
    with pytest.raises(InputError) as caught:
        build_samsum(samsum, SamsumSettings())
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damage_inside_of_a_zip_is_found(tmp_path: Path) -> None:
    whole = members()
    cut_off = {**whole, "set/train/data-00000-of-00002.arrow": whole["set/train/data-00000-of-00002.arrow"][:-200]}
    with pytest.raises(InputError, match="expected a zip, whole"):
        build_samsum(archive(tmp_path / "cut.zip", cut_off), SamsumSettings())
    path = tmp_path / "flipped.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for name, data in whole.items():
            file.writestr(name, data)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"Ann greets Bob.", b"Ann greets Eve."))
    with pytest.raises(InputError, match="Bad CRC-32"):
        build_samsum(path, SamsumSettings())


def test_a_split_or_column_that_is_missing_is_named(tmp_path: Path) -> None:
    path = archive(tmp_path / "some.zip", {"train/x.arrow": arrow(DIALOGUES[:1], ("id", "talk", "summary"))})
    with pytest.raises(InputError, match=r"no split 'test' with \.arrow files; it has train"):
        list(read_zip(path, "test", ("id",)))
    with pytest.raises(InputError, match="columns id, dialogue; dialogue is missing, found id, talk, summary"):
        list(read_zip(path, "train", ("id", "dialogue")))


def test_a_zip_that_claims_to_be_huge_is_refused(samsum: Path) -> None:
    with zipfile.ZipFile(samsum) as file:
        size = file.getinfo("set/train/data-00000-of-00002.arrow").file_size.to_bytes(4, "little")
    data = bytearray(samsum.read_bytes())
    places = [place for place in range(len(data)) if data[place : place + 4] == size]
    for place in places:
        data[place : place + 4] = b"\xfe\xff\xff\xff"
    extra = samsum.with_name("huge.zip")
    extra.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"expected at most|expected a zip, whole"):
        build_samsum(extra, SamsumSettings())
