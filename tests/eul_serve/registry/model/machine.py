"""Worlds of a few clients that act on one registry at once, one operation at a time, in an order that a seed draws."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from unittest import mock

from eul_serve.format import Bundle
from eul_serve.registry.claims import COLLECT_SECONDS
from eul_serve.registry.reader import manifest_key
from tests.eul_serve.registry.model.acts import draw_act
from tests.eul_serve.registry.model.answers import COLLECTORS, check_answer, check_error
from tests.eul_serve.registry.model.client import Client, Defences
from tests.eul_serve.registry.model.ending import check_end
from tests.eul_serve.registry.model.judge import judge
from tests.eul_serve.registry.model.memory_store import Change, Fault, MemoryStore, Place
from tests.eul_serve.registry.model.model import Model
from tests.eul_serve.registry.model.turns import OneByOne, Running, one_by_one

FAULTS: tuple[Fault, ...] = ("die before", "die after", "refuse", "lose the answer", "twice")
SLEEP = "sleep"
MOST_SLEEPS = 2 * int(COLLECT_SECONDS)
"""How often an act may look whether a collector has ended."""
JUMP_SECONDS = 5 * 3600.0
"""How long a client may hang between two operations."""


class World:
    """One registry, from its first act to its end."""

    def __init__(self, bundles: Sequence[Bundle], seed: int, defences: Defences | None = None) -> None:
        """Make an empty place.

        Args:
            bundles: What may be published.
            seed: Draws all of it.
            defences: What holds.
        """
        self._bundles, self._seed, self._defences = bundles, seed, defences or Defences()
        self.acts: Counter[str] = Counter()
        self.crashes = self.operations = self._number = 0
        self.model = Model({bundle.revision: bundle.manifest.request_ids for bundle in bundles})
        self._place = Place(watch=self._see, exclusive=self._defences.exclusive)
        self._chance = random.Random(seed)
        self._stay = self._chance.choice([0.0, 0.5, 0.9])
        self._faults = self._chance.choice([0.0, 0.005, 0.02])
        self._clients = [self._client() for _ in range(self._chance.choice([2, 3]))]
        self._changed = False

    def run(self, acts: int) -> None:
        """Do so many acts, and then what must go at the end of any story."""
        with repeatable(self._seed):
            last = self._clients[0]
            while sum(self.acts.values()) < acts or any(client.running for client in self._clients):
                for client in self._clients:
                    if client.running is None and sum(self.acts.values()) < acts:
                        self._begin(client)
                able = [client for client in self._clients if client.running]
                last = last if last in able and self._chance.random() < self._stay else self._chance.choice(able)
                self._step(last, faults=sum(self.acts.values()) < acts)
                if self.model.problems:
                    self._abandon()
                    return
            check_end(self._place, self.model, self._bundles, self._defences)

    def _see(self, change: Change) -> None:
        self._changed = self._changed or change.key[0] not in ("log", "claims")
        self.model.see(change)

    def _client(self) -> Client:
        self._number += 1
        number = self._number
        store = MemoryStore(self._place, number, lambda what: self._turn(number, what))
        registry = self._defences.registry(store, recheck_seconds=1e9)
        registry.claims = self._defences.claims(store, lambda seconds: self._sleep(number), lambda: self._place.now)
        return Client(number=number, store=store, registry=registry)

    def _turn(self, number: int, what: str) -> Fault | None:
        client = next(client for client in self._clients if client.number == number)
        assert client.running is not None
        return client.running.wait(what)

    def _sleep(self, number: int) -> None:
        self._turn(number, SLEEP)
        client = next(client for client in self._clients if client.number == number)
        client.sleeps += 1
        if client.sleeps > MOST_SLEEPS:
            self.model.problem(f"{client.act} waits for ever")

    def _begin(self, client: Client) -> None:
        if self._chance.random() < 0.02:
            self._damage()
        act = draw_act(self._chance, client.registry, self._bundles, client.number, self.model.step)
        self.acts[act.what] += 1
        client.act, client.sleeps, client.running = act, 0, Running(act.run)
        if act.what in COLLECTORS:
            self.model.collecting.add(client.number)

    def _step(self, client: Client, *, faults: bool) -> None:
        running = client.running
        assert running is not None
        self._pass_time(running.next == SLEEP)
        fault = None
        if faults and running.next not in ("begin", SLEEP) and self._chance.random() < self._faults:
            fault = self._chance.choice(FAULTS)
        running.step(fault)
        client.jumped = False
        self.model.last[client.number] = self.model.step
        self.model.step += 1
        self.operations += 1
        if running.done:
            self._finish(client, running)
        if self._changed or running.done:
            judge(self._place, self.model, log=running.done and self._chance.random() < 0.1)
            self._changed = False

    def _pass_time(self, sleeping: bool) -> None:
        self._place.now += self._chance.random()
        able = [client for client in self._clients if client.running]
        if sleeping and all(client.running and client.running.next == SLEEP for client in able):
            self._place.now += 20.0
        # A collector may not hang for so long: it works by a lease, as nothing tells a hung one from a dead one.
        if self._chance.random() < 0.005 and not self.model.collecting and not any(client.jumped for client in able):
            self._place.now += JUMP_SECONDS
            for client in able:
                client.jumped = True

    def _finish(self, client: Client, running: Running) -> None:
        assert client.act is not None
        if running.error is None:
            check_answer(self.model, client.act, running.result)
        else:
            check_error(self.model, client.act, running.error, running.faults)
        self.model.collecting.discard(client.number)
        client.act = client.running = None
        if running.died:
            self.crashes += 1
            self._clients[self._clients.index(client)] = self._client()

    def _damage(self) -> None:
        """Spoil a manifest, as a bad disk would."""
        if listed := sorted(self.model.revisions):
            name, revision = self._chance.choice(listed)
            key = manifest_key(name, revision)
            self._place.records[key] = b"{}", self._place.records[key][1]
            self.model.damaged[name, revision] = self.model.step
            self.model.signed.discard((name, revision))

    def _abandon(self) -> None:
        """End the threads of acts that nobody looks at any more."""
        for client in self._clients:
            client.store.dead = True
            while client.running and not client.running.done:
                client.running.step()


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """Take threads and chance that no seed draws out of the registry."""
    ids = random.Random(seed)
    with ExitStack() as stack:
        for module in ("stored", "reader"):
            stack.enter_context(mock.patch(f"eul_serve.registry.{module}.at_once", one_by_one))
        # Where one of its works fails, a pool of even one thread begins the next one, or not.
        stack.enter_context(mock.patch("eul_serve.registry.collect.ThreadPoolExecutor", OneByOne))
        stack.enter_context(mock.patch("secrets.token_hex", lambda size: ids.randbytes(size).hex()))
        stack.enter_context(mock.patch("secrets.randbelow", ids.randrange))
        yield
