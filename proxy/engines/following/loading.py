"""Policies and data read in a process of their own.

Parsing holds the interpreter's lock for as long as a file is large, and everything else would wait; and what
a file unfolds to (aliases of YAML, a compressed bundle) is bounded there in time and memory.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import resource
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from pathlib import Path

from proxy.engines.children import command, environment
from proxy.engines.sources.bundles import Archive
from proxy.engines.sources.policyset import PolicyFault, PolicySet

TIMEOUT_S = 60.0
MAX_MEMORY_BYTES = 2 << 30
_NICENESS = 10  # nobody waits for it


async def loaded(sources: Sequence[Path | Archive], timeout_s: float = TIMEOUT_S) -> PolicySet:
    """As ``PolicySet.load``, with the event loop going on meanwhile; raises ``PolicyFault``."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command("proxy.engines.following.loading"),
            stdin=PIPE,
            stdout=PIPE,
            env=environment(),
        )
    except OSError as exc:
        raise PolicyFault([f"the policies cannot be read: no process ({exc.strerror or exc})"]) from None
    answer = await _answered(process, pickle.dumps(list(sources)), timeout_s)
    if process.returncode != 0:
        raise PolicyFault(["the policies cannot be read: they take more memory than there is for it"])
    # Of this program's own module, over a pipe that nobody else has.
    found: PolicySet | tuple[str, ...] = pickle.loads(answer)  # noqa: S301
    if isinstance(found, tuple):
        raise PolicyFault(found)
    return found


async def _answered(process: Process, order: bytes, timeout_s: float) -> bytes:
    try:
        async with asyncio.timeout(timeout_s):
            return (await process.communicate(order))[0]
    except TimeoutError:
        raise PolicyFault([f"the policies cannot be read within {timeout_s:g} s"]) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def main() -> None:
    """Read what standard input names, and write what came of it to standard output."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(_NICENESS)
    found: PolicySet | tuple[str, ...]
    try:
        found = PolicySet.load(pickle.loads(sys.stdin.buffer.read()))  # noqa: S301 -- from who started this
    except PolicyFault as exc:
        found = exc.faults
    sys.stdout.buffer.write(pickle.dumps(found))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
