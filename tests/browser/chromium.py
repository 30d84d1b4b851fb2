"""A headless Chromium, told what to do over a pipe in the DevTools protocol; no package is needed for it.

Messages are JSON with a zero byte behind each; the browser reads file descriptor 3 and writes 4.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any

SECONDS = 300
"""Longest wait for an answer: a machine may be busy, and how fast it is says nothing about the page."""
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--hide-scrollbars", "--force-color-profile=srgb", "--remote-debugging-pipe",
    # Whatever is asked of another machine fails, and is seen as a request.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip


class Chromium:
    """A browser with one page at a time.

    Args:
        program: Path of Chromium.
        profile: An empty folder for it.
    """

    def __init__(self, program: Path, profile: Path) -> None:
        mine, theirs = os.pipe(), os.pipe()  # what it reads, what it writes
        ends = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (mine[0], theirs[1])]

        def hand_over() -> None:
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        line = [str(program), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            line, preexec_fn=hand_over, pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for fd in (mine[0], theirs[1], *ends):
            os.close(fd)
        self._out, self._in, self._rest, self._number = mine[1], theirs[0], b"", 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        """What the page told since it was opened."""

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": given}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            found = self._read()
            if found.get("id") == self._number:
                assert "error" not in found, f"{method}: {found['error']}"
                return dict(found["result"])

    def open(self, url: str) -> None:
        """Open a page in place of the one before and wait until it is loaded."""
        self._session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not self.told("Page.loadEventFired"):
            self._read()

    def told(self, *methods: str) -> list[dict[str, Any]]:
        """Return what the page told of some kinds."""
        return [event["params"] for event in self.events if event["method"] in methods]

    def evaluate(self, code: str) -> Any:
        """Return the value of an expression in the page, promises awaited."""
        found = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def becomes(self, code: str) -> bool:
        """Wait until an expression in the page is true; false where it never is."""
        end = time.monotonic() + SECONDS / 10
        while not (found := bool(self.evaluate(code))) and time.monotonic() < end:
            time.sleep(0.05)
        return found

    def show(self, width: int, height: int = 800, *, scheme: str = "light", media: str = "screen") -> None:
        """Set the size in CSS pixels, the colour scheme, and the medium."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def press(self, key: str, code: int) -> None:
        """Press and let go of a key."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def click(self, selector: str) -> None:
        """Click into the middle of an element's first line box."""
        place = self.evaluate(
            f"(() => {{ const found = document.querySelector({json.dumps(selector)});"
            "found.scrollIntoView({block: 'center'}); const box = found.getClientRects()[0];"
            "return {x: box.x + box.width / 2, y: box.y + box.height / 2}; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def picture(self, path: Path, height: int | None = None) -> None:
        """Write the whole page as a PNG file, or its upper part."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        """End the browser."""
        self._session = None
        self.call("Browser.close")
        self._process.wait(SECONDS)
        os.close(self._out)
        os.close(self._in)

    def _read(self) -> dict[str, Any]:
        """Return the next message, and keep it when it is an event."""
        end = time.monotonic() + SECONDS
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0, end - time.monotonic()))
            assert ready, "Chromium does not answer"
            more = os.read(self._in, 1 << 20)
            assert more, f"Chromium ended with status {self._process.poll()}"
            self._rest += more
        text, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(text)
        if "method" in found:
            self.events.append(found)
        return found
