"""`eul`, which also tells how many tasks it has: python -m loading.counted_server serve ..."""

from __future__ import annotations

from eul_serve.cli.main import main
from loading.counted import count_at_signal

if __name__ == "__main__":  # the engine's processes read this module too
    count_at_signal()
    main()
