"""`eul serve`."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eul_serve.address import Address
from eul_serve.cli.lazy import examples
from eul_serve.cli.options import json_option
from eul_serve.errors import InputError
from eul_serve.format.fingerprint import read_model_config

if TYPE_CHECKING:
    from eul_serve.engine.base import Engine
    from eul_serve.engine.settings import EngineSettings
    from eul_serve.serve.run import Ready
    from eul_serve.serve.settings import ServeSettings
    from eul_serve.swap.policy_source import PolicySource

_PATH = click.Path(path_type=Path)
_DTYPES = ("auto", "float32", "bfloat16", "float16")
DEFAULT_CONTEXT = 2048


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
@click.option("--cache", type=_PATH, default=Path("build/cache"), show_default=True, help="Verified bundles.")
@click.option("--slots", type=int, default=4, show_default=True, help="Bundles in one batch.")
@click.option("--capacity", type=int, default=16, show_default=True, help="Bundles in memory; a swap needs one spare.")
@click.option("--max-rank", type=int, default=64, show_default=True, help="Highest rank of a bundle.")
@click.option("--max-context", type=int, help="Prompt and answer together, in tokens; the model's, up to 2048.")
@click.option("--max-batch", type=int, default=64, show_default=True, help="Requests in one batch.")
@click.option("--max-batch-tokens", type=int, help="Tokens of one step; long prompts are read in parts; vLLM's choice.")
@click.option("--kv-cache-gib", type=float, default=1.0, show_default=True, help="Memory of the key-value cache.")
@click.option("--tensor-parallel", type=int, default=1, show_default=True, help="Devices that share every block.")
@click.option("--pipeline-parallel", type=int, default=1, show_default=True, help="Groups of devices in a row.")
@click.option("--fine-tunes", is_flag=True, help="Serve composites too: bundles with a tenant's LoRA beside them.")
@click.option("--dtype", type=click.Choice(_DTYPES), default="auto", show_default=True, help="Of the activations.")
@click.option("--compile/--eager", "compiled", default=False, show_default=True, help="Compile graphs (for GPUs).")
@click.option("--poll-seconds", type=float, default=1.0, show_default=True, help="Between two looks at the registry.")
@click.option("--deadline-seconds", type=float, default=300.0, show_default=True, help="Longest time of one call.")
@click.option("--grace-seconds", type=float, default=30.0, show_default=True, help="For requests in flight at the end.")
@click.option("--max-requests", type=int, default=256, show_default=True, help="Requests at once.")
@click.option("--max-tenant-requests", type=int, default=128, show_default=True, help="Requests of a tenant at once.")
@click.option("--key-file", type=_PATH, help="Key of the prefix cache's salts; random for this process by default.")
@click.option("--tls-cert", type=_PATH, help="PEM certificate chain.")
@click.option("--tls-key", type=_PATH, help="PEM private key.")
@click.option("--insecure", is_flag=True, help="Allow plaintext beyond this machine.")
@click.option("--ready-file", type=_PATH, help="File to write the addresses to, as JSON, when ready.")
@json_option
def command(as_json: bool, **options: Any) -> None:  # noqa: ANN401  # the options above
    """Serve a base model with the bundles of a registry.

    Prints one line when ready. Follows the registry's aliases and the policy file without a restart. Ends at SIGTERM
    or SIGINT: takes no new requests, lets those in flight finish, leaves with status 0.
    """
    set_up_log()
    from prometheus_client import REGISTRY

    from eul_serve.serve.run import serve

    settings = serve_settings(options)

    async def start_engine(policies: PolicySource) -> Engine:
        # vLLM is imported here, after every setting was found to be in order. The standard output is for our one line.
        os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        deny_base = not any(tenant.base for tenant in policies.current.tenants.values())
        engine = engine_settings(options, deny_base)
        from eul_serve.engine.ledger import LEDGER, require

        require(LEDGER)  # before the imports below, which would fail in vLLM's words
        from eul_serve.engine.orphan import announce_front
        from eul_serve.engine.vllm_engine import VllmEngine

        announce_front()
        return await VllmEngine.start(engine)

    def announce(ready: Ready) -> None:
        text = f"ready: gRPC on {ready.listen}, metrics on http://{ready.metrics}/metrics"
        click.echo(ready.to_json() if as_json else text)

    asyncio.run(serve(settings, start_engine, announce, REGISTRY))


def set_up_log() -> None:
    """Send our messages, and the warnings of others, to the standard error."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("eul_serve").setLevel(logging.INFO)


def serve_settings(options: dict[str, Any]) -> ServeSettings:
    """Return the server's settings.

    Args:
        options: The command's options by name.

    Returns:
        The settings.

    Raises:
        InputError: One is not acceptable.
    """
    from eul_serve.rpc.server import TransportSettings
    from eul_serve.serve.settings import ServeSettings
    from eul_serve.swap.leases import LeaseLimits

    return ServeSettings(
        registry=options["registry"],
        policy=options["policy"],
        tokens=options["tokens"],
        cache=options["cache"].absolute(),
        transport=TransportSettings(
            listen=Address.parse(options["listen"]),
            certificate=options["tls_cert"],
            key=options["tls_key"],
            insecure=options["insecure"],
        ),
        metrics_listen=Address.parse(options["metrics_listen"]),
        key_file=options["key_file"],
        limits=LeaseLimits(total=options["max_requests"], tenant=options["max_tenant_requests"]),
        poll_seconds=options["poll_seconds"],
        deadline_seconds=options["deadline_seconds"],
        grace_seconds=options["grace_seconds"],
        ready_file=options["ready_file"],
    )


def engine_settings(options: dict[str, Any], deny_base: bool) -> EngineSettings:
    """Return the engine's settings.

    Args:
        options: The command's options by name.
        deny_base: Whether no tenant may use the base model.

    Returns:
        The settings.

    Raises:
        InputError: The model is no model directory, or an option is not acceptable.
    """
    from eul_serve.engine.settings import EngineSettings

    model = read_model_config(options["model"])
    return EngineSettings(
        model=options["model"].absolute(),
        dtype=_dtype(model) if options["dtype"] == "auto" else options["dtype"],
        max_context=_context(model) if options["max_context"] is None else options["max_context"],
        slots=options["slots"],
        capacity=options["capacity"],
        max_rank=options["max_rank"],
        max_batch=options["max_batch"],
        max_batch_tokens=options["max_batch_tokens"],
        kv_cache_gib=options["kv_cache_gib"],
        tensor_parallel=options["tensor_parallel"],
        pipeline_parallel=options["pipeline_parallel"],
        fine_tunes=options["fine_tunes"],
        deny_base=deny_base,
        bundles=options["cache"].absolute(),
        enforce_eager=not options["compiled"],
    )


def _dtype(model: dict[str, Any]) -> str:
    """Return the dtype of a model's files, as its config says."""
    found = model.get("dtype") or model.get("torch_dtype")
    if not isinstance(found, str):
        raise InputError("--dtype auto: the model's config.json names no dtype; give --dtype float32 or bfloat16")
    return found


def _context(model: dict[str, Any]) -> int:
    """Return the model's longest context, at most `DEFAULT_CONTEXT`."""
    found = model.get("max_position_embeddings", DEFAULT_CONTEXT)
    return min(int(found), DEFAULT_CONTEXT)
