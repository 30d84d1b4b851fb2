"""A registry, a policy and tokens in a folder, and servers on a fake engine over them.

As a policy asks for it that says nothing else, every bundle is signed and every policy names who signs.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from eul_serve.address import Address
from eul_serve.audit import AuditLog
from eul_serve.client import AdminClient, Client, Retries, Settings
from eul_serve.format import Bundle
from eul_serve.metrics import Metrics
from eul_serve.registry import Registry, open_registry
from eul_serve.rpc.transport import TransportSettings
from eul_serve.serve.compose import RunningServer, running
from eul_serve.serve.settings import ServeSettings
from eul_serve.signing import Signer, make_keys, sign_bundle
from eul_serve.swap.policy_source import PolicySource
from tests.eul_serve.fake_engine import FakeEngine

POLL_SECONDS = 0.02
ADMIN_TOKEN = "token-of-ana"
PUBLIC_KEY = "publisher.pub"
_CLIENTS = ThreadPoolExecutor(32, "client")


def token_of(tenant: str) -> str:
    """The bearer token of a tenant."""
    return f"token-of-{tenant}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A running server and what a test asks of it."""

    server: RunningServer
    engine: FakeEngine
    metrics: Metrics
    address: str
    admin_address: str

    def admin(self, token: str | None = ADMIN_TOKEN) -> AdminClient:
        """An administrator's client."""
        return AdminClient(self.admin_address, token)

    def client(self, tenant: str | None) -> Client:
        """A client with the token of a tenant, or with none; it asks once, so that a test sees each refusal."""
        settings = Settings(retries=Retries(attempts=1))
        return Client(self.address, token_of(tenant) if tenant else None, settings=settings)

    async def ask(self, tenant: str | None, prompt: str = "hi", **options: Any) -> Any:
        """One unary answer, from a thread."""

        def call() -> Any:
            with self.client(tenant) as client:
                return client.generate(prompt, **options)

        # Threads of their own: the server in this process needs the loop's.
        return await asyncio.get_running_loop().run_in_executor(_CLIENTS, call)

    def sample(self, name: str, **labels: str) -> float:
        """The value of a metric; 0 where it has none yet."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def exposition(self) -> str:
        """The text that a scrape gets."""
        return generate_latest(self.metrics.registry).decode()

    async def until(self, condition: Callable[[], bool], what: str = "the condition") -> None:
        """Wait for something that must happen; a test that waits in vain fails with its name."""
        for _ in range(1000):
            if condition():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"waited 10 seconds for {what}")

    async def watching(self) -> None:
        """Wait until the server watches its registry: inotify's descriptors are files of the process."""
        await self.until(lambda: any("inotify" in file for file in opened_files()), "a watch of the registry")


def opened_files() -> list[str]:
    """What each file is that this process has open; one that is closed meanwhile does no harm."""
    return [os.path.realpath(path) for path in Path("/proc/self/fd").iterdir()]


def settings_at(root: Path, **options: Any) -> ServeSettings:
    """Settings of a server over a folder, on free ports."""
    return ServeSettings(
        registry=str(root / "registry"),
        policy=root / "policy.toml",
        cache=options.pop("cache", root / "cache"),
        transport=options.pop("transport", TransportSettings(listen=Address("127.0.0.1", 0))),
        metrics_listen=Address("127.0.0.1", 0),
        **{"poll_seconds": POLL_SECONDS, "grace_seconds": 5.0, **options},
    )


class ServiceHome:
    """The folder of a test's servers."""

    def __init__(self, root: Path, make: Callable[..., Bundle], fingerprint: str) -> None:
        self.root = root
        self.fingerprint = fingerprint
        self._make = make
        self.registry: Registry = open_registry(str(root / "registry"))
        self.policy = root / "policy.toml"
        self.cache = root / "cache"
        self.sections: dict[str, dict[str, Any]] = {}
        """Further sections of the policy file, by name; `trust` or signers among them replace the publisher."""
        self.publisher = Signer(private_key=root / "publisher.pem")
        if not self.publisher.private_key.exists():
            make_keys(self.publisher.private_key, root / PUBLIC_KEY)

    def appoint(self, name: str = "ana", token: str = ADMIN_TOKEN) -> None:
        """Make an administrator in every policy that is written from now on."""
        self.sections[f"admins.{name}"] = {"token_sha256": [hashlib.sha256(token.encode()).hexdigest()]}

    def publish(self, name: str, alias: str | None, *requests: str, seed: int = 0, **options: Any) -> str:
        """Publish a small bundle, signed; return its revision."""
        made = {key: options.pop(key) for key in ("base", "canaries") if key in options}
        bundle = self.bundle(*requests, seed=seed, **made)
        signatures = [sign_bundle(bundle, self.publisher)]
        return self.registry.publish(bundle, name, alias, signatures=signatures, **options).revision

    def bundle(self, *requests: str, seed: int = 0, **made: Any) -> Bundle:
        """Make a small bundle for the model that is served."""
        return self._make(*requests, seed=seed, **{"base": self.fingerprint, **made})

    def write_policy(self, **tenants: dict[str, Any]) -> None:
        """Write the policy file; every tenant gets its token unless it has `tokens=[]`."""
        lines = []
        judged = any(name == "trust" or name.startswith("signers.") for name in self.sections)
        believed = {} if judged else {"signers.publisher": {"public_key": PUBLIC_KEY}}
        for name, settings in (believed | self.sections).items():
            lines.append(f"[{name}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        for name, settings in tenants.items():
            tokens = settings.pop("tokens", [token_of(name)])
            hashes = [hashlib.sha256(token.encode()).hexdigest() for token in tokens]
            lines.append(f"[tenants.{name}]")
            for key, value in {**settings, "token_sha256": hashes}.items():
                lines.append(f"{key} = {json.dumps(value)}")  # JSON and TOML agree on these values
        part = self.policy.with_suffix(".part")
        part.write_text("\n".join(lines) + "\n")
        part.replace(self.policy)

    @asynccontextmanager
    async def serve(
        self, engine: FakeEngine | None = None, audit: AuditLog | None = None, **options: Any
    ) -> AsyncIterator[Service]:
        """Run a server; at its end the engine must have seen nothing that it never may."""
        engine = engine or FakeEngine(self.fingerprint)
        metrics = Metrics(CollectorRegistry())
        policies = PolicySource(self.policy, None, metrics)
        async with running(settings_at(self.root, **options), engine, policies, metrics, audit) as server:
            yield Service(
                server=server,
                engine=engine,
                metrics=metrics,
                address=f"127.0.0.1:{server.ports.grpc}",
                admin_address=f"127.0.0.1:{server.ports.admin}",
            )
        assert engine.violations == []
