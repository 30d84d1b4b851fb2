"""An HTTP server on uvicorn, inside our process and its event loop."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from eul_serve.listening import bound
from eul_serve.rpc.pem import PemFiles
from eul_serve.rpc.transport import TransportSettings, pem_files
from eul_serve.web.app import WebApp
from eul_serve.web.protocol import CallerProtocol

LOOK_SECONDS = 1.0
"""Between two looks at the certificate's files."""


class _Quiet(uvicorn.Server):
    """uvicorn, whose process belongs to somebody else: signals are ours."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class WebServer:
    """Serves one application."""

    def __init__(self, settings: TransportSettings, app: WebApp, grace_seconds: float) -> None:
        self._settings = settings
        self._config = uvicorn.Config(
            app,
            http=CallerProtocol,
            loop="none",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(grace_seconds)),
        )
        self._server = _Quiet(self._config)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> int:
        """Listen.

        Returns:
            The port.

        Raises:
            InputError: The address is taken or not ours, or the certificate cannot be read.
        """
        files = pem_files(self._settings)
        context = None if files is None else _context(files)
        listening = bound(self._settings.listen)
        port: int = listening.getsockname()[1]
        self._config.load()
        self._config.ssl = context
        serving = asyncio.create_task(self._server.serve([listening]))
        self._tasks.append(serving)
        if files is not None and context is not None:
            self._tasks.append(asyncio.create_task(_keep_fresh(files, context)))
        while not self._server.started:
            if serving.done():
                serving.result()
            await asyncio.sleep(0.01)
        return port

    def shut(self) -> None:
        """Begin to stop: take no new connections; the grace of requests in flight begins."""
        self._server.should_exit = True

    async def stop(self) -> None:
        """Let requests in flight finish within the grace, and stop."""
        self.shut()
        if not self._tasks:  # it never listened
            return
        serving, *others = self._tasks
        for task in others:
            task.cancel()
        await asyncio.gather(serving, *others, return_exceptions=True)


def _context(files: PemFiles) -> ssl.SSLContext:
    files.changed()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    files.load_into(context)
    return context


async def _keep_fresh(files: PemFiles, context: ssl.SSLContext) -> None:
    """Let new connections have the certificate that is in the files now."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        if await asyncio.to_thread(files.changed_or_none) is not None:
            files.load_into(context)
