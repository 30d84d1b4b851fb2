"""The status page: who may see it, what it says, and how it looks in a real browser."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any

import httpx
import pytest

from eul_serve.address import Address
from eul_serve.rpc.transport import TransportSettings
from tests.browser.chromium import Chromium
from tests.eul_serve.fake_engine import FakeEngine
from tests.eul_serve.service_home import ADMIN_TOKEN, Service, ServiceHome, token_of

LISTEN = TransportSettings(listen=Address("127.0.0.1", 0))


@asynccontextmanager
async def shown(home: ServiceHome, **options: Any) -> AsyncIterator[tuple[Service, str]]:
    """A server with a page, and the page's address."""
    home.publish("poems", "stable", "r1", seed=1)
    home.appoint()
    home.write_policy(acme={"default": "poems:stable", "bundles": ["poems"], "rights": ["logprobs"]}, zeta={})
    async with home.serve(page=LISTEN, **options) as service:
        yield service, f"127.0.0.1:{service.server.ports.page}"


def basic(password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"ana:{password}".encode()).decode()}


async def get(address: str, path: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(f"http://{address}{path}", headers=headers)


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css", "/status.json", "/nothing"])
async def test_nobody_but_an_administrator_sees_anything(home: ServiceHome, path: str) -> None:
    async with shown(home) as (service, address):
        others: list[dict[str, str]] = [
            {}, basic(token_of("acme")), {"authorization": f"Bearer {token_of('acme')}"}, basic(""),
            {"authorization": "Basic !"}, {"authorization": f"Digest {ADMIN_TOKEN}"},
        ]  # fmt: skip
        for headers in others:
            answer = await get(address, path, **headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Basic realm=")
            assert "poems" not in answer.text
        for headers in (basic(ADMIN_TOKEN), {"authorization": f"Bearer {ADMIN_TOKEN}"}):
            assert (await get(address, path, **headers)).status_code == (404 if path == "/nothing" else 200)
        assert service.sample("eul_policy_denials_total", reason="identity") == len(others) - 1  # a browser asks first


async def test_the_page_cannot_be_framed_and_runs_nothing_but_its_own_script(home: ServiceHome) -> None:
    async with shown(home) as (_, address):
        answer = await get(address, "/", **basic(ADMIN_TOKEN))
        rules = answer.headers["content-security-policy"]
        assert "default-src 'none'" in rules
        assert "frame-ancestors 'none'" in rules
        assert "unsafe" not in rules
        assert answer.headers["cache-control"] == "no-store"
        async with httpx.AsyncClient() as client:
            assert (await client.post(f"http://{address}/", headers=basic(ADMIN_TOKEN))).status_code == 404


def test_nothing_that_is_shown_can_become_markup() -> None:
    script = resources.files("eul_serve.page").joinpath("files", "page.js").read_text()
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "setAttribute"):
        assert way not in script


async def test_what_it_says_is_what_there_is(home: ServiceHome) -> None:
    async with shown(home) as (service, address):
        await service.ask("acme", max_tokens=3)
        with pytest.raises(Exception, match="no such adapter"):
            await service.ask("acme", adapter="base")
        found = (await get(address, "/status.json", **basic(ADMIN_TOKEN))).json()
        assert found["tokens"] == {"prompt": 2.0, "completion": 3.0}
        (revision,) = found["status"]["revisions"]
        assert (revision["name"], revision["state"], revision["requests"]) == ("poems", "BUNDLE_STATE_ACTIVE", ["r1"])
        assert [one["name"] for one in found["status"]["tenants"]] == ["acme", "zeta"]
        (denial,) = found["denials"]
        assert (denial["method"], denial["reason"], denial["tenant"]) == ("Generate", "refused", "acme")
        assert {"swap", "stage"} <= {one["act"] for one in found["happenings"]}
        assert token_of("acme") not in str(found)


async def opened(browser: Chromium, address: str) -> None:
    await asyncio.to_thread(browser.open, f"http://ana:{ADMIN_TOKEN}@{address}/")


async def becomes(browser: Chromium, code: str) -> bool:
    return await asyncio.to_thread(browser.becomes, code)


async def value(browser: Chromium, code: str) -> Any:
    return await asyncio.to_thread(browser.evaluate, code)


async def test_a_browser_shows_a_swap_as_it_goes(home: ServiceHome, browser: Chromium) -> None:
    engine = FakeEngine(home.fingerprint)
    async with shown(home, engine=engine) as (service, address):
        await opened(browser, address)
        assert await becomes(browser, "document.querySelectorAll('#revisions tbody tr').length == 1")
        row = await value(browser, "[...document.querySelectorAll('#revisions td')].map(cell => cell.textContent)")
        assert row[1:6] == ["poems", "ACTIVE", "poems:stable", "0", "r1"]
        assert await value(browser, "document.getElementById('swaps').textContent") == "none"
        engine.load_step = 6.0
        second = home.publish("poems", "stable", "r1", "r2", seed=2)
        moving = "[...document.querySelectorAll('#swaps td')].map(cell => cell.textContent).join(' ')"
        assert await becomes(browser, f"({moving}).includes('{second[7:19]} poems VERIFIED')")
        assert await becomes(browser, "document.getElementById('swaps').textContent == 'none'")
        await service.ask("acme", max_tokens=40)
        assert await becomes(browser, "parseFloat(document.querySelector('#numbers b').textContent) > 0")
        assert await becomes(browser, "document.querySelector('#happenings').textContent.includes('swap')")
        told = browser.told("Runtime.exceptionThrown", "Log.entryAdded")
        assert told == []
        asked = {event["request"]["url"].rpartition("/")[2] for event in browser.told("Network.requestWillBeSent")}
        assert asked == {"", "page.css", "page.js", "status.json"}


async def test_a_server_that_is_gone_is_said_to_be(home: ServiceHome, browser: Chromium) -> None:
    async with shown(home) as (_, address):
        await opened(browser, address)
        assert await becomes(browser, "document.getElementById('state').textContent.startsWith('as of')")
    assert await becomes(browser, "document.getElementById('state').textContent.startsWith('no answer')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing(home: ServiceHome, browser: Chromium, axe: str, scheme: str) -> None:
    async with shown(home) as (service, address):
        with pytest.raises(Exception, match="no such adapter"):
            await service.ask("acme", adapter="base")
        await opened(browser, address)
        await asyncio.to_thread(browser.show, 1280, scheme=scheme)
        assert await becomes(browser, "document.querySelectorAll('#denials tbody tr').length == 1")
        await value(browser, axe + "; true")
        found = await value(browser, "axe.run(document)")
        assert [(rule["id"], node["html"][:200]) for rule in found["violations"] for node in rule["nodes"]] == []
        assert "color-contrast" in {rule["id"] for rule in found["passes"]}
        await asyncio.to_thread(browser.show, 360)
        assert await value(browser, "document.documentElement.scrollWidth") == 360
