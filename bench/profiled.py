"""Callgate, sampled: ``python -m bench.profiled OUTPUT CONFIG`` serves until SIGTERM, then keeps a profile.

The kernel interrupts after every few milliseconds of CPU time, and the stack at that moment is counted. A
tracing profiler would slow small functions down more than large ones, and would count as cost what is only
waiting for a busy machine.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import orjson
import uvloop

from proxy.app import build
from proxy.config import load

INTERVAL_S = 0.001
"""What is asked for; the kernel gives no more than one sample a tick."""


@dataclass
class Profile:
    """How often each function was found running: by itself, and with what it calls."""

    samples: int = 0
    own: Counter[str] = field(default_factory=Counter)
    total: Counter[str] = field(default_factory=Counter)

    def take(self, number: int, frame: FrameType | None) -> None:
        """Count one stack; a signal handler."""
        self.samples += 1
        if frame is not None:
            self.own[_place(frame)] += 1
        stack: set[str] = set()
        while frame is not None:
            stack.add(_place(frame))
            frame = frame.f_back
        self.total.update(stack)

    def write(self, path: Path) -> None:
        """Keep the counts for ``read``."""
        path.write_bytes(orjson.dumps({"samples": self.samples, "own": self.own, "total": self.total}))

    @classmethod
    def read(cls, path: Path) -> Profile:
        """What ``write`` kept."""
        kept = orjson.loads(path.read_bytes())
        return cls(kept["samples"], Counter(kept["own"]), Counter(kept["total"]))


def _place(frame: FrameType) -> str:
    file = Path(frame.f_code.co_filename)
    return f"{file.parent.name}/{file.name} {frame.f_code.co_qualname}"


async def _serve(config: Path, output: Path) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    app = build(load(config))
    profile = Profile()
    signal.signal(signal.SIGPROF, profile.take)
    await app.start()
    signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)
    await stop.wait()
    signal.setitimer(signal.ITIMER_PROF, 0)
    await app.stop()
    profile.write(output)


if __name__ == "__main__":
    uvloop.run(_serve(Path(sys.argv[2]), Path(sys.argv[1])))
