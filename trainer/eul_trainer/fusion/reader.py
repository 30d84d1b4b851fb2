"""Reading `fusion.safetensors`: digest, header, shapes and values are checked before anything is used."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import safetensors
import safetensors.torch
import torch

from eul_serve.errors import BundleFormatError, InputError
from eul_serve.format import Bundle, ForgottenRequest, check_digest, check_name
from eul_serve.format.bundle import STATISTICS_FILE
from eul_serve.format.config import check_keys, parse_object
from eul_serve.format.digest import digest_bytes, reading
from eul_serve.format.header import Header, parse_header
from eul_serve.format.tensors import check_finite
from eul_serve.format.weights import LayerWeights
from eul_trainer.fusion.layout import LOW_RANK, check_layout
from eul_trainer.fusion.store import VERSION, Entry, RetainMoments, Store
from eul_trainer.moments.gram import Gram, LowRankGram, PackedGram
from eul_trainer.moments.statistics import LayerStatistics, Moments, block_width

_FILE = f"file {STATISTICS_FILE!r}"
_TOLERANCE = 1e-6
"""How far below zero an eigenvalue may be, relative to the trace: rounding to float32."""
_MEMBER: dict[str, type] = {"id": str, "data": str, "tokens": int}
_MEMBER_2: dict[str, type] = {**_MEMBER, "on_top_of": list}


def read_store(bundle: Bundle) -> Store | None:
    """Read a bundle's `fusion.safetensors`, of this version or an earlier one.

    Args:
        bundle: The bundle.

    Returns:
        The contents, or None where the file is not there.

    Raises:
        BundleFormatError: The file is not the one that the manifest names, or does not fit the bundle.
    """
    if not (bundle.path / STATISTICS_FILE).exists():
        return None
    data = _read(bundle)
    header = parse_header(io.BytesIO(data), STATISTICS_FILE, {"F32": 4})
    version, members = _facts(header)
    ranks = check_layout(header, bundle, version, [int(raw["tokens"]) for raw in members])
    check_finite(io.BytesIO(data), header)
    try:
        tensors = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise BundleFormatError(f"{_FILE}: {error}") from error
    if version == 1:
        tensors = {name: _packed(name, tensor, members) for name, tensor in tensors.items()}
    entries = [_entry(index, raw, ranks[index], bundle, tensors) for index, raw in enumerate(members)]
    return Store(entries=entries, retain=_retained(bundle, sum(ranks), tensors))


def _read(bundle: Bundle) -> bytes:
    """Return the file's bytes, hashed again: what was checked is what is used."""
    if STATISTICS_FILE not in bundle.manifest.artifacts:
        raise BundleFormatError(f"{_FILE}: it is not in the manifest of {bundle.revision}; remove it")
    entry = bundle.manifest.artifacts[STATISTICS_FILE]
    with reading(bundle.path / STATISTICS_FILE) as file:
        data = file.read(entry.size + 1)
    if len(data) != entry.size or digest_bytes(data) != entry.sha256:
        raise BundleFormatError(f"{_FILE}: expected {entry.sha256}; the file was changed")
    return data


def _facts(header: Header) -> tuple[int, list[dict[str, Any]]]:
    found = parse_object(header.metadata.get("fusion", "{}").encode(), _FILE)
    check_keys(found, {"version": int, "members": list}, _FILE)
    version, members = found["version"], found["members"]
    if version not in range(1, VERSION + 1):
        raise BundleFormatError(
            f"{_FILE}: version: expected 1 to {VERSION}, found {version!r:.20}; fuse with the version that wrote it"
        )
    for raw in members:
        wanted = _MEMBER if version == 1 else _MEMBER_2
        if not isinstance(raw, dict) or not raw.keys() >= wanted.keys() or raw.get("revision", 0) == 0:
            raise BundleFormatError(f"{_FILE}: members: expected {', '.join(wanted)}, found {raw!r:.100}")
        check_keys({key: raw[key] for key in wanted}, wanted, f"{_FILE}: members")
        if raw["tokens"] < 0:
            raise BundleFormatError(f"{_FILE}: members: tokens: expected 0 or more, found {raw['tokens']}")
    return version, members


