"""`eul serve`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eul_serve.address import Address
from eul_serve.cli.engine_options import engine_options, engine_settings
from eul_serve.cli.lazy import examples
from eul_serve.cli.options import json_option

if TYPE_CHECKING:
    from eul_serve.engine.base import Engine
    from eul_serve.serve.run import Ready
    from eul_serve.serve.settings import ServeSettings
    from eul_serve.swap.policy_source import PolicySource

_PATH = click.Path(path_type=Path)


@click.command(
    epilog=examples(
        "eul serve --model build/base --registry /srv/registry --policy policy.toml",
        "eul serve --model build/base --registry /srv/registry --policy policy.toml --listen 127.0.0.1:0 --json",
    )
)
@click.option("--model", type=_PATH, required=True, help="Directory of the base model.")
@click.option("--registry", required=True, envvar="EUL_REGISTRY", show_envvar=True, metavar="URL", help="The registry.")
@click.option("--policy", type=_PATH, required=True, help="Who may use what (TOML); read again when it changes.")
@click.option("--tokens", type=_PATH, help="A second file that holds tokens alone, e.g. a mounted Secret.")
@click.option("--listen", default="127.0.0.1:8500", show_default=True, metavar="HOST:PORT", help="gRPC; 0 is any port.")
@click.option("--metrics-listen", default="127.0.0.1:9500", show_default=True, metavar="HOST:PORT", help="Metrics.")
@click.option("--admin-listen", metavar="HOST:PORT", help="gRPC for administrators; there is none without it.")
@click.option("--openai-listen", metavar="HOST:PORT", help="HTTP for OpenAI's clients; there is none without it.")
@click.option("--status-listen", metavar="HOST:PORT", help="HTTP: a status page; there is none without it.")
@click.option("--audit", type=_PATH, help="File to write decisions to, each line bound to the one before.")
@click.option("--canaries", type=_PATH, help="Private texts of canaries, which must pass before a bundle serves.")
@click.option("--cache", type=_PATH, default=Path("build/cache"), show_default=True, help="Verified bundles.")
@click.option(
    "--cache-gib", type=float, help="Room for them in GiB; what nobody uses leaves first. No bound without it."
)
@engine_options
@click.option("--poll-seconds", type=float, default=1.0, show_default=True, help="Between two looks at the registry.")
@click.option("--deadline-seconds", type=float, default=300.0, show_default=True, help="Longest time of one call.")
@click.option("--grace-seconds", type=float, default=30.0, show_default=True, help="For requests in flight at the end.")
@click.option("--max-requests", type=int, default=256, show_default=True, help="Requests at once.")
@click.option("--max-tenant-requests", type=int, default=128, show_default=True, help="Requests of a tenant at once.")
@click.option("--queue-seconds", type=float, default=30.0, show_default=True, help="Longest wait for the engine.")
@click.option("--key-file", type=_PATH, help="Key of the prefix cache's salts; random for this process by default.")
@click.option("--tls-cert", type=_PATH, help="PEM certificate chain.")
@click.option("--tls-key", type=_PATH, help="PEM private key.")
@click.option("--tls-client-ca", type=_PATH, help="PEM of authorities; clients need a certificate of theirs.")
@click.option("--insecure", is_flag=True, help="Allow plaintext beyond this machine.")
@click.option(
    "--log-format", type=click.Choice(("text", "json")), default="text", show_default=True, help="Of the log."
)
@click.option("--ready-file", type=_PATH, help="File to write the addresses to, as JSON, when ready.")
@json_option
def command(as_json: bool, **options: Any) -> None:  # noqa: ANN401  # the options above
    """Serve a base model with the bundles of a registry.

    Prints one line when ready. Follows the registry's aliases and the policy file without a restart. Ends at SIGTERM
    or SIGINT: takes no new requests, lets those in flight finish, leaves with status 0.
    """
    from prometheus_client import REGISTRY

    from eul_serve.serve.logs import set_up_logs
    from eul_serve.serve.tracing import set_up_traces

    set_up_logs(options["log_format"])
    set_up_traces()

    from eul_serve.serve.run import serve

    settings = serve_settings(options)

    async def start_engine(policies: PolicySource) -> Engine:
        # vLLM is imported here, after every setting was found to be in order. The standard output is for our one line.
        os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        engine = engine_settings(options, policies.current)
        from eul_serve.engine.ledger import LEDGER, require

        require(LEDGER)  # before the imports below, which would fail in vLLM's words
        from eul_serve.engine.orphan import announce_front
        from eul_serve.engine.vllm_engine import VllmEngine

        announce_front()
        return await VllmEngine.start(engine)

    def announce(ready: Ready) -> None:
        text = f"ready: gRPC on {ready.listen}, metrics on http://{ready.metrics}/metrics"
        scheme = "https" if settings.transport.certificate else "http"
        text += f", administrators on {ready.admin}" if ready.admin else ""
        text += f", OpenAI's API on {scheme}://{ready.openai}/v1" if ready.openai else ""
        text += f", status page on {scheme}://{ready.status}/" if ready.status else ""
        click.echo(ready.to_json() if as_json else text)

    asyncio.run(serve(settings, start_engine, announce, REGISTRY))


def serve_settings(options: dict[str, Any]) -> ServeSettings:
    """Return the server's settings.

    Args:
        options: The command's options by name.

    Returns:
        The settings.

    Raises:
        InputError: One is not acceptable.
    """
    from eul_serve.rpc.transport import TransportSettings
    from eul_serve.serve.settings import ServeSettings
    from eul_serve.swap.leases import LeaseLimits

    def transport(listen: str) -> TransportSettings:
        return TransportSettings(
            listen=Address.parse(listen),
            certificate=options["tls_cert"],
            key=options["tls_key"],
            client_ca=options["tls_client_ca"],
            insecure=options["insecure"],
        )

    return ServeSettings(
        registry=options["registry"],
        policy=options["policy"],
        tokens=options["tokens"],
        cache=options["cache"].absolute(),
        cache_bytes=None if options["cache_gib"] is None else int(options["cache_gib"] * 2**30),
        transport=transport(options["listen"]),
        admin=options["admin_listen"] and transport(options["admin_listen"]),
        openai=options["openai_listen"] and transport(options["openai_listen"]),
        page=options["status_listen"] and transport(options["status_listen"]),
        audit=options["audit"],
        canaries=options["canaries"],
        metrics_listen=Address.parse(options["metrics_listen"]),
        key_file=options["key_file"],
        limits=LeaseLimits(total=options["max_requests"], tenant=options["max_tenant_requests"]),
        queue_seconds=options["queue_seconds"],
        poll_seconds=options["poll_seconds"],
        deadline_seconds=options["deadline_seconds"],
        grace_seconds=options["grace_seconds"],
        ready_file=options["ready_file"],
    )
