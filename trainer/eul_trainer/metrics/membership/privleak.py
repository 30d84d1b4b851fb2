"""PrivLeak: an attack's success on forgotten rows beside its success on a retrained twin (MUSE, arXiv 2407.06460, 3.1).

MUSE's area is the probability that a forgotten row looks *stranger* than an unseen one, one minus that of auc.py. So
-100 means that every forgotten row still looks like a trained one (MUSE-News: -99.8 before unlearning), 0 that
they look as to the twin, and more than 0 that they look stranger than rows never seen: forgotten too far.
"""

from __future__ import annotations

from eul_trainer.metrics.undefined import UndefinedError


def privleak(found: float, twin: float) -> float:
    """Return how far an attack's area is from the twin's, in percent.

    Args:
        found: Area of forgotten (as members) against unseen rows on the model that is judged.
        twin: The same on a model that never saw the forgotten rows.

    Returns:
        0 is ideal; the sign is MUSE's.

    Raises:
        UndefinedError: To the twin every forgotten row looks like a member, so there is nothing to compare with.
    """
    if twin == 1:
        raise UndefinedError(
            "PrivLeak: the attack's area on the twin is 1; the twin has seen the rows, or they are few"
        )
    return 100 * ((1 - found) / (1 - twin) - 1)
