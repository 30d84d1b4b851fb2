"""vLLM's entry point: puts our adapter manager in the place of vLLM's own, in every process.

`EUL_PLUGIN=0` turns it off. Nothing of vLLM is imported before `register` is called.
"""

from __future__ import annotations

import os

from eul_serve.errors import EngineError

PLUGIN_VERSION = "1"
"""Counts up whenever workers of two versions must not be mixed."""


def register() -> None:
    """Substitute vLLM's adapter manager; calling it again changes nothing.

    Raises:
        EngineError: This vLLM lacks something that bundles ride on. It ends the process: one that went on would answer
            from the base model.
    """
    if os.environ.get("EUL_PLUGIN", "1") == "0":
        return
    from eul_serve.engine.ledger import ADAPTERS, require

    try:
        require(ADAPTERS)  # before the imports below, which would fail in vLLM's words
    except EngineError as error:
        raise EngineError(f"{error}, or set EUL_PLUGIN=0 to run vLLM without bundles") from None
    from eul_serve.engine.compat import substitute
    from eul_serve.engine.manager import BundleWorkerManager
    from eul_serve.engine.orphan import watch

    watch()
    substitute(BundleWorkerManager)
