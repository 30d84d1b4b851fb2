"""Which tensors a `fusion.safetensors` has, and of which shapes: known from its header, before any is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from eul_serve.errors import BundleFormatError
from eul_serve.format import Bundle
from eul_serve.format.bundle import STATISTICS_FILE
from eul_serve.format.header import Header
from eul_trainer.moments.gram import packed_length
from eul_trainer.moments.statistics import block_width

Shape = tuple[int, ...]
LOW_RANK = ("inputs.vectors", "inputs.values", "inputs.remainder")
"""Parts of a Gram of inputs in its low-rank form."""
_MOMENTS = ("units", "gate", "inputs", "mean", "variance", *LOW_RANK)


def check_layout(header: Header, bundle: Bundle, version: int, tokens: Sequence[int]) -> list[int]:
    """Check names and shapes of all tensors against the bundle.

    Args:
        header: The file's header.
        bundle: The bundle that the file lies beside.
        version: Version of the file, 1 to 3.
        tokens: Answer tokens of each member.

    Returns:
        The rank of each member.

    Raises:
        BundleFormatError: A tensor is missing, unknown, or of another shape.
    """
    ranks = [_rank(header, bundle, index) for index in range(len(tokens))]
    expected = dict(_retained(header, bundle, version, sum(ranks)))
    for index, (rank, count) in enumerate(zip(ranks, tokens, strict=True)):
        expected |= dict(_member(header, bundle, version, index, rank, count))
    for name in sorted(expected.keys() | header.tensors.keys()):
        shape = header.tensors[name].shape if name in header.tensors else "nothing"
        if shape != expected.get(name, "nothing"):
            raise BundleFormatError(
                f"file {STATISTICS_FILE!r}: tensor {name[:200]!r}: expected {expected.get(name, 'nothing')}, found "
                f"{shape}; it does not fit {bundle.revision}"
            )
    return ranks


def _rank(header: Header, bundle: Bundle, index: int) -> int:
    """Return a member's rank: its own layer's in a fused bundle, else the bundle's."""
    entry = header.tensors.get(f"{index}.{next(iter(bundle.widths))}.down")
    return entry.shape[0] if entry is not None and entry.shape else bundle.config.rank


def _member(
    header: Header, bundle: Bundle, version: int, index: int, rank: int, tokens: int
) -> Iterator[tuple[str, Shape]]:
    own = ["down", "up", *(["bias"] if bundle.config.hidden_bias else [])] if bundle.manifest.parents else []
    # What one module has every module has.
    moments = [part for part in _MOMENTS if any(f"{index}.{path}.{part}" in header.tensors for path in bundle.widths)]
    if "inputs.vectors" in moments:
        moments = sorted({*moments, *LOW_RANK})
    blocks = block_width(tokens)
    for module, width in bundle.widths.items():
        vectors = header.tensors.get(f"{index}.{module}.inputs.vectors")
        kept = vectors.shape[0] if vectors is not None and vectors.shape else 0
        shapes: dict[str, Shape] = {
            "down": (rank, width),
            "up": (width, rank),
            "bias": (rank,),
            "units": _gram(version, rank, blocks),
            "inputs": _gram(version, width + 1, blocks),
            "gate": (width + 1,),
            "mean": (width,),
            "variance": (width,),
            "inputs.vectors": (min(kept, width + 1), width + 1),
            "inputs.values": (kept,),
            "inputs.remainder": (width + 1,),
        }
        yield from ((f"{index}.{module}.{part}", shapes[part]) for part in [*own, *moments])


def _retained(header: Header, bundle: Bundle, version: int, units: int) -> Iterator[tuple[str, Shape]]:
    if version == 1:
        if any(name.startswith("retain.") for name in header.tensors):
            yield from ((f"retain.{module}", (units, units)) for module in bundle.widths)
        return
    for part in ("units", "inputs"):
        if any(f"retain.{module}.{part}" in header.tensors for module in bundle.widths):
            for module, width in bundle.widths.items():
                size = units if part == "units" else width + 1
                yield f"retain.{module}.{part}", _gram(version, size, size)


def _gram(version: int, size: int, width: int) -> Shape:
    return (size, size) if version == 1 else (packed_length(size, min(width, size)),)
