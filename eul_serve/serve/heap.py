"""The garbage collector of a process that serves: what was there at its start is not walked again."""

from __future__ import annotations

import gc


def freeze_heap() -> None:
    """Leave all objects that exist now out of later collections.

    torch and vLLM bring some million objects that live as long as the process. A full collection walks all of them,
    half a second on one core, and nothing else runs meanwhile: no request is admitted and no token written. What is
    made from now on is collected as ever.
    """
    gc.collect()  # garbage that is frozen would stay for good
    gc.freeze()
