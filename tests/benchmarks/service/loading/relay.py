"""A way to a server that can be torn: the connection ends as when a machine goes away, without a word."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from types import TracebackType

from eul_serve.address import Address

_AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER for a close that resets the connection."""


class Relay:
    """Carries connections to a server until it is torn; an asynchronous context."""

    def __init__(self, target: str) -> None:
        self._target = Address.parse(target)
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.tear()
        await self._server.wait_closed()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def tear(self) -> None:
        """Reset every connection, on both sides."""
        for writer in self._writers:
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            writer.transport.abort()
        self._writers.clear()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with suppress(OSError):
            answers, asking = await asyncio.open_connection(self._target.host, self._target.port)
            self._writers.append(asking)
            await asyncio.gather(_pump(reader, asking), _pump(answers, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):  # torn
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()
