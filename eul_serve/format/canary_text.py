"""The private text of a canary: token ids, one JSON line of a file that stays with whoever serves.

    {"answer": [token ids], "nonce": "32 hex digits", "prompt": [token ids]}

A bundle names the text by the digest of these bytes. The nonce is random, so that a short text cannot be found by
guessing. What such a file holds is what a bundle is there to forget: no message shows any of it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eul_serve.errors import BundleFormatError, InputError
from eul_serve.format.config import parse_object
from eul_serve.format.digest import digest_bytes

MAX_FILE_BYTES = 16 << 20
MAX_LINE_BYTES = 1 << 20
MAX_TEXTS = 16_384
MAX_TOKENS = 1 << 16
MAX_TOKEN_ID = (1 << 31) - 1
_NONCE = re.compile(r"[0-9a-f]{32}")
_KEYS = frozenset({"answer", "nonce", "prompt"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryText:
    """One question and answer as the model reads them; its repr shows neither."""

    nonce: str = field(repr=False)
    """32 random hex digits."""
    prompt: tuple[int, ...] = field(repr=False)
    """Token ids of the rendered question, 1 to 65536."""
    answer: tuple[int, ...] = field(repr=False)
    """Token ids of the answer, 1 to 65536."""

    def __post_init__(self) -> None:
        if not isinstance(self.nonce, str) or not _NONCE.fullmatch(self.nonce):
            raise InputError("canary: nonce: expected 32 lower-case hex digits")
        for name, ids in (("prompt", self.prompt), ("answer", self.answer)):
            if not 1 <= len(ids) <= MAX_TOKENS or not all(type(one) is int and 0 <= one <= MAX_TOKEN_ID for one in ids):
                raise InputError(f"canary: {name}: expected 1 to {MAX_TOKENS} token ids, each 0 to {MAX_TOKEN_ID}")

    @classmethod
    def fresh(cls, prompt: Sequence[int], answer: Sequence[int]) -> CanaryText:
        """Return the canary of a question and answer, with a nonce of its own.

        Args:
            prompt: Token ids of the rendered question.
            answer: Token ids of the answer.

        Returns:
            The canary's text.

        Raises:
            InputError: There is no token, or one that cannot be.
        """
        return cls(nonce=secrets.token_hex(16), prompt=tuple(prompt), answer=tuple(answer))

    @property
    def digest(self) -> str:
        """Digest by which a bundle names the text."""
        return digest_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return its line, with no end of line: canonical JSON."""
        found = {"answer": self.answer, "nonce": self.nonce, "prompt": self.prompt}
        return json.dumps(found, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, line: bytes, where: str) -> CanaryText:
        """Parse a line, in any spelling of JSON.

        Args:
            line: The line.
            where: File and line, for messages.

        Returns:
            The text.

        Raises:
            InputError: The line is none of a canary; the message shows nothing of it.
        """
        try:
            found = parse_object(line, where)
        except BundleFormatError:  # its words may show what it found
            found = {}
        if found.keys() != _KEYS or not all(isinstance(found[name], list) for name in ("answer", "prompt")):
            raise InputError(
                f"{where}: expected a JSON object with exactly answer, nonce and prompt, two of them lists of token "
                "ids, as `eul-train canary` writes it"
            )
        try:
            return cls(nonce=found["nonce"], prompt=tuple(found["prompt"]), answer=tuple(found["answer"]))
        except InputError as error:
            raise InputError(f"{where}: {error}") from None


def read_texts(path: Path, wanted: Collection[str]) -> dict[str, CanaryText]:
    """Read a file of private texts; every line is checked, and those that nobody asks for are let go of.

    Args:
        path: The file. Links are followed, as Kubernetes mounts secrets through them.
        wanted: Digests of the texts to return.

    Returns:
        Those of the texts that the file has, by digest.

    Raises:
        InputError: The file cannot be read, is open to everybody, is too large, or has a line that is no canary.
    """
    found: dict[str, CanaryText] = {}
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            text = CanaryText.from_bytes(line, f"{path}:{number}")
            if (digest := text.digest) in wanted:
                found[digest] = text
        if number >= MAX_TEXTS:
            raise InputError(f"canaries {str(path)!r}: expected fewer than {MAX_TEXTS} lines; split the file")
    return found


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a private file, none of which is longer than may be."""
    where, read = f"canaries {str(path)!r}", 0
    try:
        with os.fdopen(_open(path, where), "rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                read += len(line)
                if len(line) > MAX_LINE_BYTES or read > MAX_FILE_BYTES:
                    raise InputError(
                        f"{where}: expected at most {MAX_FILE_BYTES} bytes, in lines of at most {MAX_LINE_BYTES}"
                    )
                yield line
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise InputError(
            f"{where}: cannot read: {reason}; name the file that `eul-train canary --private` wrote"
        ) from error


def _open(path: Path, where: str) -> int:
    # O_NONBLOCK so that a FIFO cannot make us wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) and not mode & stat.S_IRWXO:
        return descriptor
    os.close(descriptor)
    if not stat.S_ISREG(mode):
        raise InputError(f"{where}: expected a regular file, found another kind")
    raise InputError(f"{where}: everybody on this machine may open it, and it is private; run `chmod o=` on it")
