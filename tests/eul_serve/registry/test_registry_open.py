"""URLs of registries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from eul_serve.errors import InputError, NotFoundError
from eul_serve.format import Bundle
from eul_serve.registry import open_registry


def test_path_and_file_url_open_the_same_registry(tmp_path: Path, plain_bundle: Callable[..., Bundle]) -> None:
    place = tmp_path / "with space"
    open_registry(str(place)).publish(plain_bundle(), "poems")
    url = place.as_uri()
    assert "%20" in url
    for spelling in (url, url.replace("file://", "file://localhost"), str(place)):
        assert open_registry(spelling).names() == ["poems"]


@pytest.mark.parametrize("url", ["ftp://host/x", "http://host", "file://host/x", "file:///x?y", "", "a\0b"])
def test_other_urls_are_refused_with_what_is_allowed(url: str) -> None:
    with pytest.raises(InputError, match="expected a directory, file:///DIRECTORY"):
        open_registry(url)


def test_opening_makes_nothing_and_reading_says_how_to_make_one(tmp_path: Path) -> None:
    registry = open_registry(str(tmp_path / "new"))
    with pytest.raises(NotFoundError, match="eul publish"):
        registry.names()
    assert not (tmp_path / "new").exists()
    assert "new" in repr(registry)
