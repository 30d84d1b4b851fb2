"""Taking requests out of a fused bundle: a fusion of the other layers with the same settings, and no forget data."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from eul_serve.errors import InputError
from eul_serve.format import Bundle, read_bundle
from eul_trainer.fusion.fuse import prepare, write_fused
from eul_trainer.fusion.job import Job
from eul_trainer.fusion.members import Member, members_of
from eul_trainer.fusion.reader import read_store
from eul_trainer.fusion.retained import Retained
from eul_trainer.fusion.settings import FuseSettings
from eul_trainer.fusion.store import RetainMoments
from eul_trainer.output.directory import check_output


def revoke(path: Path, requests: Sequence[str], out: Path, retained: Retained | None = None) -> Bundle:
    """Take requests out of a fused bundle and write the rest.

    Args:
        path: The fused bundle, as `fuse` wrote it.
        requests: Ids of the requests.
        out: Directory to write.
        retained: The model and the retained rows of the fusion. A healed bundle needs them; for the others what the
            bundle stores is enough, and a weight that a limit chose stays as it is.

    Returns:
        The bundle without the requests, equal to a fusion of the other layers with the same settings.

    Raises:
        InputError: The bundle lacks one of the requests, has no other, or has a layer on top of one of them.
        BundleMismatchError: The bundle was made for another model.
    """
    check_output(out)
    started = time.perf_counter()
    bundle = read_bundle(path)
    members = members_of(bundle)
    gone = _gone(members, requests)
    rest = [member for member in members if member.revision not in gone]
    facts = dict(bundle.manifest.settings.get("fusion", {}))
    settings = FuseSettings.from_facts({"crosstalk": 0.0, **facts})  # a manifest that does not name it had none
    if retained is not None:
        _check_same(bundle, facts, retained)
        again = settings if settings.retain_limit is None else replace(settings, rho=None)
        return write_fused(out, bundle, prepare(rest, again, retained), started)
    if settings.heal_steps and len(rest) > 1:
        raise InputError(
            "--model and --retain: needed to revoke from a healed bundle; give the model and the retained rows that "
            "it was fused with"
        )
    kept = {name: facts[name] for name in ("retain_data", "retain_tokens") if name in facts}
    job = Job(members=rest, settings=replace(settings, retain_limit=None), moments=_moments(bundle, members, gone))
    return write_fused(out, bundle, job, started, kept)


def _gone(members: Sequence[Member], requests: Sequence[str]) -> set[str]:
    """Return the revisions of the layers to take out; no other may have been trained on top of one of them."""
    known = [member.request.id for member in members]
    for request in requests:
        if request not in known:
            raise InputError(f"--request {request!r}: not in the bundle, which has {', '.join(known)}")
    gone = {member.revision for member in members if member.request.id in requests}
    if len(gone) == len(members):
        raise InputError(f"--request {requests[0]!r}: the bundle has no other request; stop serving it instead")
    above = [one.request.id for one in members if one.revision not in gone and gone & set(one.on_top_of)]
    if above:
        raise InputError(
            f"--request {requests[0]!r}: the layers of {', '.join(above)} were trained on top of it and do not hold "
            f"without it; take them out too (--request {' --request '.join(above)}) and train them again"
        )
    return gone


def _check_same(bundle: Bundle, facts: dict[str, Any], retained: Retained) -> None:
    retained.check_base(bundle)
    if facts.get("retain_data") != retained.digest:
        raise InputError(
            f"--retain: expected the rows that the bundle was fused with, {facts.get('retain_data', 'none')}, found "
            f"{retained.digest}; to use others, fuse the layers again"
        )


def _moments(bundle: Bundle, members: Sequence[Member], gone: set[str]) -> dict[str, RetainMoments]:
    """Return the stored moments on retained rows without the units that go."""
    store = read_store(bundle)
    flags = [torch.full((member.rank,), member.revision not in gone) for member in members]
    kept = torch.cat(flags).nonzero()[:, 0]
    return {
        module: RetainMoments(units=found.units[kept][:, kept], inputs=found.inputs)
        for module, found in (store.retain if store else {}).items()
    }
