"""The bundles of a sequence: which steps an order of requests has, and the fusion or revocation of each, made once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from eul_serve.errors import InputError
from eul_serve.format import Bundle, read_bundle
from eul_serve.format.bundle import WEIGHTS_FILE
from eul_trainer.evaluation.cache import code_digest
from eul_trainer.fusion.fuse import fuse
from eul_trainer.fusion.retained import Retained
from eul_trainer.fusion.revoke import revoke
from eul_trainer.fusion.settings import FuseSettings
from eul_trainer.output.package import RUN_FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One fusion or revocation."""

    action: Literal["fuse", "revoke"]
    """What is done."""
    request: str
    """The request that comes or goes."""
    requests: tuple[str, ...]
    """The requests that the bundle covers afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The bundle of a step."""

    step: Step
    """The step."""
    bundle: Bundle
    """The bundle after it."""
    seconds: float
    """Seconds that it took; 0 for the first layer, which nothing is done to."""

    @property
    def name(self) -> str:
        """Name of the system: bundles of the same weights are measured once."""
        return self.bundle.manifest.files[WEIGHTS_FILE].sha256


def steps_of(order: Sequence[str], revocations: bool) -> list[Step]:
    """Return the steps of an order: each request is fused in, then all but the last are revoked as they came.

    Args:
        order: Ids of the requests.
        revocations: Whether they are revoked.

    Returns:
        The steps.
    """
    found = [
        Step(action="fuse", request=request, requests=tuple(order[: number + 1]))
        for number, request in enumerate(order)
    ]
    gone = [
        Step(action="revoke", request=request, requests=tuple(order[number + 1 :]))
        for number, request in enumerate(order[:-1])
    ]
    return found + (gone if revocations else [])


def layers_by_request(paths: Sequence[Path]) -> dict[str, Bundle]:
    """Read layers of one request each.

    Args:
        paths: Their directories.

    Returns:
        The layers by their request's id.

    Raises:
        InputError: One covers several requests, or two cover the same.
    """
    found: dict[str, Bundle] = {}
    for path in paths:
        bundle = read_bundle(path)
        if len(bundle.manifest.requests) != 1:
            covered = ", ".join(request.id for request in bundle.manifest.requests)
            raise InputError(f"{str(path)!r}: expected a layer of one request, found {covered}; name the single layers")
        request = bundle.manifest.requests[0].id
        if request in found:
            raise InputError(f"{str(path)!r}: request {request!r} has another layer already; name one of the two")
        found[request] = bundle
    return found


class Workshop:
    """Makes the bundles of all steps, each once; a second run finds them.

    Args:
        folder: Where they are kept.
        layers: The layers by request.
        settings: How they are fused.
        retained: The base model and the retained rows of the fusion; None does without.
    """

    def __init__(
        self, folder: Path, layers: Mapping[str, Bundle], settings: FuseSettings, retained: Retained | None
    ) -> None:
        self._folder, self._layers, self._settings, self._retained = folder, layers, settings, retained

    def run(self, order: Sequence[str], revocations: bool, watch: Callable[[Step], None]) -> list[Made]:
        """Make the bundles of an order.

        Args:
            order: Ids of the requests.
            revocations: Whether they are revoked at the end.
            watch: Told about every step before it is made.

        Returns:
            The steps with their bundles.
        """
        found: list[Made] = []
        for step in steps_of(order, revocations):
            watch(step)
            found.append(self._make(step, found[-1].bundle if found else None))
        return found

    def _make(self, step: Step, before: Bundle | None) -> Made:
        if before is None:
            return Made(step=step, bundle=self._layers[step.request], seconds=0.0)
        if step.action == "revoke":
            path = self._place("revoke", [before.revision, step.request])
            if not path.exists():
                revoke(before.path, [step.request], path, self._retained)
        else:
            members = [self._layers[request] for request in step.requests]
            path = self._place("fuse", sorted(member.revision for member in members))
            if not path.exists():
                fuse([member.path for member in members], path, self._settings, self._retained)
        seconds = json.loads((path / RUN_FILE).read_text())["seconds"]
        return Made(step=step, bundle=read_bundle(path), seconds=seconds)

    def _place(self, action: str, given: Sequence[str]) -> Path:
        """Return where a bundle lies: a digest of all that it is made of."""
        retained = self._retained.digest if self._retained else None
        identity = [action, list(given), asdict(self._settings), retained, code_digest()]
        return self._folder / hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
