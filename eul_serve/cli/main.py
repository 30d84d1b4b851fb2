"""`eul`: serve a model that forgets, and publish what it forgets."""

from __future__ import annotations

from typing import NoReturn

import click

from eul_serve import __version__
from eul_serve.cli.lazy import Entry, LazyGroup, examples

_SERVING = "Serve and ask"
_REGISTRY = "Publish and move"
_TOOLS = "Tools"

ENTRIES = {
    "serve": Entry("eul_serve.cli.serve", "Serve a base model with the bundles of a registry.", _SERVING),
    "generate": Entry("eul_serve.cli.generate", "Ask a server for an answer.", _SERVING),
    "classify": Entry("eul_serve.cli.classify", "Ask a server which label fits a text.", _SERVING),
    "health": Entry("eul_serve.cli.health", "Ask a server whether it can serve.", _SERVING),
    "admin": Entry("eul_serve.cli.admin", "Watch and steer a running server.", _SERVING),
    "publish": Entry("eul_serve.cli.publish", "Store a bundle in a registry, and move an alias to it.", _REGISTRY),
    "list": Entry("eul_serve.cli.list", "List names, revisions and aliases.", _REGISTRY),
    "show": Entry("eul_serve.cli.show", "Show one bundle: requests covered, origin, files, history.", _REGISTRY),
    "verify": Entry("eul_serve.cli.verify", "Check every byte of a bundle.", _REGISTRY),
    "diff": Entry("eul_serve.cli.diff", "Show what one bundle forgets that another does not.", _REGISTRY),
    "promote": Entry("eul_serve.cli.promote", "Move an alias to a published revision.", _REGISTRY),
    "rollback": Entry("eul_serve.cli.rollback", "Move an alias back to its earlier revision.", _REGISTRY),
    "hold": Entry("eul_serve.cli.hold", "Keep a revision from collection and deletion.", _REGISTRY),
    "ban": Entry("eul_serve.cli.ban", "Ban a revision or a signer: nobody may serve or publish it.", _REGISTRY),
    "gc": Entry("eul_serve.cli.gc", "Remove what nobody needs, or all that covers a request.", _REGISTRY),
    "pull": Entry("eul_serve.cli.pull", "Write a bundle to a directory.", _REGISTRY),
    "copy": Entry("eul_serve.cli.copy", "Copy a bundle to another registry.", _REGISTRY),
    "login": Entry("eul_serve.cli.login", "Keep the credentials of an OCI registry.", _REGISTRY),
    "log": Entry("eul_serve.cli.log", "Show what was done in a registry, and check it.", _REGISTRY),
    "audit": Entry("eul_serve.cli.audit", "Check a server's audit log, line by line.", _TOOLS),
    "keygen": Entry("eul_serve.cli.keygen", "Make a pair of keys for certificates.", _TOOLS),
    "token": Entry("eul_serve.cli.token", "Make a bearer token and the hash that a policy stores.", _TOOLS),
}


class EulGroup(LazyGroup):
    """The commands of `eul`."""

    entries = ENTRIES


@click.group(
    cls=EulGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "export EUL_REGISTRY=/srv/registry",
        "eul publish build/layer --name poems --alias stable",
        "eul show poems",
        "eul promote poems@sha256:... stable",
        "eul rollback poems stable",
        "eul log",
    ),
)
@click.version_option(__version__, prog_name="eul", message="%(prog)s %(version)s")
def group() -> None:
    """Serve a language model that forgets what it was asked to forget.

    A bundle of unlearning layers is published under a name; an alias such as `stable` says which revision serves; a
    running server follows the alias without a restart.

    Exit status: 0 done, 1 bug, 2 bad input, 3 other base model, 4 not found, 5 refused, 6 no room, 7 engine down,
    130 interrupted.
    """


def main() -> NoReturn:
    """Run the command line `eul`."""
    group.main(prog_name="eul")
