"""Answers of a running server, many requests at once; each is checked to be of the revision and prompt asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from threading import Event

from eul_serve.client import Answer, Client
from eul_serve.errors import BundleMismatchError, CapacityError, InputError, NotFoundError
from eul_trainer.evaluation.adapters import Adapter
from eul_trainer.evaluation.answerer import SERVER, Draws
from eul_trainer.forward.encoding import render_prompt
from eul_trainer.model.load import LoadedModel
from eul_trainer.records import Row

IN_FLIGHT = 16
"""Requests at once; a tenant may have 128 unless a server is told otherwise."""
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Seconds before a request is sent again that the server had no room for; whatever else fails is not sent again."""
SEEDS = 1 << 63
"""Seeds that a server takes."""


class Served:
    """A system of a server, as an `Answerer`.

    Args:
        client: The server.
        adapter: What it calls the system.
        model: The base model here, whose tokenizer says how a prompt must be read.
    """

    where = SERVER

    def __init__(self, client: Client, adapter: Adapter, model: LoadedModel) -> None:
        self._client, self._adapter, self._tokenizer = client, adapter, model.tokenizer
        self._ended = Event()
        self.identity = f"{model.base.fingerprint} {adapter.revision} served by {client.address}"

    def greedy(self, rows: Sequence[Row], tokens: int) -> Iterator[tuple[list[int], list[str]]]:
        """Answer rows greedily, each by itself; see `Answerer`."""
        asks = [partial(self._ask, row, length, tokens, {}) for row, length in zip(rows, self._read(rows), strict=True)]
        for index, text in self._all(asks):
            yield [index], [text]

    def drawn(self, rows: Sequence[Row], seeds: Sequence[int], draws: Draws) -> Iterator[tuple[int, list[str]]]:
        """Draw answers; a server gives the same one for the same seed where it computes in the same batches."""
        asks = [
            partial(
                self._ask,
                row,
                length,
                draws.tokens,
                {"temperature": draws.temperature, "seed": (seed + number) % SEEDS},
            )
            for row, length, seed in zip(rows, self._read(rows), seeds, strict=True)
            for number in range(draws.count)
        ]
        found: list[dict[int, str]] = [{} for _ in rows]
        for place, text in self._all(asks):
            index, number = divmod(place, draws.count)
            found[index][number] = text
            if len(found[index]) == draws.count:
                yield index, [found[index][number] for number in range(draws.count)]

    def _read(self, rows: Sequence[Row]) -> list[int]:
        """Return how many tokens each prompt has; here, as tokenizers are not for several threads."""
        return [len(render_prompt(self._tokenizer, row.prompt)) for row in rows]

    def _ask(self, row: Row, length: int, tokens: int, sampling: dict[str, float]) -> str:
        # As a caller asks, so that the server's own template is what is measured.
        prompt = [("user", row.prompt)] if self._tokenizer.chat_template else row.prompt
        adapter = self._adapter.name
        answer = self._patiently(partial(self._client.generate, prompt, adapter=adapter, max_tokens=tokens, **sampling))
        self._check(answer, row, length, tokens)
        return answer.text.strip()

    def _patiently(self, ask: Callable[[], Answer]) -> Answer:
        for seconds in WAITS:
            try:
                return ask()
            except CapacityError:
                if self._ended.wait(seconds):
                    raise
        return ask()

    def _check(self, answer: Answer, row: Row, length: int, tokens: int) -> None:
        server, wanted = f"server {self._client.address}", self._adapter
        if answer.revision != wanted.revision:
            raise NotFoundError(
                f"{server}: {wanted.name} answered from {answer.revision}, expected {wanted.revision}; was it promoted "
                "meanwhile? That answer is not kept; run the line again when it is served"
            )
        if answer.usage.prompt_tokens != length:
            raise BundleMismatchError(
                f"{server}: it reads the prompt of {row.where or 'a row'} as {answer.usage.prompt_tokens} tokens, "
                f"--model as {length}; expected one tokenizer and chat template: serve the directory that is measured"
            )
        if answer.finish_reason == "length" and answer.usage.completion_tokens < tokens:
            raise InputError(
                f"{server}: its context ends the answer to {row.where or 'a row'} after "
                f"{answer.usage.completion_tokens} of {tokens} tokens; lower --answer-tokens, or serve with a longer "
                "--max-context"
            )

    def _all(self, asks: Sequence[Callable[[], str]]) -> Iterator[tuple[int, str]]:
        """Yield places and answers as they come; the first failure ends the requests that are still running."""
        pool = ThreadPoolExecutor(IN_FLIGHT, "eul-ask")
        try:
            places = {pool.submit(ask): place for place, ask in enumerate(asks)}
            for done in as_completed(places):
                yield places[done], done.result()
        except BaseException:
            self._ended.set()
            self._client.close()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
