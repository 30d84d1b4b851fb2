"""The bundles that every worker holds: how they come in, how they go, and which are there."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path

from eul_serve.engine.base import EngineInfo, ResidentBundle
from eul_serve.engine.compat import LoRARequest
from eul_serve.engine.fine_tune import NO_FINE_TUNES
from eul_serve.engine.llm import RunningLlm, engine_failures
from eul_serve.engine.loading import check_path
from eul_serve.errors import BundleFormatError, CapacityError, EngineError, InputError
from eul_serve.format import read_bundle
from eul_serve.format.composite import check_passed

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05
"""Seconds between two looks at a bundle that is being read; each look costs the engine a fraction of a millisecond."""


class Residents:
    """The resident bundles of one engine."""

    def __init__(self, llm: RunningLlm, info: EngineInfo, root: Path | None) -> None:
        """Start with none.

        Args:
            llm: Whose workers hold the bundles.
            info: What bounds their number and rank, and the fingerprint that they must name.
            root: Directory that every bundle must lie in; None allows any.
        """
        self._llm, self._info, self._root = llm, info, root
        self._bundles: dict[int, ResidentBundle] = {}
        self._used_ids: set[int] = set()
        self._loading = asyncio.Lock()

    def __contains__(self, bundle: ResidentBundle) -> bool:
        return self._bundles.get(bundle.id) == bundle

    def check(self, bundle: ResidentBundle) -> None:
        """Refuse a bundle that is not resident.

        Args:
            bundle: The bundle.

        Raises:
            EngineError: It is not resident.
        """
        if bundle not in self:
            raise EngineError(f"bundle {bundle.revision}: not resident; load it before use")

    async def hold_slot(self, bundle: ResidentBundle, *, held: bool) -> None:
        """Have a bundle keep a slot in every worker, or let it go again."""
        with engine_failures():
            await self._llm.live.collective_rpc("eul_hold_slot", args=(bundle.id, held))

    async def load(self, bundle: ResidentBundle) -> dict[str, float]:
        """Bring a bundle into every worker and pin it in host memory.

        Args:
            bundle: A bundle with a fresh id and its digest in the path.

        Returns:
            Seconds by stage: verify and cast of the slowest worker, which decode meanwhile, and slot.

        Raises:
            InputError: The path is not acceptable, or does not hold the digest; or a composite where none is served.
            RefusedError: A composite that has not passed its evaluation.
            BundleFormatError: The files are not the revision, or a worker refused them.
            BundleMismatchError: The bundle was made for another base model.
            CapacityError: All places are taken, or the rank is too high.
            EngineError: The id was used before.
        """
        async with self._loading:
            self._check_room(bundle)
            if bundle.revision.removeprefix("sha256:") not in bundle.path.parts:
                raise InputError(f"bundle path {str(bundle.path)!r}: expected its digest in the path")
            return await self.add(bundle)

    def _check_room(self, bundle: ResidentBundle) -> None:
        if bundle.rank > self._info.max_rank:
            raise CapacityError(
                f"bundle {bundle.revision}: rank: expected at most {self._info.max_rank}, found {bundle.rank}; "
                "start the server with a higher maximum rank"
            )
        if len(self._bundles) >= self._info.capacity:
            raise CapacityError(
                f"bundle {bundle.revision}: all {self._info.capacity} places in host memory are taken; "
                "unload another bundle or start the server with a larger capacity"
            )

    async def add(self, bundle: ResidentBundle) -> dict[str, float]:
        """Bring in a bundle from wherever it lies under the root; for the probe, which has no place in the cache.

        Args:
            bundle: A bundle with a fresh id.

        Returns:
            Seconds by stage.

        Raises:
            InputError: The path is not acceptable.
            BundleFormatError: The files are not the revision, or a worker refused them.
            BundleMismatchError: The bundle was made for another base model.
            EngineError: The id was used before, or the engine died.
        """
        if bundle.id in self._used_ids:
            raise EngineError(f"adapter id {bundle.id}: expected a fresh one; ids are never used again")
        await self._check_files(bundle)
        self._used_ids.add(bundle.id)
        try:
            seconds = await self._stage(bundle)
            begin = time.perf_counter()
            await self._llm.live.add_lora(adapter_of(bundle))
            await self._llm.live.pin_lora(bundle.id)
        except Exception as error:
            with suppress(Exception):
                await self._llm.live.remove_lora(bundle.id)
            await self._llm.check()
            raise BundleFormatError(f"bundle {bundle.revision}: a worker refused it: {error}") from error
        self._bundles[bundle.id] = bundle
        return {**seconds, "slot": time.perf_counter() - begin}

    async def _stage(self, bundle: ResidentBundle) -> dict[str, float]:
        """Let every worker read and check the bundle while it decodes, and wait for the slowest."""
        call, path = self._llm.live.collective_rpc, (str(bundle.path),)
        await call("eul_stage", args=path)
        pause = _FIRST_PAUSE
        while None in (states := await call("eul_staged", args=path)):
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        if refused := [state for state in states if isinstance(state, str)]:
            raise BundleFormatError(refused[0])
        return {stage: max(state[stage] for state in states) for stage in states[0]}

    async def _check_files(self, bundle: ResidentBundle) -> None:
        # The workers check all this again, and the weights; here it gives errors of the right kind, and before they are
        # disturbed.
        check_path(bundle.path, self._root)
        found = await asyncio.to_thread(read_bundle, bundle.path, self._info.fingerprint, weights=False)
        if found.revision != bundle.revision or found.config.rank != bundle.rank:
            raise BundleFormatError(
                f"bundle path {str(bundle.path)!r}: expected {bundle.revision}, found {found.revision}"
            )
        if check_passed(found.manifest) is not None and not self._info.fine_tunes:
            raise InputError(f"bundle {bundle.revision}: {NO_FINE_TUNES}")

    async def unload(self, bundle: ResidentBundle) -> None:
        """Remove a bundle from every worker; nothing happens where it is not loaded."""
        self._bundles.pop(bundle.id, None)
        with engine_failures():
            await self._llm.live.remove_lora(bundle.id)

    async def ids(self) -> frozenset[int]:
        """Return the ids that every worker holds."""
        with engine_failures():
            return frozenset(await self._llm.live.list_loras()) & self._bundles.keys()

    def forget(self) -> None:
        """Count none as resident; the workers are about to go."""
        self._bundles.clear()


def adapter_of(bundle: ResidentBundle) -> LoRARequest:
    """Return what a bundle is to vLLM."""
    # vLLM keys its prefix cache by name (and path), and tells requests in a batch apart by name alone: the name
    # holds the digest, and the id, because a revision may be loaded twice.
    return LoRARequest(lora_name=f"{bundle.revision}.{bundle.id}", lora_int_id=bundle.id, lora_path=str(bundle.path))
