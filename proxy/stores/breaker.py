"""A circuit breaker: what does not answer is left alone for a while, then asked once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Paused(Exception):
    """Nothing is asked for now."""


class Breaker:
    """Counts failures in a row; at ``failures`` nothing is asked for ``pause_s`` seconds, then one probe.

    ``counted`` are the exceptions of what gave no answer: any other exception is an answer.
    """

    def __init__(
        self,
        counted: tuple[type[Exception], ...],
        failures: int = 5,
        pause_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counted = counted
        self._limit = failures
        self._pause_s = pause_s
        self._clock = clock
        self._failures = 0
        self._until: float | None = None
        self._probing = False

    @property
    def open(self) -> bool:
        """Whether it is known not to answer."""
        return self._until is not None

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Around one question; raises ``Paused`` where it must not be asked. A cancelled one says nothing."""
        probe = self._admit()
        try:
            yield
        except self._counted:
            self._fail()
            raise
        except Exception:
            self._succeed()
            raise
        else:
            self._succeed()
        finally:
            if probe:
                self._probing = False

    def _admit(self) -> bool:
        """Whether this is the probe."""
        if self._until is None:
            return False
        if self._probing or self._clock() < self._until:
            raise Paused
        self._probing = True
        return True

    def _fail(self) -> None:
        self._failures += 1
        if self._failures >= self._limit:
            self._until = self._clock() + self._pause_s

    def _succeed(self) -> None:
        self._failures, self._until = 0, None
