"""A running server that answers as the systems which it serves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from eul_serve.client import Client, Settings
from eul_serve.format import Bundle
from eul_trainer.evaluation.adapters import Adapter, find_adapters
from eul_trainer.evaluation.served import Served
from eul_trainer.model.load import LoadedModel


class Server:
    """A server and what it calls the systems; open with `open_server`."""

    def __init__(self, client: Client, adapters: Mapping[str, Adapter]) -> None:
        self._client = client
        self.adapters = adapters
        """Adapter by system, for those that it serves to this caller."""

    def answerer(self, name: str, model: LoadedModel) -> Served | None:
        """Return a system that answers there, None where it is not served.

        Args:
            name: The system.
            model: The base model here.

        Returns:
            The answerer.
        """
        adapter = self.adapters.get(name)
        return Served(self._client, adapter, model) if adapter else None


@contextmanager
def open_server(
    settings: Settings, bundles: Sequence[tuple[str, Bundle]], named: Mapping[str, str]
) -> Iterator[Server]:
    """Connect to a server and find the bundles there, before anything slow is done.

    Args:
        settings: How to reach it.
        bundles: The bundles, by system.
        named: What it calls them, by system, where that is known.

    Yields:
        The server.

    Raises:
        EulError: It cannot be reached, refuses, or does not serve a bundle.
    """
    with Client(settings.address, settings.token, settings=settings) as client:
        yield Server(client, find_adapters(client, bundles, named))
