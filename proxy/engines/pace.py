"""Decisions that were expected to end soon and did not: for a while they are not made on the event loop."""

from __future__ import annotations

import logging
from time import monotonic

log = logging.getLogger("callgate.policies")

SLOW_S = 0.02
"""So long an evaluation may keep everything else waiting."""
# Once may be the machine; twice in a row it is the policy.
_WITHIN_S, _ASIDE_S = 10.0, 60.0


class Pace:
    """How long evaluations took."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}
        self._until: dict[str, float] = {}

    def took(self, package: str, seconds: float) -> None:
        """Take note of one evaluation."""
        if seconds > SLOW_S:
            self._slow(package, seconds)

    def _slow(self, package: str, seconds: float) -> None:
        now = monotonic()
        if now - self._last.get(package, -_WITHIN_S) < _WITHIN_S:
            self._until[package] = now + _ASIDE_S
            log.warning(
                "%s took %.0f ms to decide, and not for the first time: it is evaluated aside for %g s",
                package,
                seconds * 1000,
                _ASIDE_S,
            )
        self._last[package] = now

    def is_slow(self, package: str) -> bool:
        """Whether it has proved slow lately."""
        if not self._until:
            return False
        if monotonic() < self._until.get(package, 0.0):
            return True
        self._until.pop(package, None)
        return False
