"""Making a composite: measure, decide, and write it only if the fine-tune brings nothing back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from eul_serve.errors import InputError, RefusedError
from eul_serve.format import Bundle, read_bundle
from eul_serve.format.composite import composite_of
from eul_trainer.compose.fine_tune import read_peft_lora
from eul_trainer.compose.package import write_composite
from eul_trainer.compose.recall import Recall, Tell, measure, silent
from eul_trainer.model.load import load_model
from eul_trainer.records import Row, digest_rows

RETAIN = "rows to keep"
"""Name of their set; no request can have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a composite may cost before it is refused."""

    brought_back: float = 0.3
    """Most nats by which the fine-tune may lower a forgotten request's loss under the bundle."""
    disturbed: float = 0.1
    """Most nats by which the bundle may raise the fine-tune's loss on rows to keep."""

    def __post_init__(self) -> None:
        for option, limit in (("--limit", self.brought_back), ("--retain-limit", self.disturbed)):
            if not 0 <= limit < math.inf:
                raise InputError(f"{option}: expected 0 nats or more, found {limit}")


def compose(
    model: str,
    bundle_dir: Path,
    adapter: Path,
    forget: Sequence[Sequence[Row]],
    retain: Sequence[Row],
    out: Path,
    limits: Limits,
    *,
    device: str = "cpu",
    tell: Tell = silent,
) -> tuple[Bundle, dict[str, Recall]]:
    """Measure a bundle with a fine-tune beside it, and write the composite if it passes.

    Args:
        model: Directory or hub name of the base model.
        bundle_dir: Directory of the bundle.
        adapter: Directory of the fine-tune, a plain LoRA of PEFT.
        forget: The rows of every request that the bundle covers, a set for each, in any order.
        retain: Rows that the tenant wants answered as by the fine-tune; may be empty.
        out: Directory to write.
        limits: What is refused.
        device: Where to compute.
        tell: Told after each set of rows under each of the four models.

    Returns:
        The composite, and what was measured by request (and `rows to keep`).

    Raises:
        InputError: A request's rows are not among `forget`, or a part is not what it should be.
        BundleMismatchError: A part was made for another base model.
        RefusedError: The fine-tune brings something back, or the bundle disturbs it; nothing is written.
    """
    fine_tune = read_peft_lora(adapter)
    loaded = load_model(model, device)
    bundle = read_bundle(bundle_dir, loaded.base.fingerprint)
    if composite_of(bundle.manifest) is not None:
        raise InputError(f"bundle {str(bundle_dir)!r}: a composite already; name the bundle that it was made of")
    sets = {**_by_request(bundle, forget), **({RETAIN: retain} if retain else {})}
    found = measure(loaded, bundle, fine_tune, sets, tell)
    _check(found, limits)
    return write_composite(out, bundle, fine_tune, found, asdict(limits)), found


def _by_request(bundle: Bundle, forget: Sequence[Sequence[Row]]) -> dict[str, Sequence[Row]]:
    """Return the rows of every request by its id; a request that is not measured could be the one brought back."""
    given = {digest_rows(rows): rows for rows in forget}
    missing = [request.id for request in bundle.manifest.requests if request.data not in given]
    if missing:
        raise InputError(
            f"bundle {bundle.revision}: the rows of {len(missing)} of its {len(bundle.manifest.requests)} requests are "
            f"not among the files of --forget ({', '.join(missing[:5])}); each must be measured, with the rows that "
            "its layer was trained on"
        )
    return {request.id: given[request.data] for request in bundle.manifest.requests}


def _check(found: Mapping[str, Recall], limits: Limits) -> None:
    for name, recall in found.items():
        if name == RETAIN:
            if not recall.disturbed <= limits.disturbed:
                raise RefusedError(
                    f"{RETAIN}: the bundle raises the fine-tune's loss by {recall.disturbed:.2f} nats, at most "
                    f"{limits.disturbed:g} is allowed ({recall}); train the layers with these rows among --retain"
                )
        elif not recall.brought_back <= limits.brought_back:
            raise RefusedError(
                f"request {name!r}: the fine-tune brings back {recall.brought_back:.2f} nats of what was forgotten, at "
                f"most {limits.brought_back:g} is allowed ({recall}); take the request's data out of what the "
                "fine-tune is trained on, and train it again"
            )
