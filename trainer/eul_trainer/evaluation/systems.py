"""What is measured side by side: a base model alone, and with each of several bundles on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eul_serve.errors import InputError
from eul_serve.format import Bundle, read_bundle
from eul_trainer.evaluation.answerer import Answerer
from eul_trainer.evaluation.local import Local
from eul_trainer.evaluation.roles import BASE, TWIN
from eul_trainer.model.adapter import BundleStack
from eul_trainer.model.load import LoadedModel, Network

if TYPE_CHECKING:
    from eul_trainer.evaluation.server import Server


class Systems:
    """One model in memory, and the bundles that are put on it one at a time.

    Args:
        model: The model.
        bundles: Bundles by name.
        change: Changes the weights of model and bundles in place.
        note: What the change is called; results of changed systems are kept apart by it.
        server: Where those answer that it serves.
    """

    def __init__(
        self,
        model: LoadedModel,
        bundles: Sequence[tuple[str, Bundle]],
        *,
        change: Callable[[Network], object] | None = None,
        note: str = "",
        server: Server | None = None,
    ) -> None:
        self.model = model
        self._note, self._server = note, server
        self.revisions: dict[str, str | None] = {BASE: None} | {name: bundle.revision for name, bundle in bundles}
        """Revision by system, the base model first; None for it."""
        self.requests = {name: [request.id for request in bundle.manifest.requests] for name, bundle in bundles}
        """Ids of the deletion requests that each bundle covers."""
        self._stack = BundleStack(model, bundles)
        if change:
            change(model.network)

    def on(self, name: str) -> AbstractContextManager[None]:
        """Have a system on while the context lasts."""
        return self._stack.on(None if name == BASE else name)

    def answerer(self, name: str) -> Answerer:
        """Return who answers as a system: the server where it serves it, else the model here."""
        return (self._server and self._server.answerer(name, self.model)) or self.local(name)

    def local(self, name: str) -> Local:
        """Return a system that answers in this process."""
        return Local(self.model, self.identity(name), partial(self.on, name))

    def identity(self, name: str) -> str:
        """Return what tells a system from all others, precision and device included, as they change the last digits."""
        model = self.model
        where = f"{model.network.dtype} {model.device.type} {self._note}"
        return f"{model.base.fingerprint} {self.revisions[name]} {where}"


def open_bundles(paths: Sequence[Path], fingerprint: str) -> list[tuple[str, Bundle]]:
    """Read bundles for a base model and name them after their directories.

    Args:
        paths: The bundles' directories.
        fingerprint: Fingerprint of the base model.

    Returns:
        Bundles by name.

    Raises:
        InputError: Two directories have the same name.
        BundleMismatchError: A bundle was made for another base model.
    """
    names = [path.resolve().name for path in paths]
    for name in names:
        if names.count(name) > 1 or name in (BASE, TWIN):
            raise InputError(f"--bundle: two systems are called {name!r}; rename a directory")
    return [(name, read_bundle(path, fingerprint)) for name, path in zip(names, paths, strict=True)]
