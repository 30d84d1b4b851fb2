"""Who moves a bundle to each store: ours, and the peers by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eul_serve.format import Bundle
from moving.copied import SUMS, Copied
from moving.mover import Mover
from moving.ours import Ours
from moving.remote import Oras, S3fs
from moving.serving import docker_registry, seaweed

PEERS = {"directory": [f"cp_{sums}" for sums in SUMS], "oci": ["oras"], "s3": ["s3fs"]}
"""Names of each store's peers; the first is the one that the summary shows."""


@contextmanager
def sides(store: str, bundle: Bundle, root: Path) -> Iterator[dict[str, Mover]]:
    """Make a new, empty place for each side, and end its server with the context.

    Args:
        store: Which store.
        bundle: What they move.
        root: A new directory, in which the places are.

    Yields:
        The sides by name, ours as `ours`.
    """
    root.mkdir(parents=True)
    if store == "directory":
        peers: dict[str, Mover] = {f"cp_{sums}": Copied(bundle, root / f"peer-{sums}", sums) for sums in SUMS}
        yield {"ours": Ours(bundle, str(root / "registry")), **peers}
    elif store == "oci":
        with docker_registry(root / "ours") as ours, docker_registry(root / "peer") as peer:
            yield {"ours": Ours(bundle, f"oci://{ours}/layers"), "oras": Oras(bundle, peer)}
    else:
        with seaweed(root / "server") as url:
            yield {"ours": Ours(bundle, f"{url}/ours"), "s3fs": S3fs(bundle, url)}
