"""What an alias covered is remembered over restarts, so that nothing un-forgets while a server is down."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eul_serve.errors import EulError, InputError
from eul_serve.format import Reference
from eul_serve.swap.memory import FILE, Memory
from tests.eul_serve.registry_files import move_by_hand
from tests.eul_serve.service_home import ServiceHome

STABLE = Reference.parse("poems:stable")
ACME = {"default": "poems:stable", "bundles": ["poems"]}


async def served(home: ServiceHome) -> str:
    async with home.serve() as service:
        try:
            return str((await service.ask("acme", max_tokens=1)).revision)
        except EulError as error:
            return str(error)


async def test_a_move_while_the_server_was_down_is_noticed(home: ServiceHome) -> None:
    old = home.publish("poems", "stable", "r1", seed=1)
    new = home.publish("poems", "stable", "r1", "r2", seed=2)
    home.write_policy(acme=dict(ACME))
    assert await served(home) == new
    move_by_hand(home.root / "registry", "poems", "stable", old)
    assert "is not served now" in await served(home)
    move_by_hand(home.root / "registry", "poems", "stable", new)
    assert await served(home) == new
    # A person says why: that is in the alias's history, and is enough.
    home.registry.rollback("poems", "stable", allow_unforget="the request was withdrawn")
    assert await served(home) == old
    later = home.publish("poems", "stable", "r1", "r3", seed=3)
    assert await served(home) == later


async def test_an_alias_that_no_policy_named_for_a_while_is_remembered_too(home: ServiceHome) -> None:
    old = home.publish("poems", "stable", "r1", seed=1)
    home.publish("poems", "stable", "r1", "r2", seed=2)
    home.write_policy(acme=dict(ACME))
    async with home.serve() as service:
        home.write_policy(acme={})
        await service.until(lambda: not service.server.residency.pointers(), "the alias to be let go")
        move_by_hand(home.root / "registry", "poems", "stable", old)
        home.write_policy(acme=dict(ACME))
        await service.server.follower.poll_policy()
        with pytest.raises(EulError, match="is not served now"):
            await service.ask("acme", max_tokens=1)


async def test_a_server_does_not_start_on_a_file_that_says_nothing(home: ServiceHome) -> None:
    home.write_policy(acme={})
    home.cache.mkdir()
    for text in ("", "{", "[]", '{"x": 5}', f'{{"{home.root}/registry": {{"poems:stable": {{"revision": "x"}}}}}}'):
        (home.cache / FILE).write_text(text)
        with pytest.raises(InputError, match="expected what aliases covered"):
            async with home.serve():
                pass


def test_registries_share_a_file_and_nothing_in_it(home: ServiceHome) -> None:
    revision = home.publish("poems", "stable", "r1", seed=1)
    manifest = home.registry.manifest("poems", revision)
    first, second = Memory(home.cache, "one"), Memory(home.cache, "two")
    first.note(STABLE, manifest)
    assert second.covered(STABLE) is None
    second.note(Reference.parse("poems:next"), manifest)
    again = Memory(home.cache, "one").covered(STABLE)
    assert again is not None
    assert (again.revision, again.request_ids) == (revision, {"r1"})
    assert [path.name for path in home.cache.iterdir()] == [FILE]


async def test_a_file_that_can_not_be_written_keeps_nobody_from_forgetting(
    home: ServiceHome, caplog: pytest.LogCaptureFixture
) -> None:
    home.publish("poems", "stable", "r1", seed=1)
    home.write_policy(acme=dict(ACME))
    async with home.serve() as service:
        (home.cache / FILE).unlink()
        (home.cache / FILE).mkdir()  # nothing can be put in its place
        new = home.publish("poems", "stable", "r1", "r2", seed=2)
        await service.until(lambda: "not remembered over a restart" in caplog.text, "the log line")
        assert (await service.ask("acme", max_tokens=1)).revision == new
        assert list(home.cache.glob(".served*")) == []


@given(st.binary(max_size=40) | st.text(alphabet='{}[]":,srevidonqut0', max_size=40).map(str.encode))
def test_whatever_the_file_holds(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder: Path = tmp_path_factory.mktemp("memory")
    (folder / FILE).write_bytes(data)
    with suppress(InputError):  # its only way to say that it can not read it
        assert Memory(folder, "one").covered(STABLE) is None
