"""A line between client and registry that breaks where a test says."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Self


class CuttingProxy:
    """Forwards connections to a registry, and cuts some after so many bytes."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._mutex = threading.Lock()
        self._limits: dict[str, list[int]] = {"request": [], "answer": []}
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        """Where to connect."""
        self.cuts = 0
        """How many connections were cut."""
        self.answered = 0
        """How many bytes the registry sent."""

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    def cut_requests_after(self, *limits: int) -> None:
        """Cut one connection after each of these numbers of bytes towards the registry, one after the other."""
        self._limits["request"] = list(limits)

    def cut_answers_after(self, *limits: int) -> None:
        """Cut one connection after each of these numbers of bytes from the registry, one after the other."""
        self._limits["answer"] = list(limits)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        host, _, port = self._target.rpartition(":")
        with client, socket.create_connection((host, int(port))) as server:
            answers = threading.Thread(target=self._pump, args=(server, client, "answer"), daemon=True)
            answers.start()
            self._pump(client, server, "request")
            answers.join()

    def _pump(self, source: socket.socket, target: socket.socket, way: str) -> None:
        passed = 0
        try:
            while data := source.recv(1 << 16):
                passed += len(data)
                self.answered += len(data) if way == "answer" else 0
                with self._mutex:
                    if cut := bool(self._limits[way]) and passed > self._limits[way][0]:
                        self._limits[way].pop(0)
                        self.cuts += 1
                if cut:
                    break
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
