"""Decisions that were expected to end soon and did not: for a while they are not made on the event loop."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic, perf_counter, thread_time

log = logging.getLogger("callgate.policies")

SLOW_S = 0.02
"""So long an evaluation may keep everything else waiting."""
_FOR_S = 60.0


class Pace:
    """How long evaluations take.

    A machine that is busy with others makes any evaluation look slow. So the first that takes long is only
    looked at: for a minute the processor's time is measured, which costs more than the clock's.
    """

    def __init__(self) -> None:
        self.clock: Callable[[], float] = perf_counter
        """What is read before and after an evaluation."""
        self._measuring_until = 0.0
        self._aside_until: dict[str, float] = {}

    def took(self, package: str, seconds: float) -> None:
        """Take note of one evaluation."""
        if self.clock is perf_counter:
            if seconds > SLOW_S:
                self.clock, self._measuring_until = thread_time, monotonic() + _FOR_S
        elif seconds > SLOW_S:
            self._aside_until[package] = monotonic() + _FOR_S
            log.warning(
                "%s takes %.0f ms to decide: it is evaluated aside for %g s", package, seconds * 1000, _FOR_S
            )
        elif monotonic() > self._measuring_until:
            self.clock = perf_counter

    def is_slow(self, package: str) -> bool:
        """Whether it has proved slow lately."""
        if not self._aside_until:
            return False
        if monotonic() < self._aside_until.get(package, 0.0):
            return True
        self._aside_until.pop(package, None)
        return False
