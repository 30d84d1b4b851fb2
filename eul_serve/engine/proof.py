"""The proof of a started engine: its workers run the plugin, and the probe's answer is the one that it must give."""

from __future__ import annotations

import asyncio

from eul_serve.engine.base import ResidentBundle, Work
from eul_serve.engine.checks import check_workers
from eul_serve.engine.llm import RunningLlm
from eul_serve.engine.probe import ProbeDirectory, compare, make_probe
from eul_serve.engine.requests import Requests
from eul_serve.engine.residents import Residents
from eul_serve.engine.settings import EngineSettings

_ID = 2**30
_TOKENS = (0, 1, 2)
_TOP = 5


async def prove(
    llm: RunningLlm, residents: Residents, requests: Requests, settings: EngineSettings, fingerprint: str
) -> None:
    """Prove that bundles are applied in every worker; leaves none resident.

    Args:
        llm: The started vLLM.
        residents: Its bundles.
        requests: Its requests.
        settings: How it was started.
        fingerprint: Fingerprint that its bundles must name.

    Raises:
        InputError: The model's layout is not one whose answer is known.
        EngineError: A worker does not do what it must.
    """
    modules = await check_workers(llm.live)
    with ProbeDirectory(settings.bundles) as path:
        probe = await asyncio.to_thread(make_probe, path, settings, modules, fingerprint)
        bundle = ResidentBundle(revision=probe.bundle.revision, id=_ID, path=path, rank=1)
        await residents.add(bundle)
        work = Work(id="probe", token_ids=_TOKENS, bundle=bundle, salt="probe")
        found = await requests.likeliest(work, _TOP)
        await residents.unload(bundle)
    compare(probe, found)