def _packed(name: str, tensor: torch.Tensor, members: list[dict[str, Any]]) -> torch.Tensor:
    """Return a tensor of version 1 as version 2 stores it."""
    owner, part = name.partition(".")[0], name.rpartition(".")[2]
    if owner != "retain" and part not in ("units", "inputs"):
        return tensor
    if (tensor - tensor.T).abs().max() > 1e-5 * tensor.abs().max():
        raise BundleFormatError(f"{_FILE}: tensor {name!r}: expected a symmetric matrix")
    width = None if owner == "retain" else block_width(int(members[int(owner)]["tokens"]))
    return PackedGram.of(tensor, width).values


def _entry(index: int, raw: dict[str, Any], rank: int, bundle: Bundle, tensors: Mapping[str, torch.Tensor]) -> Entry:
    try:
        request = ForgottenRequest(id=check_name(raw["id"], "request"), data=check_digest(raw["data"]), units=None)
        revision = None if raw["revision"] is None else check_digest(raw["revision"])
        below = tuple(check_digest(text) for text in raw.get("on_top_of", []))
    except InputError as error:
        raise BundleFormatError(f"{_FILE}: members: {error}") from error
    moments, layers = {}, {}
    for module, width in bundle.widths.items():
        name = f"{index}.{module}"
        if f"{name}.units" in tensors:
            moments[module] = _moments(name, rank, width, int(raw["tokens"]), tensors)
        if f"{name}.down" in tensors:
            layers[module] = LayerWeights(tensors[f"{name}.down"], tensors[f"{name}.up"], tensors.get(f"{name}.bias"))
    return Entry(
        request=request,
        revision=revision,
        statistics=LayerStatistics(tokens=int(raw["tokens"]), moments=moments, error=raw.get("error")),
        layers=layers,
        init_seed=raw.get("init_seed"),
        on_top_of=below,
    )


def _moments(name: str, rank: int, width: int, tokens: int, tensors: Mapping[str, torch.Tensor]) -> Moments:
    blocks = block_width(tokens)
    inputs: Gram | None = None
    if f"{name}.inputs" in tensors:
        inputs = PackedGram(size=width + 1, width=min(blocks, width + 1), values=tensors[f"{name}.inputs"])
        _check_positive(f"{name}.inputs", inputs)
    elif f"{name}.inputs.vectors" in tensors:
        vectors, values, remainder = (tensors[f"{name}.{part}"] for part in LOW_RANK)
        inputs = LowRankGram(vectors=vectors, values=values, remainder=remainder)
        if values.lt(0).any() or remainder.lt(0).any():
            raise BundleFormatError(f"{_FILE}: tensor '{name}.inputs': expected no negative value")
    units = PackedGram(size=rank, width=min(blocks, rank), values=tensors[f"{name}.units"])
    _check_positive(f"{name}.units", units)
    gate, mean, variance = (tensors.get(f"{name}.{part}") for part in ("gate", "mean", "variance"))
    if variance is not None and variance.lt(0).any():
        raise BundleFormatError(f"{_FILE}: tensor '{name}.variance': expected no negative value")
    return Moments(units=units.dense(), gate=gate, mean=mean, variance=variance, inputs=inputs)


def _retained(bundle: Bundle, units: int, tensors: Mapping[str, torch.Tensor]) -> dict[str, RetainMoments]:
    found = {}
    for module, width in bundle.widths.items():
        values = tensors.get(f"retain.{module}.units", tensors.get(f"retain.{module}"))
        inputs = tensors.get(f"retain.{module}.inputs")
        if values is None:
            continue
        gram = PackedGram(size=units, width=units, values=values)
        wide = None if inputs is None else PackedGram(size=width + 1, width=width + 1, values=inputs)
        _check_positive(f"retain.{module}.units", gram)
        if wide is not None:
            _check_positive(f"retain.{module}.inputs", wide)
        found[module] = RetainMoments(units=gram.dense(), inputs=None if wide is None else wide.dense())
    return found


def _check_positive(name: str, gram: PackedGram) -> None:
    """Refuse what cannot be a second moment: a matrix with a negative eigenvalue."""
    for block in gram.blocks():
        wide = block.double()
        level = _TOLERANCE * float(wide.trace().clamp_min(0)) + 1e-12
        _, bad = torch.linalg.cholesky_ex(wide + level * torch.eye(len(wide), dtype=torch.float64))
        if bad:
            raise BundleFormatError(f"{_FILE}: tensor {name!r}: expected a second moment, found a negative eigenvalue")
