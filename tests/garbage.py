"""What only the garbage collector could free."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def garbage(name: Callable[[object], str]) -> Iterator[Counter[str]]:
    """Counts, by name, what is garbage at the end of the block and was not before; what has none is not."""
    found: Counter[str] = Counter()
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    gc.freeze()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
    finally:
        gc.set_debug(0)
        gc.unfreeze()
        if was_enabled:
            gc.enable()
        found.update(called for each in gc.garbage if (called := name(each)))
        gc.garbage.clear()
