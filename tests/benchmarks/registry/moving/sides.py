"""Who moves a bundle to each store: ours, and the peers by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eul_serve.errors import InputError
from eul_serve.format import Bundle
from moving.copied import SUMS, Copied
from moving.mover import Mover
from moving.ours import Ours

PEERS = {"directory": [f"cp_{sums}" for sums in SUMS], "oci": ["oras"], "s3": ["s3fs"]}
"""Names of each store's peers; the first is the one that the summary shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Where the servers are that both sides use."""

    oci: str
    """`oci://HOST/REPOSITORY`; empty where there is none."""
    s3: str
    """`s3://BUCKET/PREFIX`; empty where there is none."""


def sides(store: str, bundle: Bundle, root: Path, servers: Servers) -> dict[str, Mover]:
    """Return our side and its peers, each with a new place.

    Args:
        store: Which store.
        bundle: What they move.
        root: A new directory, of which each side has a part; its name is new on a server too.
        servers: Where the servers are.

    Returns:
        The sides by name, ours as `ours`.

    Raises:
        InputError: There is no server.
    """
    root.mkdir(parents=True)
    if store == "directory":
        peers: dict[str, Mover] = {f"cp_{sums}": Copied(bundle, root / f"peer-{sums}", sums) for sums in SUMS}
        return {"ours": Ours(bundle, str(root / "registry")), **peers}
    raise InputError(f"store {store!r}: unknown")
